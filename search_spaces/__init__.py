"""What can be built: choices, blocks, search spaces, the weight-sharing supernet and stand-alone networks."""

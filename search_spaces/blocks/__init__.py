"""One file per block; each defines one `Block` subclass under the name `block`."""

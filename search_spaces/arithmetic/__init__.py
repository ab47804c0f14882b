"""Integer arithmetic of low-bit inference, exact: what kernels on devices must agree with, one scheme each file."""

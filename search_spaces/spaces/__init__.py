"""One file per search space; each defines `space(**options)`."""

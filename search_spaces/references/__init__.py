"""Published networks, one file each: `network(**options)` builds it, `PAPER` holds what its paper reports."""

"""One file per kind of device: how long its multipliers need, from equations with a source."""

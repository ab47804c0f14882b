"""Device descriptions: one TOML file per device, every number with its source."""

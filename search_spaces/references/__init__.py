"""Published networks: each file defines `NETWORKS`, a dictionary of `search_spaces.published.Published` by name."""

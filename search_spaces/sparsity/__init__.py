"""Sparsity, one file for each method: what to prune, how it is scored, and how a network is trained for it."""

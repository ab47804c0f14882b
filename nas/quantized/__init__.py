"""Trained networks in integers: ranges of activations, folded weights, codes, and a reference that computes so."""

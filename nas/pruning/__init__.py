"""Pruning of trained networks: what goes together, masks, fine-tuning within masks, and smaller networks."""

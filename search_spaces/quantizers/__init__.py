"""Quantizers, one file each: how weights and activations are rounded to few bits while a network is trained."""

"""Depthwise convolution: one function (`depthwise.depthwise`), one file per implementation."""

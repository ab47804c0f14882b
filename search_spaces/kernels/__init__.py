"""Depthwise convolution, alone and as the maximum of several filters: `depthwise.py`; one file per implementation."""

"""Settings of all tests."""

import os

from hypothesis import settings

# The tests compile much and compute little. XLA reads this when the first array is made, also in commands they start.
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_backend_optimization_level=0".strip()

# Programs compile inside the tests, and machines differ: time limits of single examples say nothing about the code.
settings.register_profile("flynas", deadline=None, derandomize=True)
settings.load_profile("flynas")

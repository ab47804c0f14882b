"""Settings of all tests."""

from hypothesis import settings

# Programs compile inside the tests, and machines differ: time limits of single examples say nothing about the code.
settings.register_profile("flynas", deadline=None, derandomize=True)
settings.load_profile("flynas")

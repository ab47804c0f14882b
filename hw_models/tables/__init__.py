"""Measured tables (CSV) with their source and licence."""

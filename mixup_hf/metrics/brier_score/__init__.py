"""A module of `evaluate`."""

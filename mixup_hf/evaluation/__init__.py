"""Evaluation: does it help, on whose data, at what price."""

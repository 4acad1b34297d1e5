"""Engines: what runs the language model."""

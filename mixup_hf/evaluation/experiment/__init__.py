"""Experiments: arms compared on the same rows, with as many steps."""

"""Mixing: who is mixed with whom, in what ratio, and how."""

"""Data: labelled texts, their targets, and mixed rows on disk."""

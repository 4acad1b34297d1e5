"""What the commands print and write: tables for the terminal, JSON and plots for a folder."""

from __future__ import annotations

"""Registry."""

from __future__ import annotations

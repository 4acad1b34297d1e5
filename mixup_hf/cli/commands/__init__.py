"""The commands, one file each, registered with `@register("command", name, help=...)`."""

from __future__ import annotations

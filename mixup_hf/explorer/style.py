"""How the page looks: a theme without fonts from elsewhere, its style sheet and its script."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from mixup_hf.explorer.markup import COLORS

_FONTS = ("system-ui", "Segoe UI", "Roboto", "DejaVu Sans", "sans-serif")
_FIXED = ("ui-monospace", "DejaVu Sans Mono", "monospace")


def theme(gradio: Any) -> Any:
    """The theme, with the system's own fonts.

    Args:
        gradio: The package.
    """
    font = gradio.themes.utils.fonts.Font
    base = gradio.themes.Base(
        primary_hue="blue",
        neutral_hue="slate",
        font=[font(name) for name in _FONTS],
        font_mono=[font(name) for name in _FIXED],
    )
    return base.set(block_info_text_size="*text_md")  # as large as the labels


def head() -> str:
    """What goes into the page's head: style sheet and script, both in the page itself."""
    sheet = _file("page.css") + "".join(map(_color_rules, range(COLORS)))
    return f"<style>{sheet}</style><script>{_file('page.js')}</script>"


def _color_rules(number: int) -> str:
    color = f"var(--mx-{number})"
    return (
        f".mx-c{number} {{ background: {color}; }}"
        f"circle.mx-k{number} {{ stroke: {color}; }}"
        f"path.mx-k{number} {{ fill: {color}; }}"
        f".mx-t{number} {{ color: {color}; border-color: {color}; }}\n"
    )


def _file(name: str) -> str:
    return files("mixup_hf.explorer").joinpath(name).read_text(encoding="utf-8")

"""Draw the figure of "How it works": from two texts to a row that is trained on.

python recipes/docs/figure.py
"""

from __future__ import annotations

from html import escape
from pathlib import Path

from mixup_hf import MixupConfig

FILE = Path(__file__).parent / "pages" / "how-it-works.svg"
_INK, _SOFT = "#1f2937", "#6b7280"
_REAL, _MADE = "#3f51b5", "#d97706"
_STYLE = " ".join(
    [
        f"text {{font: 15px system-ui, sans-serif; fill: {_INK}}}",
        f".s {{font-size: 12.5px; fill: {_SOFT}}} .b {{font-weight: 600}}",
        ".m {text-anchor: middle}",
        f".box, .l {{stroke: {_SOFT}; stroke-width: 1.5; fill: none}} .box {{fill: #fff}}",
        f".real {{stroke: {_REAL}}} .made {{stroke: {_MADE}}}",
    ]
)
_ARROW = (
    '<defs><marker id="a" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" '
    'markerHeight="7" orient="auto"><path d="M0 0L10 5L0 10z" fill="{_SOFT}"/></marker></defs>'
).replace("{_SOFT}", _SOFT)


def draw() -> str:
    """The figure as SVG; the committee's members are those of the default settings."""
    parts = [
        *_parents(),
        *_embedding_space(),
        *_box(
            480, 60, 165, 150, "invert", ["16 likely words", "4 soft tokens", "small LLM + LoRA"]
        ),
        *_sentence(),
        *_box(690, 245, 270, 90, "check", ["copies and nonsense are", "generated again"]),
        *_box(380, 245, 260, 90, "label: a committee", [", ".join(MixupConfig().committee)]),
        *_row(),
        *_run(),
    ]
    arrows = ((235, 95, 288, 118), (235, 175, 288, 152), (445, 135, 474, 135), (645, 135, 684, 135))
    arrows += (
        (825, 185, 825, 239),
        (690, 290, 646, 290),
        (380, 290, 346, 290),
        (170, 335, 170, 378),
    )
    parts += [
        f'<path class="l" d="M{a} {b}L{c} {d}" marker-end="url(#a)"/>' for a, b, c, d in arrows
    ]
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 980 490" role="img">'
        "<title>How mixup_hf makes a row</title>"
        f"<style>{_STYLE}</style>"
        f"{_ARROW}"
        '<rect width="980" height="490" rx="10" fill="#fafafa"/>' + "\n".join(parts) + "</svg>\n"
    )


def _text(x: float, y: float, text: str, style: str = "", fill: str = "") -> str:
    colour = f' style="fill:{fill}"' if fill else ""
    return f'<text x="{x}" y="{y}" class="{style}"{colour}>{escape(text)}</text>'


def _rect(x: int, y: int, width: int, height: int, kind: str = "") -> str:
    place = f'x="{x}" y="{y}" width="{width}" height="{height}" rx="8"'
    return f'<rect class="box {kind}" {place}/>'


def _box(x: int, y: int, width: int, height: int, title: str, lines: list[str]) -> list[str]:
    middle = x + width / 2
    top = y + height / 2 - 10 * len(lines)
    return [
        _rect(x, y, width, height),
        _text(middle, top + 5, title, "b m"),
        *(_text(middle, top + 27 + 20 * at, line, "s m") for at, line in enumerate(lines)),
    ]


def _parents() -> list[str]:
    """Two headlines; with the sentence that `recipes/minimal.py` prints for them."""
    shown = [_text(20, 40, "pair", "b")]
    for y, name, *lines in (
        (60, "a", "Italy to get", "economic action plan"),
        (140, "b", "Newest EU members", "underpin growth"),
    ):
        shown.append(_rect(20, y, 215, 70, "real"))
        shown += [_text(32, y + 21 + 19 * at, line) for at, line in enumerate(lines)]
        shown.append(_text(32, y + 60, f"real row {name}: business", "s"))
    return shown


def _embedding_space() -> list[str]:
    shown = [_text(295, 40, "mix embeddings", "b")]
    shown += [_rect(295, 60, 150, 150)]
    shown += ['<path class="l" stroke-dasharray="4 4" d="M320 155L415 95"/>']
    points = ((320, 155, _REAL, "a"), (415, 95, _REAL, "b"), (366, 126, _MADE, "λa + (1−λ)b"))
    for x, y, colour, name in points:
        shown.append(f'<circle cx="{x}" cy="{y}" r="6" fill="{colour}"/>')
        shown.append(_text(x - 4, y + 24, name, "s", colour))
    return shown


def _sentence() -> list[str]:
    return [
        _text(690, 65, "a sentence you can read", "b"),
        _rect(690, 85, 270, 100, "made"),
        _text(825, 130, "The EU plan to promote", "m"),
        _text(825, 152, "economic growth in Europe.", "m"),
    ]


def _row() -> list[str]:
    return [
        _rect(20, 245, 320, 90, "made"),
        _text(180, 275, "a generated row", "b m"),
        _text(180, 298, "the sentence, and a soft label", "s m"),
        _text(180, 317, "over all classes", "s m"),
    ]


def _run() -> list[str]:
    """The batches of a run: real and generated rows, then real rows alone."""
    shown = [_text(20, 402, "train", "b"), _text(20, 421, "rows of a batch,", "s")]
    shown += [_text(20, 438, "over the run", "s")]
    for at in range(16):
        x = 150 + 50.5 * at
        lower = _MADE if at < 8 else _REAL
        shown.append(f'<rect x="{x}" y="384" width="42" height="28" fill="{_REAL}" rx="3"/>')
        shown.append(f'<rect x="{x}" y="416" width="42" height="28" fill="{lower}" rx="3"/>')
    shown.append(_text(348, 468, "first half: real and generated rows", "s m"))
    shown.append(_text(752, 468, "second half: real rows", "s m"))
    return shown


if __name__ == "__main__":
    FILE.write_text(draw(), encoding="utf-8")

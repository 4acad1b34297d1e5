"""Render the tables of a Markdown page from the registry.

python recipes/render_tables.py README.md

A table stands between `<!-- table: KIND -->` and `<!-- end -->`.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from mixup_hf import registry

_TABLE = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def render(page: str) -> str:
    """The page with every table rendered anew."""
    return _TABLE.sub(lambda found: f"{found[1]}{registry.table(found[2])}\n{found[3]}", page)


def main() -> None:
    """Rewrite the pages named on the command line."""
    for name in sys.argv[1:]:
        path = Path(name)
        path.write_text(render(path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()

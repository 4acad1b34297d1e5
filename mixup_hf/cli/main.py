"""The `mixup-hf` command."""

from __future__ import annotations

import logging
import sys

import typer
from rich.console import Console

from mixup_hf import registry
from mixup_hf.errors import MixupError

app = typer.Typer(
    name="mixup-hf",
    help="Inverted mixup: mix two texts' embeddings, decode the mix, train on the sentence.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
# Keys of a config are options of their own: they are passed on, and checked against the config.
_FREE = {"allow_extra_args": True, "ignore_unknown_options": True}
for _entry in registry.entries("command"):
    _free = _entry.name in ("finetune", "align", "evaluate")
    app.command(_entry.name, context_settings=_FREE if _free else None)(_entry.value)


def main() -> None:
    """Run the command; a fault of the input is one message, not a traceback."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for noisy in ("httpx", "datasets", "transformers", "filelock"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    try:
        app()
    except MixupError as error:
        if "--debug" in sys.argv:
            raise
        message = "\n".join([str(error), *getattr(error, "__notes__", [])])
        Console(stderr=True).print(f"[bold red]error:[/] {_escape(message)}", soft_wrap=True)
        raise SystemExit(2) from error


def _escape(text: str) -> str:
    return text.replace("[", r"\[")


if __name__ == "__main__":
    main()

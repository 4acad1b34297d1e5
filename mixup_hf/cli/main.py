"""The `mixup-hf` command."""

from __future__ import annotations

import logging
import sys

import typer
from rich.console import Console

from mixup_hf.cli import (
    align,
    audit,
    augment,
    env,
    evaluate,
    export,
    finetune,
    preview,
    push,
    report,
)
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
app.command("finetune", context_settings=_FREE)(finetune.command)
app.command("align", context_settings=_FREE)(align.command)
app.command("augment")(augment.command)
app.command("evaluate", context_settings=_FREE)(evaluate.command)
app.command("audit")(audit.command)
app.command("report")(report.command)
app.command("preview")(preview.command)
app.command("export")(export.command)
app.command("env")(env.command)
app.command("push")(push.command)


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

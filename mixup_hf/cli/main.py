"""The `mixup-hf` command: one app from the registered commands, and what is done about errors."""

from __future__ import annotations

import errno
import logging
import sys
from importlib.metadata import version
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from mixup_hf import registry
from mixup_hf.cli.options import Command
from mixup_hf.errors import MixupError

_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)
_REPORT = (
    "This is a bug in mixup_hf, not in your input. Please report it with the lines above and the "
    "output of `mixup-hf env`."
)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"mixup-hf {version('mixup_hf')}")
        raise typer.Exit


def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of every error.")
    ] = False,
) -> None:
    """Inverted mixup: mix two texts' embeddings, decode the mix, train on the sentence."""


def _build() -> typer.Typer:
    """The app: one command for each registered entry."""
    app = typer.Typer(
        name="mixup-hf",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode="markdown",
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_root)
    for entry in registry.entries("command"):
        summary = entry.help[:1].upper() + entry.help[1:]
        app.command(entry.name, cls=Command, short_help=summary)(entry.value)
    return app


app = _build()


def main() -> None:
    """Run the command line.

    An error that the user can mend is one message and exit code 2; any other exception keeps its
    traceback and asks for a report. Ctrl-C ends with exit code 130.
    """
    _prepare_streams()
    debug = "--debug" in sys.argv
    sys.argv = [sys.argv[0], *(word for word in sys.argv[1:] if word != "--debug")]
    try:
        app(prog_name="mixup-hf")
    except KeyboardInterrupt:
        typer.echo("Interrupted.", err=True)
        raise SystemExit(130) from None
    except MixupError as error:
        if debug:
            raise
        message = "\n".join([str(error), *getattr(error, "__notes__", [])])
        Console(stderr=True).print(f"[bold red]error:[/] {escape(message)}", soft_wrap=True)
        raise SystemExit(2) from error
    except Exception as error:
        if _is_the_disk(error) and not debug:
            typer.echo(f"error: {error}. Free some space, or write elsewhere.", err=True)
            raise SystemExit(2) from error
        error.add_note(_REPORT)
        raise


def _is_the_disk(error: BaseException) -> bool:
    """Whether a disk is full or read-only; safetensors and pyarrow say so in words alone."""
    number = getattr(error, "errno", None)
    words = ("No space left on device", "Read-only file system", "Disk quota exceeded")
    return number in _DISK or any(word in str(error) for word in words)


class _AboveBars(logging.Handler):
    """Prints a record without breaking the progress bars that are being shown."""

    def emit(self, record: logging.LogRecord) -> None:
        from tqdm import tqdm  # only once there is something to print

        try:
            tqdm.write(self.format(record), file=sys.stderr)
        except Exception:  # as every handler of the standard library does
            self.handleError(record)


def _prepare_streams() -> None:
    """Show the package's progress lines; never fail on a sign that the terminal cannot print."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[_AboveBars()])
    logging.getLogger("mixup_hf").setLevel(logging.INFO)
    # Not a fault: bitsandbytes looks for an optional kernel when transformers imports it.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")


if __name__ == "__main__":
    main()

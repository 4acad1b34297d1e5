"""`mixup-hf explore`: a page to mix texts, review generated rows and look at a map of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from mixup_hf import errors
from mixup_hf.cli.options import Keys, LabelColumn, TextColumn, print_settings, takes_settings
from mixup_hf.cli.paths import output_file
from mixup_hf.config import MixupConfig
from mixup_hf.registry import register

if TYPE_CHECKING:
    from mixup_hf.explorer.session import Session


@register("command", "explore", help="a page to mix texts and to review generated rows")
@takes_settings(MixupConfig)
def command(
    data: Annotated[
        str | None,
        typer.Argument(help="Labelled texts: csv, jsonl, parquet, or the name of a data set."),
    ] = None,
    text_column: TextColumn = "text",
    label_column: LabelColumn = "label",
    name: Annotated[str | None, typer.Option(help="Configuration of a Hub data set.")] = None,
    split: Annotated[str, typer.Option(help="Split of a data set.")] = "train",
    output: Annotated[
        Path | None,
        typer.Option(help="New file for the rows you keep. Default: kept.jsonl, or kept-2.jsonl."),
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen at. 0.0.0.0 shows the page to your network.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0 takes one that is free.")] = 7860,
    browser: Annotated[
        bool, typer.Option("--browser", help="Open the page in your browser.")
    ] = False,
    keys: Keys = False,
    *,
    overrides: list[str],
) -> None:
    """Open a page in the browser: mix two texts, review generated rows, look at a map of them.

    The page runs on this machine, sends nothing anywhere, and ends with Ctrl-C.
    """
    console = Console()
    if keys:
        print_settings(console, MixupConfig)
        return
    if output is not None:
        _check_output(output)
    loaded = "models" if data is None else "models and rows"
    console.print(f"Starting: {loaded} are loaded …")
    errors.optional("gradio", "explore", "The explorer")
    from mixup_hf.explorer import server

    server.check_address(host, port)  # before a minute of loading
    source = {"data": data, "name": name, "split": split, "eval_data": None, "unlabeled_file": None}
    session = _session(source | {"columns": [text_column, label_column, None]}, output, overrides)
    if host not in server.LOCAL:
        console.print(
            f"Everyone who can reach {host}:{port} can read your rows and run the models.",
            highlight=False,
        )
    server.serve(
        session,
        host=host,
        port=port,
        browser=browser,
        on_ready=lambda url: console.print(f"{url}  (Ctrl-C ends it)", soft_wrap=True),
    )


def _check_output(output: Path) -> None:
    from mixup_hf.data.row_formats import format_of

    output_file("--output", output)
    format_of(output)
    if output.exists():
        raise errors.bad("--output", "be a new file", str(output), "Move it, or give another name.")


def _session(source: dict[str, Any], output: Path | None, overrides: list[str]) -> Session:
    """Models and rows, read and checked before the page is there."""
    from mixup_hf.config.load import load_config
    from mixup_hf.data.tables import read_table
    from mixup_hf.explorer.labelled_set import LabelledSet
    from mixup_hf.explorer.session import Session
    from mixup_hf.inverter.engines.vllm import ServerSettings
    from mixup_hf.inverter.model import Inverter
    from mixup_hf.training.augmentation import prepare

    config = load_config(MixupConfig, None, overrides)
    if source["data"] is None:
        inverter = Inverter.from_pretrained(
            config.aligner,
            revision=config.revision,
            quantization=config.quantization,
            engine=config.engine,
            server=ServerSettings(
                config.server_timeout, config.max_inflight, config.server_fallback
            ),
        )
        return Session(inverter, config, output=output)
    settings = {name: getattr(config, name) for name in MixupConfig.__dataclass_fields__}
    table = read_table(
        source["data"], *source["columns"], name=source["name"], split=source["split"]
    )
    mixup = prepare(table, settings.pop("aligner"), None, {}, settings)
    return Session(mixup.inverter, config, LabelledSet(mixup, table, source), output)

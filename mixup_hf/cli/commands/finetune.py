"""`mixup-hf finetune`: a classifier, with mixed sentences or without."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mixup_hf.config import FinetuneConfig
from mixup_hf.loading import known_keys, load_config
from mixup_hf.registry import register


@register("command", "finetune", help="fine-tune a classifier, with generated sentences or without")
def command(
    context: typer.Context,
    config: Annotated[
        Path | None, typer.Argument(help="YAML file; its values are defaults.")
    ] = None,
    keys: Annotated[bool, typer.Option("--keys", help="List all keys and stop.")] = False,
) -> None:
    """Fine-tune a classifier with inverted mixes, and measure it on the test split.

    Every key of the config can be given as an option, which wins over the file:

        mixup-hf finetune recipes/configs/bbc/mixup.yaml --data.shots 20 --seed 1

    `mixup-hf finetune --keys` lists them. Writes output_dir/metrics.json and mixed.jsonl.
    """
    console = Console()
    if keys:
        print_keys(console, FinetuneConfig)
        return
    settings = load_config(FinetuneConfig, *config_and_overrides(config, context.args))
    from mixup_hf import runtime
    from mixup_hf.finetuning.runner import (
        finetune,  # slow to import: after the config has been checked
    )

    metrics = finetune(settings)
    if runtime.is_main_process():
        show_result(console, metrics, Path(settings.output_dir))


def config_and_overrides(config: Path | None, words: list[str]) -> tuple[Path | None, list[str]]:
    """The config file, if there is one, and the keys after it.

    Without a file the parser takes the first key for it.
    """
    if config is not None and str(config).startswith("--"):
        return None, [str(config), *words]
    return config, words


def print_keys(console: Console, kind: type[Any]) -> None:
    """Print every key of a config class with its help."""
    table = Table("key", "what it says")
    for key, text in known_keys(kind).items():
        table.add_row(key, escape(text))
    console.print(table)


def show_result(console: Console, metrics: dict[str, Any], output: Path, samples: int = 10) -> None:
    """Print the metrics, and some mixed sentences with parents, lambda and label."""
    table = Table("metric", "value", title="Test metrics")
    for key in ("test_accuracy", "test_macro_f1", "test_loss", "test_ece"):
        table.add_row(key, f"{metrics[key]:.4f}")
    for key in (
        "train_rows",
        "test_rows",
        "mixed_rows",
        "mixed_draws",
        "doubtful",
        "steps",
        "seconds",
    ):
        table.add_row(key, str(metrics[key]))
    console.print(table)
    rows = output / "mixed.jsonl"
    if metrics["mixed_rows"]:
        lines = rows.read_text(encoding="utf-8").splitlines()[:samples]
        print_mixes(console, [json.loads(line) for line in lines])
        console.print(f"All {metrics['mixed_rows']} sentences: {rows}", soft_wrap=True)


def print_mixes(console: Console, rows: list[dict[str, Any]]) -> None:
    """Print mixed rows for a person to read."""
    table = Table("λ", "parents", "mixed sentence", "label", show_lines=True)
    for row in rows:
        shares = sorted(row["label"].items(), key=lambda item: -item[1])
        label = ", ".join(f"{name} {share:.2f}" for name, share in shares if share > 0)
        parents = "\n".join(_one_line(parent) for parent in row["parent_texts"])
        sides = [row["text"], *([row["text_pair"]] if "text_pair" in row else [])]
        texts = (parents, _one_line(sides), label)
        table.add_row(f"{row['lam']:.2f}", *(escape(text) for text in texts))
    console.print(table)


def _one_line(text: str | Sequence[str]) -> str:
    """A text, or both sides of a pair."""
    return text if isinstance(text, str) else " / ".join(text)

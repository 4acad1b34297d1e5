"""`mixup-hf finetune`: a classifier, with mixed sentences or without."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mixup_hf.cli.options import ConfigFile, Keys, print_settings, takes_settings
from mixup_hf.cli.paths import output_folder
from mixup_hf.config import FinetuneConfig
from mixup_hf.config.load import load_config
from mixup_hf.registry import register


@register("command", "finetune", help="fine-tune a classifier, with generated sentences or without")
@takes_settings(FinetuneConfig)
def command(overrides: Sequence[str], config: ConfigFile = None, keys: Keys = False) -> None:
    """Fine-tune a classifier with generated sentences, and measure it on the test split.

    Every setting can be given in a YAML file, as an option, or both; the option wins:

        mixup-hf finetune config.yaml --data.shots 20 --seed 1

    Writes metrics.json and mixed.jsonl into the output directory.
    """
    console = Console()
    if keys:
        print_settings(console, FinetuneConfig)
        return
    settings = load_config(FinetuneConfig, config, overrides)
    output_folder("--output-dir", settings.output_dir)
    from mixup_hf import runtime
    from mixup_hf.finetuning.runner import finetune  # slow: after the settings have been checked

    metrics = finetune(settings)
    if runtime.is_main_process():
        show_result(console, metrics, Path(settings.output_dir))


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

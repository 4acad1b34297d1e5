"""`mixup-hf finetune`: fine-tune a model, with mixed sentences or without."""

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

_COUNTS = (
    "train_rows",
    "validation_rows",
    "test_rows",
    "mixed_rows",
    "mixed_draws",
    "doubtful",
    "steps",
    "seconds",
)
_SHOWN = 0.05


@register("command", "finetune", help="fine-tune a classifier, with generated sentences or without")
@takes_settings(FinetuneConfig)
def command(overrides: Sequence[str], config: ConfigFile = None, keys: Keys = False) -> None:
    """Fine-tune a model with generated sentences, and measure it on the test split.

    Every setting can be given in a YAML file, as an option, or both; the option wins:

        mixup-hf finetune config.yaml --data.shots 20 --seed 1

    Writes the model, its tokenizer, metrics.json and mixed.jsonl into the output directory. With
    validation rows (`--data.validation-share 0.1`, say), the best checkpoint is kept; with
    `--compare true`, a baseline is trained beside it.
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
    """Print the metrics, the comparison, and some mixed sentences with parents, λ and label."""
    from mixup_hf.data.row_formats import OF_A_RUN

    table = Table("metric", "value", title="Test metrics")
    for name, value in metrics.items():
        if name.startswith(("test_", "best_")) and isinstance(value, float):
            table.add_row(name, f"{value:.4f}")
    for name in _COUNTS:
        if name in metrics:
            table.add_row(name, str(metrics[name]))
    console.print(table)
    if "comparison" in metrics:
        show_comparison(console, metrics)
    rows = output / OF_A_RUN
    if metrics["mixed_rows"]:
        lines = rows.read_text(encoding="utf-8").split("\n")[:samples]
        print_mixes(console, [json.loads(line) for line in lines if line])
        console.print(f"All {metrics['mixed_rows']} sentences: {rows}", soft_wrap=True)


def show_comparison(console: Console, metrics: dict[str, Any]) -> None:
    """Print the run beside its baseline, with the difference and what a paired test says."""
    found, baseline = metrics["comparison"], metrics["baseline"]
    table = Table("metric", "mixup", "baseline", "difference", title="Mixup and baseline")
    for name, values in found["metrics"].items():
        shown = (f"{values['mixup']:.4f}", f"{values['baseline']:.4f}")
        table.add_row(name, *shown, f"{values['difference']:+.4f}")
    console.print(table)
    before = metrics["contrastive_steps"]
    early = f" (with mixup, {before} of them contrastive, before training)" if before else ""
    console.print(
        f"Same seed, head, {baseline['steps']} steps{early} and rows per step; the baseline's "
        "rows are all real, so it sees each of them more often (oversampling)."
    )
    if found["test"] == "mcnemar":
        console.print(
            f"Test rows that only mixup predicted correctly: {found['only_mixup_correct']}; only "
            f"the baseline: {found['only_baseline_correct']} (exact McNemar p = {found['p']:.3f})."
        )
    else:
        console.print(f"Wilcoxon signed-rank test on absolute errors: p = {found['p']:.3f}.")
    console.print("One seed: `mixup-hf evaluate` compares over several.")


def print_mixes(console: Console, rows: list[dict[str, Any]]) -> None:
    """Print mixed rows for a person to read."""
    table = Table("λ", "parents", "mixed sentence", "label", show_lines=True)
    for row in rows:
        shares = sorted(row["soft_label"].items(), key=lambda item: -item[1])
        # A committee leaves every class a little.
        shown = shares if len(shares) == 1 else [each for each in shares if each[1] >= _SHOWN]
        label = ", ".join(f"{name} {share:.2f}" for name, share in shown)
        parents = "\n".join(_one_line(parent) for parent in row["parent_texts"])
        sides = [row["text"], *([row["text_pair"]] if "text_pair" in row else [])]
        texts = (parents, _one_line(sides), label)
        table.add_row(f"{row['lam']:.2f}", *(escape(text) for text in texts))
    console.print(table)


def _one_line(text: str | Sequence[str]) -> str:
    """A text, or both sides of a pair."""
    return text if isinstance(text, str) else " / ".join(text)

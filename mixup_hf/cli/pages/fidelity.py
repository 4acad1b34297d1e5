"""What `mixup-hf align --evaluate` prints and writes."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mixup_hf.evaluation.fidelity import Fidelity


def show(console: Console, fidelity: Fidelity, title: str) -> None:
    """Print the tables, along with example sentences."""
    how = "greedy" if fidelity.num_candidates == 1 else f"best of {fidelity.num_candidates}"
    if fidelity.corrections:
        how += f", corrections: {fidelity.corrections}"
    if fidelity.close_enough is not None:
        how += f", close enough: {fidelity.close_enough:g}"
    table = Table(
        "measure", "value [95 % interval]", title=f"{title}: {fidelity.sentences} sentences, {how}"
    )
    for name, figure in fidelity.overall.items():
        table.add_row(name, str(figure), end_section=name == "bleu")
    for name, figure in fidelity.control.items():
        table.add_row(f"lambda {name}" if name != "mix_cosine" else name, str(figure))
    table.add_row("sentences per second", f"{fidelity.rate:.3g}")
    table.add_row("distinct of 200 mixes", f"{fidelity.distinct:.3f}")
    console.print(table)
    for head, groups in (("length", fidelity.by_length), ("origin", fidelity.by_origin)):
        if groups:
            console.print(_groups(head, groups))
    samples = Table("sentence", "decoded from its embedding", title="Round trips")
    for pair in fidelity.samples:
        samples.add_row(*map(escape, pair))
    console.print(samples)
    for sweep in fidelity.sweeps:
        between = Table("lambda", "sentence", title=escape(sweep["second"]))
        for lam, sentence in zip(sweep["lams"], sweep["sentences"], strict=True):
            between.add_row(f"{lam:.2f}", escape(sentence))
        between.add_section()
        between.add_row("", escape(sweep["first"]), style="italic")
        console.print(between)


def write(folder: Path, fidelity: Fidelity, title: str) -> list[Path]:
    """Write fidelity.json, and fidelity.png if matplotlib is installed.

    Returns:
        The files written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    report = folder / "fidelity.json"
    report.write_text(json.dumps({"title": title, **asdict(fidelity)}, indent=2) + "\n")
    try:
        import matplotlib.pyplot as plt
    except ImportError:
        return [report]
    picture = folder / "fidelity.png"
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
    lams = sorted({asked for asked, _ in fidelity.recovered})
    found = [[got for asked, got in fidelity.recovered if asked == lam] for lam in lams]
    left.plot([0, 1], [0, 1], color="0.7", linestyle="--")
    left.boxplot(found, positions=lams, widths=0.12, manage_ticks=False)
    slope, rho = (fidelity.control[name].value for name in ("slope", "spearman"))
    left.set(
        xlabel="lambda asked for",
        ylabel="lambda recovered",
        title=f"Control: slope {slope:.2f}, Spearman {rho:.2f}",
        xlim=(-0.1, 1.1),
    )
    names = list(fidelity.by_length)
    scores = ("cosine", "token_f1", "rouge_l")
    for at, score in enumerate(scores):
        heights = [fidelity.by_length[name][score] for name in names]
        right.bar([x + 0.25 * (at - 1) for x in range(len(names))], heights, 0.25, label=score)
    right.set(xticks=range(len(names)), xticklabels=names, ylim=(0, 1), title="Round trip")
    right.legend()
    figure.suptitle(title)
    figure.savefig(picture, dpi=130)
    plt.close(figure)
    return [report, picture]


def _groups(head: str, groups: dict[str, dict[str, float]]) -> Table:
    columns = list(next(iter(groups.values())))
    table = Table(head, *columns)
    for name, figures in groups.items():
        shown = [f"{figures[column]:.3g}" for column in columns]
        table.add_row(escape(name), *shown)
    return table

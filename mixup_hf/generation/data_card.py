"""The data card of generated rows: how they were made, who labelled them, whose licence holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from huggingface_hub import DatasetCard, DatasetCardData

# Columns by which rows that repeat real texts are told from others.
SAY_WHAT_IS_REAL = ("mitigation", "method")

NOT_AUDITED = (
    "**Not audited.** What these rows reveal about the training texts has not been measured; "
    "`mixup-hf audit` does."
)

_BODY = """---
{front}
---

# {name}

{rows:,} sentences that a language model generated from mixed sentence embeddings of labelled texts,
with soft labels. They are synthetic: nobody wrote them, and what they state may be false.

{example}
| | |
|---|---|
{facts}

## Labels

{labels}

## What the rows reveal of the training texts

{verdict}

{parents} Rows of ratios near 0 or 1 can come close to a training text: do not treat the rows as
anonymized.

## Licence

The texts that these rows were generated from are under `{licence}`, as stated by whoever published
the rows. {source}Generated text derives from them: respect their terms.

Made with `mixup_hf` (`mixup-hf augment`).
"""

_EXAMPLE = """```python
from datasets import load_dataset

rows = load_dataset("{name}", split="train")
```

Columns: {columns}.
"""


def data_card(
    records: Sequence[Mapping[str, Any]],
    run: Mapping[str, Any],
    *,
    name: str,
    licence: str,
    verdict: str | None = None,
    source: str = "",
) -> DatasetCard:
    """Generate the data card of rows.

    Args:
        records: The rows (at least one), as `row_formats` documents them.
        run: The settings they share; empty if they were not recorded.
        name: Repository on the Hub, `user/name`.
        licence: Licence of the texts that the rows were generated from.
        verdict: What an audit has found; None if there was none.
        source: Name or address of those texts.
    """
    front = DatasetCardData(
        license=licence,
        task_categories=["text-classification"],
        size_categories=[_size(len(records))],
        tags=["mixup_hf", "synthetic", "data-augmentation"],
        source_datasets=[source] if source.count("/") == 1 else None,
        configs=[{"config_name": "default", "data_files": "data/*.parquet"}],
    )
    columns = ", ".join(f"`{column}`" for column in records[0])
    shown = [f"| {key} | {_cell(value)} |" for key, value in _facts(records, run).items() if value]
    return DatasetCard(
        _BODY.format(
            front=front.to_yaml(),
            name=name,
            rows=len(records),
            example=_EXAMPLE.format(name=name, columns=columns),
            facts="\n".join(shown),
            labels=_labels(records, run),
            verdict=verdict or NOT_AUDITED,
            parents=_parents(records[0]),
            licence=licence,
            source=f"Source: {source}. " if source else "",
        )
    )


def _facts(records: Sequence[Mapping[str, Any]], run: Mapping[str, Any]) -> dict[str, str]:
    settings = run.get("settings", {})
    prints = _values(records, "aligner_fingerprint")
    aligner = _words([settings["aligner"]] if _is_public(settings.get("aligner")) else [])
    judged = [row for row in records if row.get("events")]
    facts = {
        "rows per class": _counts(records),
        "method": _words(_values(records, "method")),
        "distribution of λ": _words(_values(records, "weights")),
        "mixing": _words(_values(records, "interpolation")),
        "aligner": aligner,
        "aligner's fingerprint": _words(prints),
        "engine": _words(_values(records, "engine")),
        "seeds": ", ".join(map(str, sorted({row["seed"] for row in records if "seed" in row}))),
    }
    if "events" in records[0]:
        handled = Counter(
            row["mitigation"] for row in records if row.get("mitigation", "none") != "none"
        )
        found = "".join(f", {count} {name}" for name, count in sorted(handled.items()))
        facts["doubtful first sentences"] = f"{len(judged)} of {len(records)}{found}"
    return facts


def _labels(records: Sequence[Mapping[str, Any]], run: Mapping[str, Any]) -> str:
    members = sorted({name for row in records for name in row.get("votes") or {}})
    if members:
        weighed = run.get("settings", {}).get("label_source")
        share = " and the parents' labels" if weighed == "blend" else ""
        return (
            f"A committee ({', '.join(members)}), fitted on the training rows, labelled every "
            f"sentence by what it says{share}; `votes` has each member's class probabilities. No "
            "person has checked the labels."
        )
    if "lam" not in records[0]:
        return "How the labels were given is not recorded. No person has checked them."
    return (
        "The labels of the parents, mixed with the weights in `shares`. No person has checked them."
    )


def _parents(first: Mapping[str, Any]) -> str:
    if "parent_texts" in first:
        return "`parent_texts` holds training texts."
    if not {*SAY_WHAT_IS_REAL} <= {*first}:
        return "It is not recorded which rows repeat a training text: assume that some of them do."
    return "Training texts, and rows that repeat one, are not included."


def _counts(records: Sequence[Mapping[str, Any]]) -> str:
    labels = [row["label"] for row in records]
    if any(isinstance(label, float) for label in labels):
        return ""
    held = Counter(
        str(each)
        for label in labels
        for each in (label if isinstance(label, (list, tuple)) else [label])
    )
    return ", ".join(f"{name}: {count}" for name, count in sorted(held.items()))


def _values(records: Iterable[Mapping[str, Any]], column: str) -> list[str]:
    return sorted({str(row[column]) for row in records if row.get(column)})


def _words(values: Iterable[str]) -> str:
    return ", ".join(f"`{value}`" for value in values)


def _is_public(aligner: Any) -> bool:
    """Whether it is a name; the path of a folder says something about a machine, not the rows."""
    return isinstance(aligner, str) and aligner.count("/") <= 1 and not aligner.startswith(".")


def _cell(text: str) -> str:
    return text.replace("|", "/").replace("\n", " ")


def _size(rows: int) -> str:
    steps = {1_000: "n<1K", 10_000: "1K<n<10K", 100_000: "10K<n<100K", 1_000_000: "100K<n<1M"}
    return next((name for most, name in steps.items() if rows < most), "1M<n<10M")

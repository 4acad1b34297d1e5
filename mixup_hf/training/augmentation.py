"""Generated rows as a data set or a file, without a Trainer."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mixup_hf import errors, runtime
from mixup_hf.data.row_writer import RowWriter, rows_dataset
from mixup_hf.data.tables import LabelledTexts, read_table
from mixup_hf.data.targets import MULTI_LABEL, REGRESSION
from mixup_hf.generation.readability import Readability
from mixup_hf.generation.summary import RowSummary, mean_words
from mixup_hf.inverter.model import Inverter
from mixup_hf.training.inversed import InversedMixup
from mixup_hf.training.mixed_set import read_config
from mixup_hf.training.regeneration import record_of, run_record
from mixup_hf.training.row_pieces import generating_bar
from mixup_hf.types import MixedExample

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True)
class Written:
    """Which columns of generated rows are written.

    Attributes:
        columns: Names of `row_formats.COLUMNS`; empty for all.
        provenance: `full`; or `none`: only texts and labels.
        parents: Include the parents' texts, which are training data.
    """

    columns: tuple[str, ...] = ()
    provenance: str = "full"
    parents: bool = False


@dataclass(frozen=True)
class Augmented:
    """What a run of `augment_file` has done.

    Attributes:
        summary: Counts of the generated rows.
        real_by_class: Training rows by class name, a row with several classes once for each;
            empty for regression.
        names: The classes.
        real_words: Mean words per training text.
        seconds: What generating took, without loading the models.
        readability: The aligner's round trip of the training texts; None if it was not checked.
        labelled_by: Who labelled the rows, in words.
    """

    summary: RowSummary
    real_by_class: Counter[str]
    names: list[str]
    real_words: float
    seconds: float
    readability: Readability | None = field(default=None)
    labelled_by: str = ""


def augment_dataset(
    dataset: Any,
    *,
    text_column: str = "text",
    label_column: str = "label",
    text_pair_column: str | None = None,
    num_samples: int | None = None,
    aligner: str = "embedded",
    inverter: Inverter | None = None,
    eval_texts: Sequence[Any] = (),
    unlabeled_texts: Sequence[Any] = (),
    label_descriptions: Mapping[str, str] | None = None,
    columns: Sequence[str] = (),
    provenance: str = "full",
    parents: bool = False,
    on_chunk: Callable[[int], object] | None = None,
    **settings: Any,
) -> Dataset:
    """Generate rows from a labelled data set.

    Example:
        generated = augment_dataset(train, num_samples=500, columns=["text", "label"])
        both = concatenate_datasets([train, generated])

    Args:
        dataset: A `datasets.Dataset`, a pandas `DataFrame`, a file, or the name of a data set.
        text_column: Column of the text.
        label_column: Column of the label: class indices or names, lists of names for several
            labels per row, floats for regression.
        text_pair_column: Column of the second text, where rows are pairs.
        num_samples: Rows to generate. Default: as many as `dataset` has.
        aligner: `"embedded"`, a folder, or a Hub id.
        inverter: One that is loaded already, instead of `aligner`.
        eval_texts: Texts that no generated row may nearly equal.
        unlabeled_texts: As for `InversedMixup`.
        label_descriptions: As for `InversedMixup`.
        columns: Columns of the result, see `data.row_formats`. Default: all.
        provenance: `full`, or `none` for text and labels alone.
        parents: Include the parents' texts, which are training data.
        on_chunk: Called with the number of rows of each chunk, in place of a progress bar.
        **settings: Fields of `MixupConfig`.

    Returns:
        The generated rows alone. `label` has the feature it has in `dataset`, `ClassLabel` for one.
        The columns of text and label are called `text`, `text_pair` and `label`.

    Raises:
        InvalidInput: The data set or a setting breaks a rule.
    """
    if num_samples is not None:
        errors.at_least("num_samples", num_samples, 1)
    table = read_table(dataset, text_column, label_column, text_pair_column)
    known = {
        "eval_texts": eval_texts,
        "unlabeled_texts": unlabeled_texts,
        "label_descriptions": label_descriptions,
    }
    mixup = prepare(table, aligner, inverter, known, settings)
    written = written_record(
        Written(tuple(columns), provenance, parents), table, mixup, dataset, label_column
    )
    records: list[dict[str, Any]] = []
    count = num_samples or len(table)
    with generating_bar(count) as bar:
        for rows in _chunks(mixup, count):
            records += [record_of(row, mixup, written) for row in rows]
            (on_chunk or bar.update)(len(rows))
    if (
        mixup.problem_type == MULTI_LABEL
        and _holds_numbers(table.labels)
        and not written["indices"]
    ):
        for record in records:  # one 0 or 1 per class, as the labels were given
            if "label" in record:
                record["label"] = [int(name in record["label"]) for name in mixup.label_names]
    return rows_dataset(records, _feature(dataset, label_column))


def augment_file(
    output: str | Path,
    mixup: InversedMixup,
    table: LabelledTexts,
    num_samples: int,
    *,
    data: dict[str, Any],
    written: Written | None = None,
    format: str | None = None,
    on_chunk: Callable[[int], object] | None = None,
) -> Augmented:
    """Generate rows into a file, chunk by chunk.

    If it is interrupted, the rows made so far stay in `RowWriter.partial`. Of several processes,
    which share the work, the main one writes.

    Args:
        output: The file; its settings go to `FILE.run.json`.
        mixup: What generates the rows.
        table: Its training rows.
        num_samples: Rows to generate.
        data: Where `table` is from, for `FILE.run.json`: see `regeneration.run_record`.
        written: Which columns are written. Default: all but the parents' texts.
        format: `jsonl`, `csv` or `parquet`. Default: by the suffix.
        on_chunk: Called with the number of rows of each chunk, for a progress bar.
    """
    chosen = written_record(written or Written(), table, mixup)
    full = chosen["provenance"] == "full"
    run = run_record(data, table, mixup, num_samples, chosen) if full else None
    summary = RowSummary(multi_label=mixup.problem_type == MULTI_LABEL, texts=mixup.texts)
    started = time.monotonic()
    writes = runtime.is_main_process()
    with RowWriter(output, format, run=run) if writes else nullcontext() as writer:
        for rows in _chunks(mixup, num_samples):
            if writer is not None:
                writer.write([record_of(row, mixup, chosen) for row in rows])
            summary.add(rows)
            if on_chunk is not None:
                on_chunk(len(rows))
    return Augmented(
        summary,
        _rows_by_class(mixup),
        mixup.label_names,
        mean_words(table.texts),
        time.monotonic() - started,
        mixup.check_readability(),
        mixup.labelled_by,
    )


def prepare(
    table: LabelledTexts,
    aligner: str,
    inverter: Inverter | None,
    known: dict[str, Any],
    settings: dict[str, Any],
) -> InversedMixup:
    """Inverted mixup of a table, with the classes in the order of its source.

    Args:
        table: The training rows.
        aligner: `"embedded"`, a folder, or a Hub id.
        inverter: One that is loaded already, instead of `aligner`.
        known: Further arguments of `InversedMixup`, such as `eval_texts`.
        settings: Fields of `MixupConfig`.
    """
    named = dict(known)
    if table.names is not None:
        named |= {"label_names": list(table.names), "num_labels": len(table.names)}
    named["config"] = read_config(None, settings | {"aligner": aligner})
    if inverter is not None:
        return InversedMixup(inverter, table.texts, table.labels, **named)
    return InversedMixup.from_pretrained(texts=table.texts, labels=table.labels, **named)


def written_record(
    written: Written,
    table: LabelledTexts,
    mixup: InversedMixup,
    dataset: Any = None,
    label_column: str = "label",
) -> dict[str, Any]:
    """What `record_of` has to know: the columns, and whether labels are class indices."""
    feature = _feature(dataset, label_column)
    named = hasattr(getattr(feature, "feature", feature), "int2str")  # of a list, or by itself
    indices = named or isinstance(table.labels[0], Integral)
    return {
        "columns": list(written.columns),
        "provenance": written.provenance,
        "parents": written.parents or "parent_texts" in written.columns,
        "indices": indices,
    }


def _rows_by_class(mixup: InversedMixup) -> Counter[str]:
    if mixup.problem_type == REGRESSION:
        return Counter()
    counts = (mixup.targets > 0).sum(0).tolist()
    return Counter(dict(zip(mixup.label_names, counts, strict=True)))


def _chunks(mixup: InversedMixup, count: int) -> Iterator[list[MixedExample]]:
    mixup.check_readability()
    yield from mixup.stream(count, gather=True)


def _feature(dataset: Any, column: str) -> Any:
    """The feature of a label column; None for what is no `Dataset`."""
    return getattr(dataset, "features", {}).get(column)


def _holds_numbers(labels: Sequence[Any]) -> bool:
    """Whether these lists of labels are of numbers, not of names."""
    return not any(isinstance(value, str) for label in labels for value in label)

"""Generated rows generated again from what was recorded with them."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from mixup_hf import errors
from mixup_hf.config import MixupConfig
from mixup_hf.data.row_files import digest, mixed_json
from mixup_hf.data.row_formats import read_records, read_run
from mixup_hf.data.row_writer import select
from mixup_hf.data.tables import LabelledTexts, read_table
from mixup_hf.data.unlabeled_files import read_texts
from mixup_hf.generation.unlabeled import UNLABELED
from mixup_hf.training.inversed import InversedMixup
from mixup_hf.types import MixedExample

# Settings of a run that a row depends on, beside those of `MixupConfig`.
_NEEDED = ("data", "data_sha256", "columns", "num_samples", "settings", "written")
_NEEDED_OF_A_ROW = ("index", "epoch", "engine", "aligner_fingerprint")


def record_of(row: MixedExample, mixup: InversedMixup, written: dict[str, Any]) -> dict[str, Any]:
    """A row as it is written.

    Args:
        row: The row.
        mixup: What generated it.
        written: `columns`, `provenance`, `parents` (whether to include the parents' texts) and
            `indices` (whether labels are indices).
    """
    record = mixed_json(
        row,
        mixup.texts if written["parents"] else None,
        mixup.label_names,
        problem_type=mixup.problem_type,
        indices=written["indices"],
    )
    return select(record, written["columns"], written["provenance"])


def run_record(
    data: dict[str, Any],
    table: LabelledTexts,
    mixup: InversedMixup,
    num_samples: int,
    written: dict[str, Any],
) -> dict[str, Any]:
    """Everything that the rows of a run depend on, for `FILE.run.json`.

    Args:
        data: Where the texts are from: the arguments of `read_table`, `eval_data` and
            `unlabeled_file`.
        table: The labelled texts.
        mixup: What generates the rows.
        num_samples: Rows of the run; the composition of the last chunk depends on it.
        written: As for `record_of`.
    """
    return {
        **data,
        "data_sha256": table_digest(table),
        "texts_sha256": digest(table.texts),
        "eval_texts_sha256": digest(mixup.eval_texts),
        "num_samples": num_samples,
        "unlabeled_sha256": digest(mixup.unlabeled_texts),
        "label_names": mixup.label_names,
        "label_descriptions": dict(zip(mixup.label_names, mixup.label_descriptions, strict=True)),
        "aligner_fingerprint": mixup.inverter.fingerprint,
        "settings": _settings(mixup.config, mixup.label_names)
        | {"label_source": mixup.chosen.label_source},
        "written": written,
    }


def _settings(config: MixupConfig, names: list[str]) -> dict[str, Any]:
    """All settings, defaults too: a later version may have others."""
    settings = asdict(config)
    mixing = getattr(config, "mixing", None)
    if mixing is not None:  # what the method stands for today
        settings |= asdict(mixing() if callable(mixing) else mixing)
    strategy = settings.get("sampling_strategy")
    if isinstance(strategy, dict):  # JSON has no integer keys
        named = {names[key] if isinstance(key, int) else key: strategy[key] for key in strategy}
        settings["sampling_strategy"] = named
    return settings


def table_digest(table: LabelledTexts) -> str:
    """SHA-256 of texts and labels, in their order."""
    return digest([table.texts, [str(label) for label in table.labels]])


def read_line(place: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The row at `FILE:LINE` (lines, or rows of a csv or parquet file, from 1) and its settings.

    Raises:
        InvalidInput: `place` has another form, there is no such line, or nothing is recorded about
            how its row was generated.
        MissingFile: There is no such file.
    """
    name, _, number = place.rpartition(":")
    if not name or not number.isdigit() or int(number) < 1:
        raise errors.bad("--from-row", "be FILE:LINE, lines counted from 1", place)
    if not Path(name).is_file():
        raise errors.MissingFile(f"--from-row: there is no file {name!r}.")
    rows = [record for _, record in read_records(name)]
    if int(number) > len(rows):
        raise errors.bad("--from-row", f"name one of {len(rows)} lines", place)
    record, run = rows[int(number) - 1], read_run(name)
    missing = [key for key in _NEEDED if key not in run]
    missing += [key for key in _NEEDED_OF_A_ROW if key not in record]
    if missing:
        raise errors.InvalidInput(
            f"--from-row: {place} has no record of how it was generated ({', '.join(missing)} "
            f"missing). Only rows that `mixup-hf augment` wrote with provenance, next to their "
            "settings file FILE.run.json, can be generated again."
        )
    return record, run


def regenerate(
    record: dict[str, Any], run: dict[str, Any], data: str | Path | None = None
) -> dict[str, Any]:
    """Generate a row of `mixup-hf augment` again: its whole chunk is decoded as it was then.

    Args:
        record: The row.
        run: Its settings.
        data: The labelled texts, if they are elsewhere now.

    Raises:
        InvalidInput: The labelled texts, or the aligner, are not those of the row.
    """
    if record.get("method") == UNLABELED:
        raise errors.InvalidInput(
            "The row is one of the unlabelled texts, as it was given: there is nothing to generate."
        )
    source = str(data or run["data"])
    table = read_table(
        source, *run["columns"], name=run.get("name"), split=run.get("split", "train")
    )
    if table_digest(table) != run["data_sha256"]:
        raise errors.InvalidInput(
            f"{source} is not what it was when the row was generated: its texts, its labels or "
            "their order have changed. Give the file as it was with --data."
        )
    config, dtype = _config_of(record, run)
    mixup = InversedMixup.from_pretrained(
        texts=table.texts,
        labels=table.labels,
        num_labels=len(run["label_names"]) if table.names else None,
        label_names=run["label_names"] if table.names else None,
        label_descriptions=run.get("label_descriptions"),
        **read_known(run),
        dtype=dtype,
        config=config,
    )
    if run.get("unlabeled_sha256", digest([])) != digest(mixup.unlabeled_texts):
        raise errors.InvalidInput(
            f"The unlabelled texts ({run.get('unlabeled_file')}) are not what they were when the "
            "row was generated. Give them as they were, in the same file."
        )
    if mixup.inverter.fingerprint != record["aligner_fingerprint"]:
        raise errors.InvalidInput(
            f"The aligner {mixup.config.aligner!r} has the fingerprint "
            f"{mixup.inverter.fingerprint}, but the row is from {record['aligner_fingerprint']}. "
            "Pin its revision, or give the folder of the old one. (After a +: an aligner that was "
            "trained on over the texts, which is in the cache of the machine that made the row.)"
        )
    chunk = mixup.producer.plan.chunk_of(record["index"])
    made = mixup.producer.chunk(record["epoch"], chunk, run["num_samples"])
    (again,) = (each for each in made if each.index == record["index"])
    return record_of(again, mixup, run["written"])


def _config_of(record: dict[str, Any], run: dict[str, Any]) -> tuple[MixupConfig, torch.dtype]:
    """The settings by which a row is generated again, and the LLM's data type of then."""
    # What runs of before that say nothing of these settings did.
    settings: dict[str, Any] = {"label_source": "parents", "form": "free", "length": "free"}
    settings["own_texts"] = "off"
    settings |= {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in run["settings"].items()
    }
    # The engine of then, whatever this machine would choose; cached sentences are not used.
    engine, _, dtype = record["engine"].partition(":")
    if engine == "vllm":
        raise errors.InvalidInput(
            f"The row was decoded by a server ({record['engine']!r}), whose arithmetic differs "
            "from this process's: it cannot be generated again here."
        )
    settings |= {"engine": engine, "reuse": False}
    if "on_unreadable" in settings:
        settings["on_unreadable"] = "off"
    return MixupConfig(**settings), getattr(torch, dtype)


def read_known(run: dict[str, Any]) -> dict[str, Any]:
    """Texts of a run beside the labelled ones, as arguments of `InversedMixup`.

    Args:
        run: With `columns`, `eval_data` and `unlabeled_file`; for a run of before, also with
            `eval_texts_sha256`.

    Raises:
        InvalidInput: The evaluation texts are not those of the run.
    """
    text, _, text_pair = columns = run["columns"]
    known: dict[str, Any] = {"eval_texts": [], "unlabeled_texts": []}
    if run.get("eval_data") is not None:
        texts = known["eval_texts"] = read_table(run["eval_data"], *columns).texts
        # A new run, and files of earlier versions, have no digest of these texts.
        if digest(texts) != run.get("eval_texts_sha256", digest(texts)):
            raise errors.InvalidInput(
                f"{run['eval_data']} is not what it was when the row was generated: its texts or "
                "their order have changed, and rows that nearly equal one of them were left out."
            )
    if run.get("unlabeled_file") is not None:
        known["unlabeled_texts"] = read_texts(run["unlabeled_file"], text, text_pair)
    return known

"""Generated rows as a data set on the Hub, with a data card."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mixup_hf import errors
from mixup_hf.data.row_formats import COLUMNS, read_records, read_run
from mixup_hf.data.row_writer import RowWriter
from mixup_hf.generation.data_card import SAY_WHAT_IS_REAL, data_card
from mixup_hf.generation.unlabeled import UNLABELED
from mixup_hf.inverter.hub import uploading

DATA_FILE = "data/train-00000-of-00001.parquet"
_LICENCE = re.compile(r"[a-z0-9][a-z0-9.+-]*")
_CHUNK = 1000


@dataclass(frozen=True)
class Pushed:
    """What was uploaded.

    Attributes:
        url: Address of the commit.
        rows: Rows uploaded.
        left_out: Rows that are the text of a training row or an unlabelled text, and were kept.
    """

    url: str
    rows: int
    left_out: int


def push_rows(
    rows_file: str | Path,
    repo_id: str,
    *,
    license: str,
    source: str = "",
    audit: str | Path | None = None,
    parents: bool = False,
    private: bool = False,
    token: str | None = None,
) -> Pushed:
    """Upload generated rows as a data set: one parquet file and a data card.

    The settings beside the file, which name paths of this machine, are read for the card and not
    uploaded. Columns that `data.row_formats` does not document are left out.

    Args:
        rows_file: What `mixup-hf augment` or a run with mixup has written: jsonl, csv or parquet.
        repo_id: `user/name`; made if it does not exist.
        license: Licence of the texts the rows were generated from, as the Hub spells it:
            `cc-by-4.0`, `mit`, `other`.
        source: Name or address of those texts, for the card.
        audit: The figures that `mixup-hf audit --output` wrote about these rows, for the card.
        parents: Include real texts: the column `parent_texts`, if the file has it; rows that repeat
            a training text since no sentence for them was good enough; unlabelled texts.
        private: Whether a new repository is private.
        token: Hub token; default: the one you are logged in with.

    Raises:
        MissingFile: There is no such file.
        InvalidInput: A row, the licence, the repository's name or the audit cannot be used.
    """
    from huggingface_hub import HfApi

    _check(repo_id, license)
    verdict = None if audit is None else _verdict(Path(audit))
    records, left_out = _records(rows_file, parents=parents)
    run = read_run(rows_file)
    card = data_card(records, run, name=repo_id, licence=license, verdict=verdict, source=source)
    api = HfApi(token=token)
    with TemporaryDirectory() as scratch:
        file = Path(scratch) / DATA_FILE
        file.parent.mkdir()
        with RowWriter(file) as writer:
            for start in range(0, len(records), _CHUNK):
                writer.write(records[start : start + _CHUNK])
        card.save(Path(scratch) / "README.md")
        with uploading(repo_id):
            api.create_repo(repo_id, repo_type="dataset", private=private, exist_ok=True)
            commit = api.upload_folder(
                repo_id=repo_id,
                repo_type="dataset",
                folder_path=scratch,
                commit_message="Upload generated rows",
            )
    return Pushed(str(commit.commit_url), len(records), left_out)


def _check(repo_id: str, license: str) -> None:
    if repo_id.count("/") != 1 or not all(repo_id.split("/")):
        raise errors.bad("repo_id", "be USER/NAME", repo_id)
    if not _LICENCE.fullmatch(license):
        raise errors.bad(
            "license",
            "be a licence as the Hub spells it",
            license,
            "For example cc-by-4.0, apache-2.0, mit, unknown or other.",
        )


def _verdict(file: Path) -> str:
    if not file.is_file():
        raise errors.MissingFile(
            f"`audit`: there is no file {str(file)!r}. `mixup-hf audit --output` writes one."
        )
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        return f"Audited ({int(found['rows'])} rows). {found['verdict']}"
    except (KeyError, TypeError, ValueError) as error:
        raise errors.bad(
            "audit", "be figures of `mixup-hf audit --output`", str(file), f"It has no {error}."
        ) from error


def _records(rows_file: str | Path, *, parents: bool) -> tuple[list[dict[str, Any]], int]:
    """The rows to upload, all with the same columns, and how many were left out."""
    found = list(_checked(rows_file))
    if not found:
        raise errors.InvalidInput(
            f"`rows_file`: {rows_file} has no rows. Generate them with `mixup-hf augment`."
        )
    says = all({*SAY_WHAT_IS_REAL} <= {*record} for record in found)
    if not parents and not says:
        raise errors.InvalidInput(
            f"`rows_file`: rows of {rows_file} do not say which of them repeat real texts "
            f"({', '.join(SAY_WHAT_IS_REAL)}): they were written without provenance. Generate them "
            "with it, or set `parents` (--parents) to upload all of them."
        )
    kept = found if parents else [record for record in found if not _is_real(record)]
    if not kept:
        raise errors.InvalidInput(
            f"`rows_file`: all rows of {rows_file} repeat training texts or are unlabelled texts. "
            "Set `parents` (--parents) to upload them all the same."
        )
    held = {column for record in kept for column in record}
    if not parents:
        held.discard("parent_texts")
    elif "parent_texts" not in held and says:
        raise errors.InvalidInput(
            f"`parents`: {rows_file} has no column `parent_texts`. Generate the rows with "
            "`mixup-hf augment --parents`."
        )
    columns = [column for column in COLUMNS if column in held]
    return [{column: record.get(column) for column in columns} for record in kept], (
        len(found) - len(kept)
    )


def _checked(rows_file: str | Path) -> Iterator[dict[str, Any]]:
    for place, record in read_records(rows_file):
        if not isinstance(record.get("text"), str) or "label" not in record:
            raise errors.InvalidInput(f"{place} is not a generated row: it needs `text`, `label`.")
        yield record | {"label": _label(record)}


def _label(record: Mapping[str, Any]) -> Any:
    """The label as it was before csv made text of it."""
    label, shares = record["label"], record.get("soft_label")
    if not isinstance(label, str) or not shares or label in shares:
        return label
    try:
        return json.loads(label)
    except ValueError:
        return label


def _is_real(record: Mapping[str, Any]) -> bool:
    """Whether a row repeats a training text, or is an unlabelled one."""
    said = record.get("mitigation") == "parent" or record.get("method") == UNLABELED
    return said or record["text"] in (record.get("parent_texts") or ())

"""Generated rows as users read them: rendered for a file, read again for a training set.

`row_formats` documents the columns.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mixup_hf import errors, runtime
from mixup_hf.data.row_checks import Rules, check_row
from mixup_hf.data.row_formats import BY_NAME, CONTENT, FIELDS, read_records, read_run
from mixup_hf.data.targets import MULTI_LABEL, REGRESSION, SINGLE_LABEL
from mixup_hf.data.text_pairs import join_sides, split_sides
from mixup_hf.types import MixedExample

if TYPE_CHECKING:
    from datasets import Dataset

# What a row with text and label alone is taken to be.
_DEFAULTS: dict[str, Any] = {
    "lam": 1.0,
    "parents": (),
    "shares": (),
    "seed": 0,
    "epoch": 0,
    "aligner_fingerprint": "",
    "events": (),
    "judges": {},
    "votes": {},
}


def mixed_json(
    row: MixedExample,
    texts: Sequence[str] | None,
    names: Sequence[str],
    *,
    problem_type: str = SINGLE_LABEL,
    indices: bool = False,
) -> dict[str, Any]:
    """A generated row as users read it.

    Args:
        row: The row.
        texts: The training texts (N), to include the parents' texts; None leaves them out.
        names: The classes (C).
        problem_type: As transformers names it.
        indices: Write the class index as `label`, not its name.
    """
    shares = {name: round(share, 6) for name, share in zip(names, row.label, strict=True)}
    sides = split_sides(row.text)
    pair = {"text_pair": sides[1]} if len(sides) == 2 else {}
    content = {"text": sides[0], **pair, "label": _hard(row, names, problem_type, indices)}
    shown = content | {"soft_label": shares}
    shown |= {name: value for name, value in row.to_json().items() if name not in CONTENT}
    if texts is not None:
        parents = [texts[parent] for parent in row.parents]
        shown["parent_texts"] = [list(split_sides(each)) for each in parents] if pair else parents
    shown |= {
        column: {name: list(shares) for name, shares in getattr(row, column).items()}
        for column in BY_NAME
    }
    return {name: list(each) if isinstance(each, tuple) else each for name, each in shown.items()}


def _hard(row: MixedExample, names: Sequence[str], problem_type: str, indices: bool) -> Any:
    if problem_type == REGRESSION:
        return round(row.label[0], 6)
    if problem_type == MULTI_LABEL:
        held = [at for at, share in enumerate(row.label) if share >= 0.5]
        return held if indices else [names[at] for at in held]
    return row.hard_label if indices else names[row.hard_label]


def digest(content: Sequence[Any]) -> str:
    """SHA-256 of texts (or of texts and labels), in their order."""
    return hashlib.sha256(json.dumps(list(content)).encode()).hexdigest()


def read_mixed(
    source: str | Path | Dataset,
    texts: Sequence[str],
    names: Sequence[str],
    problem_type: str | None = None,
) -> list[MixedExample]:
    """Read generated rows for training texts.

    A row needs `text` and either `soft_label` or `label`.

    Args:
        source: What `mixup-hf augment`, `augment_dataset` or a run with mixup has written.
        texts: The training texts (N), as `join_sides` returns them.
        names: The classes (C), in the order of the model's outputs.
        problem_type: As transformers names it, where it is known: shares of one label per row sum
            to 1.

    Raises:
        MissingFile: There is no such file.
        InvalidInput: A row is damaged, has other classes, or was generated from other texts: rows
            of an evaluation set could be among its parents.
    """
    rows: list[MixedExample] = []
    checked = _check_run(source, texts)
    for place, content in read_records(source):
        row = _parse(place, content, names, len(rows), problem_type)
        checked = _check_parents(place, row, _parent_texts(place, content), texts) or checked
        rows.append(row)
    if not rows:
        raise errors.InvalidInput(
            f"`rows_file`: {source} has no rows. Generate them with `mixup-hf augment`."
        )
    if not checked:
        runtime.warn(
            "The generated rows do not record which texts they were generated from. Make sure that "
            "these are the training texts: parents from an evaluation set would leak into training."
        )
    return rows


def read_shown(path: str | Path) -> list[tuple[MixedExample, list[str], list[str]]]:
    """Each row of a file with its parents' texts and the class names, for display.

    Raises:
        InvalidInput: A row is damaged.
    """
    shown: list[tuple[MixedExample, list[str], list[str]]] = []
    for place, content in read_records(path):
        if not isinstance(content.get("soft_label"), dict):
            raise errors.InvalidInput(f"{place} has no `soft_label`.")
        names = sorted(content["soft_label"])
        row = _parse(place, content, names, len(shown))
        shown.append((row, _parent_texts(place, content) or [], names))
    return shown


def _parse(
    place: str,
    content: dict[str, Any],
    names: Sequence[str],
    index: int,
    problem_type: str | None = None,
) -> MixedExample:
    try:
        sides = [content["text"], *([content["text_pair"]] if "text_pair" in content else [])]
        text = join_sides("text", sides[:1] if len(sides) == 1 else [sides])[0]
        kept = {name: value for name, value in content.items() if name in FIELDS}
        kept = {"index": index} | _DEFAULTS | kept
        row = MixedExample.from_json(kept | {"text": text, "label": _soft(content, names)})
        check_row(row, Rules(len(names), problem_type))
        return row
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise errors.InvalidInput(f"{place} is not a generated row ({_reason(error)}).") from error


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, errors.MixupError) else f"{error!r:.300}"


def _soft(content: dict[str, Any], names: Sequence[str]) -> list[float]:
    if "soft_label" in content:
        shares = content["soft_label"]
        if sorted(shares) != sorted(names):
            raise errors.InvalidInput(
                f"its classes are {sorted(shares)}, those of the model {sorted(names)}"
            )
        return [float(shares[name]) for name in names]
    label = content["label"]
    if len(names) == 1:
        return [float(label)]
    if isinstance(label, str) and label.startswith("[") and label not in names:
        label = json.loads(label)
    given = label if isinstance(label, list) else [label]
    if _is_multi_hot(label, len(names)):
        given = [at for at, value in enumerate(label) if value]
    held = [_class_name(each, names) for each in given]
    if set(held) - set(names):
        raise errors.InvalidInput(f"its label is {label!r}, the model's classes are {list(names)}")
    return [float(name in held) for name in names]


def _is_multi_hot(label: Any, count: int) -> bool:
    """Whether a label is one 0 or 1 for each of `count` classes."""
    if not isinstance(label, list) or len(label) != count or set(map(str, label)) - {"0", "1"}:
        return False
    if label == [0, 1]:
        raise errors.InvalidInput(
            "its label [0, 1] may be two classes, or the second of two; write `soft_label` too"
        )
    return True


def _class_name(label: Any, names: Sequence[str]) -> str:
    """The class of a label: whole numbers are class indices, also where classes have such names."""
    name = str(label)
    is_index = isinstance(label, int) and not isinstance(label, bool)
    if is_index or (name not in names and name.isdigit()):
        return names[int(name)] if 0 <= int(name) < len(names) else name
    return name


def _check_run(source: str | Path | Dataset, texts: Sequence[str]) -> bool:
    run = read_run(source) if isinstance(source, (str, Path)) else {}
    if "texts_sha256" not in run:
        return False
    if run["texts_sha256"] != digest(texts):
        raise errors.InvalidInput(
            f"{source} was generated from other texts than these {len(texts)}, or their order has "
            "changed. Give the training texts it was generated from, in the same order; or "
            "generate the rows again with `mixup-hf augment`."
        )
    return True


def _parent_texts(place: str, content: dict[str, Any]) -> list[str] | None:
    """The texts of a row's parents, where the file has them."""
    given = content.get("parent_texts")
    if given is not None and not isinstance(given, list):
        rule = "`parent_texts` must be a list of texts"
        raise errors.InvalidInput(
            f"{place} is not a generated row ({rule}, but got {given!r:.99})."
        )
    return None if given is None else join_sides("parent_texts", given)


def _check_parents(
    place: str, row: MixedExample, shown: list[str] | None, texts: Sequence[str]
) -> bool:
    here = [texts[at] if 0 <= at < len(texts) else None for at in row.parents]
    if shown is None and None not in here:
        return False
    if shown != here:
        raise errors.InvalidInput(
            f"{place} was generated from other texts: its parents {list(row.parents)} are "
            f"{'unknown' if shown is None else shown}, but here those rows are {here}. Give the "
            "training texts it was generated from, in the same order; or generate the rows again "
            "with `mixup-hf augment`."
        )
    return True

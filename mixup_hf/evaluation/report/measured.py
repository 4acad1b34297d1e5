"""Report tables built from files that other commands wrote to a run's folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from mixup_hf import errors
from mixup_hf.evaluation.report.pages import TableOf, read_json
from mixup_hf.intervals import Interval, rounded, wilson


def measured_elsewhere(folder: Path) -> list[TableOf]:
    """Return tables for whichever of `quality.json`, `structure.json` and `audit.json` exist.

    Raises:
        ValueError: One of the files is damaged.
    """
    tables = []
    for name, make in _MAKERS.items():
        file = folder / f"{name}.json"
        if file.is_file():
            content = read_json(file)
            try:
                tables.append(make(content))
            except (KeyError, TypeError, AttributeError, ValueError) as error:
                raise errors.InvalidInput(
                    f"{file} is damaged, or of another version ({error!r}). Make it again."
                ) from error
    return tables


def _quality(content: Any) -> TableOf:
    rows = [
        (each["name"], _figure(each["generated"]), _figure(each["real"]), each["note"])
        for each in content["figures"]
    ]
    note = "By mixup-hf evaluate --quality; 95 % bootstrap intervals."
    return TableOf("As texts", ("", "generated", "real", ""), rows, note)


def _structure(content: Any) -> TableOf:
    rows = []
    for report in content["reports"]:
        for kind, classes in (("mixes", report["before"]), ("sentences", report["after"])):
            for name, each in classes.items():
                kept = [f"{each[key]:.2f}" for key in ("variance_ratio", "frobenius", "energy")]
                rows.append((report["weights"], name, kind, *kept, f"{each['p_value']:.3f}"))
    head = ("weights", "class", "", "variance kept", "Frobenius error", "energy distance", "p")
    note = (
        "By mixup-hf evaluate --structure: spread of generated rows against that of real ones, "
        "class by class, before and after decoding. 1 keeps the variance; a small p says that rows "
        "are spread otherwise."
    )
    return TableOf("Structure", head, rows, note)


def _audit(content: Any) -> TableOf:
    rows = [
        ("nearer to a training text than to others", _rate(content["nearer"]), "50 %"),
        ("nearly a training text", _rate(content["copies"]), _rate(content["chance_copies"])),
        ("membership inference: AUC", _figure(content["auc"]), "0.5"),
    ]
    if content["true_positives"] is not None:
        found = _figure(content["true_positives"])
        rows.append(("membership inference: found at 1 % false alarms", found, "0.01"))
    if content["canaries"] is not None:
        rows.append(("planted secrets, word for word", _rate(content["canaries"]), "0"))
    for name, rate in content["nearer_by_lam"].items():
        rows.append((f"nearer, larger share {name}", _rate(rate), "50 %"))
    for name, rate in content["copies_by_lam"].items():
        rows.append((f"copies, larger share {name}", _rate(rate), ""))
    return TableOf("What it gives away", ("", "found", "by chance"), rows, content["verdict"])


def _figure(value: Any) -> str:
    if isinstance(value, dict):
        return str(Interval(**value))
    return "" if value is None else rounded(value)


def _rate(value: Any) -> str:
    return str(wilson(value["count"], value["of"]))


_MAKERS: dict[str, Callable[[Any], TableOf]] = {
    "quality": _quality,
    "structure": _structure,
    "audit": _audit,
}

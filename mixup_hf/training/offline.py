"""Training on mixed rows that were made before: no LLM is loaded, nothing is decoded."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mixup_hf import runtime
from mixup_hf.config import MixupConfig
from mixup_hf.data.rows import RecordedRows, read_mixed
from mixup_hf.judging.leaks import LeakError, LeakGuard
from mixup_hf.training.plugin import TrainerPlugin, check_rows
from mixup_hf.types import MixedExample


class OfflineMixup(TrainerPlugin):
    """Mixed rows of a file, for the training set that they were made from.

    The file is one of `mixup-hf augment`, or the `mixed.jsonl` of a run that mixed. It may have
    been made on another machine: that of the training needs no LLM.

    Example:
        mixup = OfflineMixup("augmented.jsonl", texts, labels, num_labels=5)
        trainer = Trainer(model, args, train_dataset=tokenized, processing_class=tokenizer,
                          **mixup.trainer_kwargs(tokenizer))

    Args:
        rows_file: The rows, as JSON lines.
        texts: The training texts (N) that they were made from, in that order.
        labels: As for `InversedMixup`.
        num_labels: As for `InversedMixup`.
        label_names: As for `InversedMixup`.
        problem_type: As for `InversedMixup`.
        eval_texts: As for `InversedMixup`. Rows that are nearly one of them are left out.
        config: How the rows are used; how they were made is not asked.

    Raises:
        FileNotFoundError: There is no such file.
        LeakError: With `leaks="fail"`, a training text or a row is nearly an evaluation text.
        ValueError: The rows were made from other texts or for other classes, or a line is damaged.
    """

    def __init__(
        self,
        rows_file: str | Path,
        texts: Sequence[str],
        labels: Sequence[Any],
        *,
        num_labels: int | None = None,
        label_names: Sequence[str] | None = None,
        problem_type: str | None = None,
        eval_texts: Sequence[str] = (),
        config: MixupConfig | None = None,
    ) -> None:
        texts, targets = check_rows(texts, labels, num_labels, label_names, problem_type)
        config = replace(config or MixupConfig(), rows_file=str(rows_file))
        super().__init__(config, texts, targets, eval_texts)
        rows = read_mixed(rows_file, texts, self.label_names)
        self._digest = hashlib.sha256(Path(rows_file).read_bytes()).hexdigest()
        if config.leaks != "off" and self.eval_texts:
            rows = _without_leaks(rows, self.eval_texts, fail=config.leaks == "fail")
        self.producer = RecordedRows(texts, rows)

    def _settings(self) -> dict[str, Any]:
        return super()._settings() | {"rows_file": self._digest}


def _without_leaks(
    rows: list[MixedExample], eval_texts: Sequence[str], *, fail: bool
) -> list[MixedExample]:
    guard = LeakGuard(eval_texts)
    kept = [row for row in rows if guard.near(row.text) is None]
    if len(kept) == len(rows):
        return rows
    message = f"{len(rows) - len(kept)} of {len(rows)} mixed rows are nearly evaluation texts"
    if fail:
        raise LeakError(f"{message}. Set `leaks: drop` to leave them out.")
    if not kept:
        raise LeakError(f"{message}: none is left. Make rows with `mixup-hf augment`.")
    runtime.warn(f"{message}, and left out.")
    return kept

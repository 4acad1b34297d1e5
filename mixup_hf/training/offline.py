"""Training on rows generated earlier: no LLM is loaded, nothing is decoded."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mixup_hf import runtime
from mixup_hf.config import MixupConfig
from mixup_hf.data.row_files import read_mixed
from mixup_hf.data.row_formats import require_rows
from mixup_hf.data.targets import Targets
from mixup_hf.generation.publishing import push_rows
from mixup_hf.generation.replay import RecordedRows
from mixup_hf.judging.leaks import LeakError, LeakGuard
from mixup_hf.training.auto import Chosen, choose
from mixup_hf.training.mixed_set import read_config
from mixup_hf.training.plugin import TrainerPlugin
from mixup_hf.training.training_rows import check_rows
from mixup_hf.types import MixedExample


class OfflineMixup(TrainerPlugin):
    """Generated rows from a file, for the training set they were generated from.

    Rows that a committee has labelled are used as those made in a run: in the first half of it.

    The file comes from `mixup-hf augment`, or is the `mixed.jsonl` of a run with mixup. It may come
    from another machine: the one that trains needs no LLM.

    Example:
        trainer = Trainer(model, args, train_dataset=train, processing_class=tokenizer)
        OfflineMixup("augmented.jsonl").attach(trainer, text_column="text")

    Args:
        rows_file: The rows: jsonl, csv or parquet, with the columns of `data.row_formats`.
        texts: The training texts (N) that they were made from, in the same order. Default:
            `attach` reads them off the Trainer.
        labels: As for `InversedMixup`.
        num_labels: As for `InversedMixup`.
        label_names: As for `InversedMixup`.
        problem_type: As for `InversedMixup`.
        eval_texts: As for `InversedMixup`. Rows that nearly equal one of them are left out.
        config: How the rows are used; settings of how rows are made do not matter.
        **settings: Fields of `MixupConfig`, instead of `config`.

    Raises:
        MissingFile: There is no such file.
        LeakError: With `leaks="fail"`, a training text or a row nearly equals an evaluation text.
        InvalidInput: The rows were made from other texts or for other classes, or a line is
            damaged.
    """

    producer: RecordedRows

    def __init__(
        self,
        rows_file: str | Path,
        texts: Sequence[Any] | None = None,
        labels: Sequence[Any] | None = None,
        *,
        num_labels: int | None = None,
        label_names: Sequence[str] | None = None,
        problem_type: str | None = None,
        eval_texts: Sequence[Any] = (),
        config: MixupConfig | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(replace(read_config(config, settings), rows_file=str(rows_file)))
        self._file = Path(rows_file)
        require_rows(self._file)
        if texts is not None or labels is not None:
            checked = check_rows(texts, labels, num_labels, label_names, problem_type)
            self._bind(*checked, eval_texts)

    def push_to_hub(self, repo_id: str, *, license: str, **options: Any) -> str:
        """Upload the rows as a data set with a data card; training texts are left out.

        Args:
            repo_id: `user/name`; made if it does not exist.
            license: Licence of the texts the rows were generated from, such as `cc-by-4.0`.
            **options: `source`, `audit`, `parents`, `private`, `token`: see
                `generation.publishing.push_rows`.

        Returns:
            The address of the commit.

        Raises:
            InvalidInput: A row, the licence, the repository's name or the audit cannot be used.
        """
        return push_rows(self._file, repo_id, license=license, **options).url

    def _bind(self, texts: list[str], targets: Targets, eval_texts: Sequence[Any]) -> None:
        names = list(targets.names)
        self.producer = RecordedRows(
            texts, read_mixed(self._file, texts, names, targets.problem_type)
        )
        self._digest = hashlib.sha256(self._file.read_bytes()).hexdigest()
        super()._bind(texts, targets, eval_texts)

    def _choose(self, targets: Targets) -> Chosen:
        """As for rows made in the run, if a committee has labelled those of the file."""
        rows = self.producer.rows
        return choose(self.config, targets, recorded=len(rows) if rows[0].votes else 0)

    def _guard(self, eval_texts: Sequence[Any]) -> None:
        super()._guard(eval_texts)
        if self.config.leaks != "off" and self.eval_texts:
            fail = self.config.leaks == "fail"
            kept = _without_leaks(self.producer.rows, self.eval_texts, fail=fail)
            self.producer = RecordedRows(self.texts, kept)

    def _settings(self) -> dict[str, Any]:
        return super()._settings() | {"rows_file": self._digest}


def _without_leaks(
    rows: list[MixedExample], eval_texts: Sequence[str], *, fail: bool
) -> list[MixedExample]:
    guard = LeakGuard(eval_texts)
    kept = [row for row in rows if guard.near(row.text) is None]
    if len(kept) == len(rows):
        return rows
    message = f"{len(rows) - len(kept)} of {len(rows)} mixed rows nearly equal evaluation texts"
    if fail:
        raise LeakError(f"{message}. Set `leaks: drop` to leave them out.")
    if not kept:
        raise LeakError(f"{message}: none is left. Make rows with `mixup-hf augment`.")
    runtime.warn(f"{message}, and left out.")
    return kept

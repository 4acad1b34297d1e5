"""Tables of generated rows in trackers: TensorBoard, W&B, Trackio and MLflow, where a run has them.

The trackers are those that the Trainer has built for `report_to`, found by the names of their
callbacks. None is imported or started here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from mixup_hf import errors, runtime
from mixup_hf.data.targets import REGRESSION
from mixup_hf.data.text_pairs import split_sides
from mixup_hf.training.pool import MixupPool
from mixup_hf.types import MixedExample

KEY = "mixup_hf/samples"
_WORTH_NAMING = 0.05  # a class's share in a label
Table = list[dict[str, Any]]


class SampleTables:
    """Shows some rows of each refill, once they are made.

    A table holds rows made since the last one. Within a refill the next one comes when twice as
    many have been made, so that long runs do not log thousands.

    Args:
        texts: The training texts (N), for the parents' columns.
        names: The classes (C).
        problem_type: As transformers names it.
        most: Rows of a table; 0 for no tables.
    """

    def __init__(
        self, texts: Sequence[str], names: Sequence[str], problem_type: str, most: int
    ) -> None:
        errors.at_least("log_samples", most, 0)
        self.texts, self.names, self.problem_type, self.most = texts, names, problem_type, most
        self._pool: MixupPool | None = None
        self._refill, self._shown = -1, 0
        self._failed = False

    def show(self, pool: MixupPool | None, callbacks: Iterable[Any], state: Any) -> None:
        """Put a table into the Trainer's history and its trackers, if there are new rows."""
        if not self.most or pool is None or not state.is_world_process_zero:
            return
        table = self._next(pool)
        if not table:
            return
        state.log_history[-1][KEY] = table
        if not self._failed:
            try:
                send_table(callbacks, table, state.global_step)
            except Exception as error:  # whatever a tracker raises: the run is worth more
                self._failed = True
                runtime.warn(
                    f"Generated rows could not be shown in a tracker ({error!r}); they are in the "
                    f"history of the Trainer. Set attach(..., log_samples=0) to leave them out."
                )

    def _next(self, pool: MixupPool) -> Table:
        now = pool.state
        if (pool, now.refill) != (self._pool, self._refill):  # another run has another pool
            self._pool, self._refill, self._shown = pool, now.refill, 0
        if now.refill < 0 or now.published < max(1, 2 * self._shown):
            return []
        rows = pool.rows()[self._shown : min(self._shown + self.most, now.published)]
        self._shown = now.published
        return [self._cells(row) for row in rows]

    def _cells(self, row: MixedExample) -> dict[str, Any]:
        opinions: Mapping[str, Sequence[float]] = row.votes or row.judges
        return {
            "text": _shown(row.text),
            "label": self._label(row.label),
            "parents": " + ".join(
                [repr(_shown(self.texts[at])) for at in row.parents]
                + ["an unlabelled text"] * len(row.unlabeled_parents)
            ),
            "lam": round(row.lam, 3),
            "votes": "; ".join(f"{name}: {self._label(each)}" for name, each in opinions.items()),
            "events": ", ".join(row.events),
            "action": "kept" if row.mitigation == "none" else row.mitigation,
            "attempts": row.attempts,
        }

    def _label(self, shares: Sequence[float]) -> str:
        if self.problem_type == REGRESSION:
            return ", ".join(f"{share:.3g}" for share in shares)
        named = sorted(zip(shares, self.names, strict=True), reverse=True)
        return ", ".join(f"{name} {share:.2f}" for share, name in named if share >= _WORTH_NAMING)


def send_table(callbacks: Iterable[Any], table: Table, step: int) -> None:
    """Send a table to every tracker among the callbacks of a Trainer.

    Args:
        callbacks: All callbacks of the Trainer.
        table: At least one row, all with the same columns.
        step: Optimizer steps done.
    """
    for callback in callbacks:
        for kind in type(callback).__mro__:  # trackers of today, and what derives from them
            if kind.__name__ in _SENDERS and kind.__module__.startswith("transformers."):
                _SENDERS[kind.__name__](callback, table, step)
                break


def _to_tensorboard(callback: Any, table: Table, step: int) -> None:
    if callback.tb_writer is not None:
        callback.tb_writer.add_text(KEY, _markdown(table), step)


def _to_wandb(callback: Any, table: Table, step: int) -> None:
    wandb = callback._wandb
    if wandb is None or wandb.run is None:
        return
    columns = list(table[0])
    shown = wandb.Table(columns=columns, data=[list(row.values()) for row in table])
    wandb.log({KEY: shown, "train/global_step": step})


def _to_trackio(callback: Any, table: Table, step: int) -> None:
    import pandas as pd

    trackio = callback._trackio
    trackio.log({KEY: trackio.Table(dataframe=pd.DataFrame(table)), "train/global_step": step})


def _to_mlflow(callback: Any, table: Table, step: int) -> None:
    mlflow = callback._ml_flow
    if mlflow is None or mlflow.active_run() is None:
        return
    columns: dict[str, list[Any]] = {"step": [step] * len(table)}
    columns |= {name: [row[name] for row in table] for name in table[0]}
    mlflow.log_table(data=columns, artifact_file=f"{KEY}.json")  # appends


_SENDERS: dict[str, Callable[[Any, Table, int], None]] = {
    "TensorBoardCallback": _to_tensorboard,
    "WandbCallback": _to_wandb,
    "TrackioCallback": _to_trackio,
    "MLflowCallback": _to_mlflow,
}


def _markdown(table: Table) -> str:
    lines = [list(table[0]), ["---"] * len(table[0])]
    lines += [[str(value) for value in row.values()] for row in table]
    escaped = [[cell.replace("|", "\\|").replace("\n", " ") for cell in line] for line in lines]
    return "\n".join("| " + " | ".join(line) + " |" for line in escaped)


def _shown(text: str) -> str:
    return " / ".join(split_sides(text))

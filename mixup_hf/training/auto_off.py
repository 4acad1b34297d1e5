"""Monitors whether training on mixed rows makes the model worse on the development set."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mixup_hf import runtime
from mixup_hf.training.loss import as_soft_labels, logits_of, row_losses

_ALPHA = 0.05


class DevelopmentWatch:
    """Records the loss of every evaluated row and compares evaluations.

    Each evaluation is paired row by row with the best one so far, and a one-sided t-test checks
    whether the loss has risen. The k-th comparison uses the level `0.05 * 6 / (pi k)^2 / j`, where
    j is the number of evaluations from which the best was selected (a correction for having picked
    the lowest loss). Over all evaluations, at most one run in twenty is stopped unnecessarily.

    Args:
        model: The model being trained, unwrapped.
        problem_type: Selects the loss, as in `row_losses`.
    """

    def __init__(self, model: nn.Module, problem_type: str) -> None:
        self.problem_type = problem_type
        self._rows: list[Tensor] = []
        self._best: dict[str, Tensor] = {}
        self._tests = 0
        self._seen: Counter[str] = Counter()
        self._handle = model.register_forward_hook(self._keep, with_kwargs=True)

    def remove(self) -> None:
        """Remove the forward hook from the model."""
        self._handle.remove()

    def state(self) -> dict[str, Any]:
        """Return the JSON-serializable state that a resumed run needs to continue comparing."""
        best = {name: losses.tolist() for name, losses in self._best.items()}
        return {"best": best, "tests": self._tests, "seen": dict(self._seen)}

    def load(self, state: Mapping[str, Any]) -> None:
        """Restore the state returned by `state`."""
        self._best = {name: torch.tensor(losses) for name, losses in state["best"].items()}
        self._tests, self._seen = state["tests"], Counter(state["seen"])

    def judge(self, metrics: Mapping[str, float]) -> str | None:
        """Check the evaluation that has just finished.

        Args:
            metrics: The Trainer's. Several sets are told apart by the names of their losses; each
                set is compared only with itself.

        Returns:
            The evidence that the model has become worse, or None if there is none.
        """
        name = min((key for key in metrics if key.endswith("_loss")), default="")
        losses = self._take()
        best, rivals = self._best.get(name), self._seen[name]
        self._seen[name] += 1
        if len(losses) < 2:
            return None
        self._tests += best is not None
        if best is None or len(best) != len(losses) or losses.mean() <= best.mean():
            self._best[name] = losses
            return None
        level = _ALPHA * 6 / (math.pi * self._tests) ** 2 / rivals
        p = _p_of_a_rise(losses, best)
        if p >= level:
            return None
        return (
            f"the loss on {len(losses)} development rows rose from {best.mean():.4f} to "
            f"{losses.mean():.4f} (one-sided paired t-test, p = {p:.1g}, below {level:.1g} for "
            f"comparison {self._tests})"
        )

    def _take(self) -> Tensor:
        """Collect the row losses of all processes, in the same order at every evaluation."""
        mine = {runtime.rank(): torch.cat(self._rows).tolist() if self._rows else []}
        self._rows = []
        every = runtime.merge(mine)
        return torch.tensor([loss for rank in sorted(every) for loss in every[rank]])

    def _keep(
        self, model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], outputs: Any
    ) -> None:
        labels = kwargs.get("labels")
        if model.training or labels is None:
            return
        logits = logits_of(outputs)
        if labels.is_floating_point():
            targets = labels.view(len(labels), -1)
        else:
            targets = as_soft_labels(labels, logits.shape[-1])
        self._rows.append(row_losses(logits.detach(), targets, self.problem_type).cpu())


def _p_of_a_rise(losses: Tensor, best: Tensor) -> float:
    from scipy.stats import ttest_rel

    if float((losses - best).std()) == 0:
        return 0.0  # every row changed by the same amount
    return float(ttest_rel(losses.numpy(), best.numpy(), alternative="greater").pvalue)

"""What mixed rows of any origin share: a checked training set, and the arguments of a Trainer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from transformers import PreTrainedTokenizerBase

from mixup_hf import errors, runtime
from mixup_hf.config import MixupConfig
from mixup_hf.data.targets import Targets, read_targets
from mixup_hf.data.text_pairs import join_sides
from mixup_hf.judging.leaks import LeakError, shared_texts
from mixup_hf.training.callback import MixupCallback
from mixup_hf.training.collator import Collator, MixupCollator
from mixup_hf.training.loss import soft_cross_entropy
from mixup_hf.types import Follows, Supplies

# Settings that say where or when sentences are made, and not which: a resumed run may change them.
_CHANGE_NO_ROW = (
    "reuse",
    "background",
    "on_failure",
    "server_timeout",
    "max_inflight",
    "server_fallback",
)


class TrainerPlugin:
    """Mixed rows for one training set, on their way into a Trainer.

    Args:
        config: How they are made and used.
        texts: The training texts (N).
        targets: Their labels.
        eval_texts: The texts the model is evaluated on.

    Attributes:
        label_names: The classes' names (C), in the order of the model's outputs.
        problem_type: As transformers names it.
        num_labels: C.
        seed: Seed of everything drawn.
    """

    producer: Supplies

    def __init__(
        self,
        config: MixupConfig,
        texts: Sequence[str],
        targets: Targets,
        eval_texts: Sequence[str],
    ) -> None:
        self.config = config
        self.label_names = list(targets.names)
        self.num_labels = len(self.label_names)
        self.problem_type = targets.problem_type
        self.seed = config.seed or 0
        self.eval_texts = join_sides("eval_texts", list(eval_texts))
        if config.leaks != "off":
            _check_parents(texts, self.eval_texts, fail=config.leaks == "fail")

    def trainer_kwargs(
        self,
        tokenizer: PreTrainedTokenizerBase,
        base_collator: Collator | None = None,
        *,
        explicit_loss: bool = False,
        max_length: int | None = None,
        **collator_settings: Any,
    ) -> dict[str, Any]:
        """What an unmodified `transformers.Trainer` needs: `data_collator` and `callbacks`.

        Args:
            tokenizer: The classifier's tokenizer.
            base_collator: The collator the script used so far; it is wrapped. Default: dynamic
                padding.
            explicit_loss: Also return `compute_loss_func`, instead of hooking into the model.
            max_length: Cut mixed rows to this many tokens.
            **collator_settings: Further arguments of `MixupCollator`.

        Returns:
            Keyword arguments for `Trainer(...)`.
        """
        collator = MixupCollator(
            tokenizer,
            num_labels=self.num_labels,
            problem_type=self.problem_type,
            base_collator=base_collator,
            label2id={name: index for index, name in enumerate(self.label_names)},
            mix_ratio=self.config.mix_ratio if self.config.enabled else 0.0,
            mixed_weight=self.config.mixed_weight,
            max_length=max_length,
            label_format="labels" if explicit_loss else "soft_labels",
            **collator_settings,
        )
        follower = self._follower(tokenizer)
        callback = MixupCallback(
            collator,
            self.producer,
            seed=self.seed,
            rows_per_refill=self.config.rows_per_refill,
            refill_every=self.config.refill_every,
            follower=follower,
            warmup_epochs=self.config.warmup_epochs if follower is not None else 0,
            background=self.config.background,
            auto_off=self.config.auto_off,
            on_failure=self.config.on_failure,
            settings=self._settings(),
        )
        kwargs: dict[str, Any] = {"data_collator": collator, "callbacks": [callback]}
        if explicit_loss:
            kwargs["compute_loss_func"] = soft_cross_entropy
        return kwargs

    def _settings(self) -> dict[str, Any]:
        """What the rows depend on; a resumed run must have the same."""
        return {k: v for k, v in asdict(self.config).items() if k not in _CHANGE_NO_ROW}

    def _follower(self, tokenizer: PreTrainedTokenizerBase) -> Follows | None:
        """What keeps the producer in step with the model; None where nothing has to."""
        return None


def check_rows(
    texts: Sequence[str],
    labels: Sequence[Any],
    num_labels: int | None,
    label_names: Sequence[str] | None,
    problem_type: str | None = None,
) -> tuple[list[str], Targets]:
    """Texts and targets of good rows; an error for others."""
    if isinstance(labels, str):
        raise errors.InvalidType(
            f"`labels` must be a list of labels, but got one string: {labels!r}."
        )
    texts = join_sides("texts", texts if isinstance(texts, str) else list(texts))
    errors.texts("texts", texts)
    labels = list(labels)
    if len(texts) != len(labels):
        raise errors.InvalidInput(
            f"`texts` and `labels` must be of one length, but got {len(texts)} and {len(labels)}."
        )
    return texts, read_targets(labels, num_labels, label_names, problem_type)


def _check_parents(texts: Sequence[str], eval_texts: Sequence[str], *, fail: bool) -> None:
    """Say, or with `fail` raise, when the model would be trained on what it is evaluated on."""
    shared = shared_texts(texts, eval_texts)
    if not shared:
        return
    message = (
        f"{len(shared)} of {len(texts)} training texts are evaluation texts too, the first "
        f"{texts[shared[0]]!r}: scores on them say nothing. Remove them from one of the sets."
    )
    if fail:
        raise LeakError(message)
    runtime.warn(message)

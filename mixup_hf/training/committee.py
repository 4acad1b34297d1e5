"""The committee that labels the rows of a plugin, from its training set and models."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import replace
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from mixup_hf import runtime
from mixup_hf.data.targets import Targets
from mixup_hf.data.text_pairs import split_sides
from mixup_hf.inverter.encoder import TunableEncoder
from mixup_hf.inverter.model import Inverter
from mixup_hf.judging.labels import Committee, LabelInputs, Member, fit_committee
from mixup_hf.judging.labels.kept import KeepsVotes, is_kept
from mixup_hf.judging.sampling import sample_of
from mixup_hf.training.training_rows import rows_digest
from mixup_hf.types import Encodes

# The last committee fitted with each inverter, with what it was fitted on: runs on the same rows
# follow each other in an experiment, and fitting takes as long as training.
_LATEST: WeakKeyDictionary[Inverter, tuple[tuple[object, ...], Committee]] = WeakKeyDictionary()


def build_committee(
    inverter: Inverter,
    encoder: Encodes,
    texts: Sequence[str],
    embeddings: Tensor,
    targets: Targets,
    *,
    members: Sequence[str],
    descriptions: Sequence[str],
    seed: int,
    calibration: Callable[[], Sequence[str]],
    extra: Mapping[str, Member] | None = None,
    balanced: bool = False,
    kept: Callable[[Mapping[str, Any]], KeepsVotes] | None = None,
) -> Committee:
    """Fit a committee, and print what it is like in one line.

    If the last one with this inverter was fitted on the same rows, it is calibrated anew.

    Args:
        inverter: Its sentence encoder and LLM are what members are made from.
        encoder: Embeds texts, or pairs of texts.
        texts: The training texts (N).
        embeddings: Their embeddings (N, D), by `encoder`.
        targets: Their labels.
        members: Names of registered members.
        descriptions: What each class means (C).
        seed: Seed of folds and of everything drawn.
        calibration: Gives texts that nobody has labelled: the committee may not be surer of them
            than it is right. Called once.
        extra: Members that have been fitted elsewhere, by name.
        balanced: All classes count the same, whatever their rows.
        kept: Opens the store of what members of earlier runs have said, given what they were fitted
            on. Default: nothing is kept.

    Raises:
        InvalidInput: A member cannot work with this training set.
    """
    rows = sample_of(targets.groups, seed, "The committee is fitted")
    if len(rows) < len(texts):
        at = torch.from_numpy(rows)
        texts, embeddings = [texts[row] for row in rows.tolist()], embeddings[at]
        targets = replace(targets, values=targets.values[at], groups=targets.groups[rows])
    inputs = _inputs(inverter, encoder, texts, embeddings, targets, descriptions, seed)
    inputs = replace(inputs, balanced=balanced)
    key = _identity(inputs), tuple(members)
    latest = _LATEST.get(inverter)
    if latest is None or latest[0] != key:
        store = None if kept is None else kept(key[0])
        if store is None or not all(is_kept(name, store) for name in members):
            runtime.announce(
                f"mixup_hf: fitting a committee ({', '.join(members)}) on {len(texts)} training "
                "rows, to label generated sentences"
            )
        latest = _LATEST[inverter] = key, fit_committee(inputs, members, store=store)
    committee = copy(latest[1])  # calibrating replaces its temperatures
    for name, member in (extra or {}).items():
        committee = committee.joined_by(name, member)
    calibration_texts = calibration()
    if calibration_texts:
        committee.calibrate(calibration_texts)
    runtime.announce(f"mixup_hf: {committee.describe()}")
    if committee.accuracies and committee.skill <= 0:
        runtime.warn(
            f"The committee is no better than chance on held-out rows of the {len(texts)} training "
            "texts: its labels say little about generated sentences. Give more rows, name other "
            "members in `committee`, or set `label_source: parents`."
        )
    return committee


def _inputs(
    inverter: Inverter,
    encoder: Encodes,
    texts: Sequence[str],
    embeddings: Tensor,
    targets: Targets,
    descriptions: Sequence[str],
    seed: int,
) -> LabelInputs:
    return LabelInputs(
        texts=texts,
        embeddings=embeddings,
        targets=targets,
        encoder=encoder,
        label_names=targets.names,
        descriptions=descriptions,
        llm=_ReadsSides(inverter),
        tunable_encoder=lambda: _TunesSides(TunableEncoder(inverter.encoder)),
        seed=seed,
    )


def _identity(inputs: LabelInputs) -> dict[str, Any]:
    """What a committee's members are fitted on, beside the models."""
    return {
        "rows": rows_digest(inputs.texts, inputs.targets.names, inputs.targets.values),
        "problem_type": inputs.targets.problem_type,
        "embeddings": hashlib.sha256(inputs.embeddings.numpy().tobytes()).hexdigest(),
        "descriptions": list(inputs.descriptions),
        "seed": inputs.seed,
        "balanced": inputs.balanced,
    }


def _one_text(texts: Sequence[str]) -> list[str]:
    """Texts as a model of single texts reads them: the sides of a pair on lines of their own."""
    return ["\n".join(split_sides(text)) for text in texts]


class _ReadsSides:
    """An LLM that reads pairs of texts, too."""

    def __init__(self, inverter: Inverter) -> None:
        self._inverter = inverter

    def hidden_states(self, texts: Sequence[str]) -> Tensor:
        return self._inverter.hidden_states(_one_text(texts))

    def label_log_likelihood(self, texts: Sequence[str], names: Sequence[str]) -> Tensor:
        return self._inverter.label_log_likelihood(_one_text(texts), names)


class _TunesSides:
    """A trainable encoder that reads pairs of texts, too."""

    def __init__(self, encoder: TunableEncoder) -> None:
        self._encoder = encoder

    @property
    def model(self) -> nn.Module:
        return self._encoder.model

    def embed(self, texts: Sequence[str]) -> Tensor:
        return self._encoder.embed(_one_text(texts))

    def encode(self, texts: Sequence[str]) -> Tensor:
        return self._encoder.encode(_one_text(texts))

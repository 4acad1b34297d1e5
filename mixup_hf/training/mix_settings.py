"""What a config means for a certain training set, and what it cannot be combined with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mixup_hf import errors, registry, runtime
from mixup_hf.config import MixupConfig
from mixup_hf.data.sources import default_cache_dir
from mixup_hf.data.targets import REGRESSION, SINGLE_LABEL
from mixup_hf.data.text_pairs import are_pairs
from mixup_hf.generation.cache import SentenceStore
from mixup_hf.generation.lengths import ParentLengths
from mixup_hf.generation.votes import VoteStore
from mixup_hf.inverter import ending
from mixup_hf.inverter.engines.base import DecodeSettings
from mixup_hf.inverter.model import Inverter
from mixup_hf.inverter.own_texts import trained_on
from mixup_hf.inverter.parent_words import Parents
from mixup_hf.judging.form import TextCheck
from mixup_hf.judging.leaks import repeated_texts
from mixup_hf.mixing.pairing import SamplingStrategy

# Packages whose code decides what members of a committee say.
_FIT_MEMBERS = ("mixup_hf", "scikit-learn", "torch", "transformers")
_MANY_COPIES = 0.1  # share of the training rows
WITHIN_CLASSES = ("same_class", "smote")


def refuse_rows_file(config: MixupConfig) -> None:
    """Refuse a file of rows where rows are generated."""
    if config.rows_file is not None:
        raise errors.bad(
            "rows_file",
            "be left out of InversedMixup, which generates its rows",
            config.rows_file,
            "OfflineMixup(rows_file, texts, labels) takes them from a file.",
        )


def check_pairs(config: MixupConfig) -> None:
    """Refuse settings that do not work with pairs of texts."""
    given = {
        "interpolation": (config.mixing.interpolation, "linear"),
        "source": (config.mixing.source, "frozen"),
        "hints": (config.hints, "embedding"),
    }
    for name, (value, wanted) in given.items():
        if value != wanted:
            raise errors.bad(name, f"be {wanted!r} for pairs of texts", value, "Leave it out.")


def check_partners(pairing: str, groups: np.ndarray) -> None:
    """Refuse a pairing within classes where every class has one row: each would be copied."""
    if pairing not in WITHIN_CLASSES or np.unique(groups, return_counts=True)[1].max() > 1:
        return
    raise errors.InvalidInput(
        f"`pairing` = {pairing!r} mixes rows of one class, but each of the {len(groups)} classes "
        "has one row: there is nothing to mix. Add rows, or set pairing='cross_class' or 'random'."
    )


def warn_of_copies(texts: Sequence[str]) -> None:
    """Warn where many rows repeat a text: what is measured on real rows is too good then."""
    copies = len(repeated_texts(texts))
    if copies >= _MANY_COPIES * len(texts):
        runtime.warn(
            f"{copies} of {len(texts)} training rows repeat the text of an earlier one. If they "
            "are copies that oversample a class, leave them out: `balance` and `sampling_strategy` "
            "make up for rare classes, and judges take a copy for another text."
        )


def pairing_of(config: MixupConfig, problem_type: str) -> str:
    """The pairing; in regression, where a method's pairing needs classes, near targets instead."""
    pairing = config.mixing.pairing
    if problem_type != REGRESSION or not registry.get("pairing", pairing).needs_classes:
        return pairing
    if config.pairing is None:
        return "near_target"
    raise errors.InvalidInput(
        f"`pairing` = {config.pairing!r} needs classes, but the labels are numbers. Set "
        "'near_target' or 'random'."
    )


def by_index(
    strategy: str | float | Mapping[str | int, int] | None, names: list[str], problem_type: str
) -> SamplingStrategy | None:
    """The strategy with class indices for names; rows must have one class each for such."""
    if not isinstance(strategy, Mapping):
        return strategy
    if problem_type != SINGLE_LABEL:
        rule = "be a word or a number unless each row has one class: rows of several are in none"
        raise errors.bad("sampling_strategy", rule, dict(strategy))
    unknown = [key for key in strategy if key not in names and key not in range(len(names))]
    if unknown:
        raise errors.bad("sampling_strategy", f"name classes among {names}", unknown)
    return {
        names.index(key) if isinstance(key, str) else key: count for key, count in strategy.items()
    }


def trained_for(inverter: Inverter, config: MixupConfig, texts: Sequence[str]) -> Inverter:
    """The inverter that writes in the style of these texts, if that is wanted and pays; else it."""
    mixes = config.enabled and config.mix_ratio > 0 and config.mixing.source == "frozen"
    if config.own_texts == "off" or not mixes or are_pairs(texts):
        return inverter
    return trained_on(inverter, texts)


def decode_settings(config: MixupConfig, texts: Sequence[str] = ()) -> DecodeSettings:
    """How sentences are sampled.

    Args:
        config: The settings.
        texts: The training texts: with `form` = 'match' and no questions among them, no sentence
            begins as one.
    """
    check = text_check(config, texts) if texts else None
    return DecodeSettings(
        config.max_new_tokens,
        config.temperature,
        config.top_p,
        config.top_k,
        config.num_candidates,
        check is None or check.asks,
        config.corrections,
        config.close_enough,
    )


def matches_length(inverter: Inverter, config: MixupConfig) -> bool:
    """Whether sentences get the lengths of training texts; by default, if the engine can do it.

    Raises:
        InvalidInput: They should, and the inverter's engine cannot do it.
    """
    able = bool(getattr(inverter.writer, "matches_length", False))
    if config.length == "match" and not able:
        raise errors.InvalidInput(
            f"`length` = 'match' needs an engine that can choose where a sentence ends, but "
            f"{inverter.engine!r} cannot. Set `length: free`, or leave it out."
        )
    return able and config.length != "free"


def parent_lengths(
    inverter: Inverter, config: MixupConfig, texts: Sequence[str]
) -> ParentLengths | None:
    """What draws the wanted lengths of sentences; None where the LLM decides."""
    if not matches_length(inverter, config):
        return None

    def count_tokens(column: Sequence[str]) -> list[int]:
        return [
            len(ids)
            for ids in inverter.tokenizer(list(column), add_special_tokens=False)["input_ids"]
        ]

    return ParentLengths(texts, count_tokens, config.max_new_tokens)


def text_check(
    config: MixupConfig, texts: Sequence[str], unlabeled: Sequence[str] = ()
) -> TextCheck | None:
    """What gives sentences the form of the training texts; None where any text will do."""
    form, names = config.form == "match", config.novel_names == "forbid"
    if not form and not names:
        return None
    return TextCheck(texts, form=form, names=names, unlabeled=unlabeled)


def sentence_store(
    inverter: Inverter, config: MixupConfig, settings: DecodeSettings
) -> SentenceStore | None:
    """The cache of decoded sentences; None without `reuse`, or for an unidentified inverter."""
    if not config.reuse or not inverter.fingerprint:
        return None
    identity: dict[str, Any] = {
        "aligner": inverter.fingerprint,
        "quantization": inverter.quantization,
        "decoding": asdict(settings),
    }
    if matches_length(inverter, config) or not settings.questions:
        identity["ending"] = ending.VERSION
    return SentenceStore(default_cache_dir() / "sentences", identity, config.cache_megabytes)


def vote_store(
    inverter: Inverter, config: MixupConfig
) -> Callable[[Mapping[str, Any]], VoteStore] | None:
    """Opens the store of what committees have said; None where nothing is kept.

    In the background a member that is fitted late would draw random numbers beside the training.
    """
    if not config.reuse or not inverter.fingerprint or config.background:
        return None
    models = {
        "aligner": inverter.fingerprint,
        "quantization": inverter.quantization,
        "dtype": str(inverter.llm.get_input_embeddings().weight.dtype),
        "device": inverter.device.type,
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "versions": [version(package) for package in _FIT_MEMBERS],
    }
    folder = default_cache_dir() / "votes"
    return lambda rows: VoteStore(folder, models | dict(rows), config.cache_megabytes)


def invert_chunk(
    inverter: Inverter,
    settings: DecodeSettings,
    mixes: Tensor,
    seed: Sequence[int],
    lengths: np.ndarray | None = None,
    parents: Sequence[Parents] | None = None,
) -> list[str]:
    """Decode a chunk as one batch: its composition is part of what determines the sentences."""
    wanted: dict[str, Any] = {} if lengths is None else {"lengths": lengths[:, 0].tolist()}
    return inverter.invert(
        mixes,
        seed=seed,
        parents=parents,
        batch_size=len(mixes),
        progress=False,
        **asdict(settings),
        **wanted,
    )

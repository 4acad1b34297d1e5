"""From settings and a training set to the producer of its generated rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from mixup_hf.config import MixupConfig
from mixup_hf.data.targets import REGRESSION, Targets
from mixup_hf.data.text_pairs import are_pairs, both_sides
from mixup_hf.generation.generator import Producer
from mixup_hf.generation.labelling import Labelling
from mixup_hf.generation.unlabeled import UnlabeledTexts
from mixup_hf.generation.unlabeled_parents import UnlabeledParents
from mixup_hf.inverter.model import Inverter
from mixup_hf.judging.leaks import first_rows
from mixup_hf.mixing.pairing import PairPlan
from mixup_hf.mixing.weights import parse_weights
from mixup_hf.training.mix_settings import (
    by_index,
    decode_settings,
    invert_chunk,
    pairing_of,
    parent_lengths,
    sentence_store,
)
from mixup_hf.types import Encodes, Reviews


def new_producer(
    inverter: Inverter,
    encoder: Encodes,
    config: MixupConfig,
    texts: Sequence[str],
    targets: Targets,
    *,
    seed: int,
    gate: Callable[[], Reviews | None],
    labelling: Labelling | None = None,
    unlabeled: UnlabeledTexts | None = None,
    unlabeled_parents: UnlabeledParents | None = None,
    balance: float = 0.0,
) -> Producer:
    """A producer of the frozen inverter's rows.

    Args:
        inverter: Decodes the mixes.
        encoder: Embeds the texts, or pairs of texts.
        config: How to mix.
        texts: The training texts (N), pairs joined.
        targets: Their labels.
        seed: Of pairs, ratios and decoding.
        gate: Makes what judges the rows, when the first ones are made.
        labelling: Labels them; None leaves them their parents' labels.
        unlabeled: Unlabelled texts among them.
        unlabeled_parents: Unlabelled texts among their parents.
        balance: As for `PairPlan`.
    """
    more = () if unlabeled_parents is None else unlabeled_parents.texts
    every_parent = [*texts, *more]
    mixing, decoding = config.mixing, decode_settings(config, texts)
    plan = PairPlan(
        targets.groups,
        pairing=pairing_of(config, targets.problem_type),
        weights=parse_weights(mixing.weights),
        seed=seed,
        chunk_size=config.chunk_size,
        num_neighbors=config.num_neighbors,
        embeddings=lambda: producer.embeddings(),
        sampling_strategy=by_index(
            config.sampling_strategy, list(targets.names), targets.problem_type
        ),
        balance=balance,
        first=np.asarray(first_rows(texts)),
    )
    invert = partial(invert_chunk, inverter, decoding)
    producer = Producer(
        texts,
        targets.values,
        plan,
        encoder,
        both_sides(invert) if are_pairs(texts) else invert,
        inverter.fingerprint,
        mixing.interpolation,
        mix_weights=inverter.mix_weights,
        hints=config.hints,
        gate=gate,
        bounded=targets.problem_type != REGRESSION,
        provenance={"method": config.method, "weights": mixing.weights},
        engine=lambda: inverter.engine,
        store=sentence_store(inverter, config, decoding),
        labelling=labelling,
        unlabeled=unlabeled,
        unlabeled_parents=unlabeled_parents,
        lengths=parent_lengths(inverter, config, every_parent),
    )
    return producer

"""The front door: from a training set to the two lines in a user's Trainer script."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from mixup_hf import errors
from mixup_hf.config import MixupConfig
from mixup_hf.data.sources import default_cache_dir
from mixup_hf.data.targets import REGRESSION, SINGLE_LABEL
from mixup_hf.data.text_pairs import PairEncoder, are_pairs, both_sides, split_sides
from mixup_hf.generation.cache import SentenceStore
from mixup_hf.generation.generator import Producer
from mixup_hf.inverter.engines.sampling import DecodeSettings
from mixup_hf.inverter.engines.vllm import ServerSettings
from mixup_hf.inverter.model import Inverter
from mixup_hf.judging import Gate, build_gate
from mixup_hf.mixing.methods import preset
from mixup_hf.mixing.pairing import PairPlan, SamplingStrategy
from mixup_hf.mixing.weights import parse_weights
from mixup_hf.training.plugin import TrainerPlugin, check_rows
from mixup_hf.types import Encodes, Follows, MixedExample

# Sentences of the frozen inverter that are learnt along when it is refined for a task.
_REHEARSED = 128


class InversedMixup(TrainerPlugin):
    """Inverted mixup for one training set.

    Example:
        mixup = InversedMixup.from_pretrained("embedded", texts, labels, num_labels=5)
        trainer = Trainer(model, args, train_dataset=tokenized, processing_class=tokenizer,
                          **mixup.trainer_kwargs(tokenizer))

    Args:
        inverter: Encodes the texts and decodes their mixes.
        texts: The training texts (N), and only those: parents must never come from evaluation data.
        labels: Their labels: class indices or class names; lists of names, or of a 0 or 1 for each
            class, for several labels a row; floats for regression.
        num_labels: C. Default: as many as occur.
        label_names: The classes' names in the order of the model's outputs
            (`model.config.id2label`). With class names as labels, default: sorted.
        eval_texts: The texts the model is evaluated on. A generated row that is nearly one of them
            never reaches training, as `config.leaks` says.
        config: How to mix.

    Raises:
        LeakError: With `leaks="fail"`, a training text is nearly an evaluation text.
        ValueError: Empty texts, one class only, fewer rows than classes, labels out of range.
    """

    def __init__(
        self,
        inverter: Inverter,
        texts: Sequence[str],
        labels: Sequence[Any],
        *,
        num_labels: int | None = None,
        label_names: Sequence[str] | None = None,
        eval_texts: Sequence[str] = (),
        config: MixupConfig | None = None,
    ) -> None:
        config = config or MixupConfig()
        _refuse_rows_file(config)
        texts, targets = check_rows(texts, labels, num_labels, label_names)
        pairs = are_pairs(texts)
        if pairs:
            _check_pairs(config)
        super().__init__(config, texts, targets, eval_texts)
        self.inverter = inverter
        self.encoder: Encodes = PairEncoder(inverter) if pairs else inverter
        decode_settings = _decode_settings(self.config)
        plan = PairPlan(
            targets.groups,
            pairing=_pairing(self.config, targets.problem_type),
            weights=parse_weights(self.config.weights),
            seed=self.seed,
            chunk_size=self.config.chunk_size,
            num_neighbors=self.config.num_neighbors,
            embeddings=lambda: self.producer.embeddings(),
            sampling_strategy=_by_index(self.config.sampling_strategy, self.label_names),
        )
        invert = partial(_invert_chunk, inverter, decode_settings)
        self.producer: Producer = Producer(
            texts,
            targets.values,
            plan,
            self.encoder,
            both_sides(invert) if pairs else invert,
            inverter.fingerprint,
            self.config.interpolation,
            mix_weights=inverter.mix_weights,
            gate=self._build_gate,
            bounded=targets.problem_type != REGRESSION,
            provenance={
                "method": self.config.method,
                "weights": self.config.weights,
            },
            engine=lambda: inverter.engine,
            store=self._store(decode_settings) if self.config.reuse else None,
        )

    def _store(self, settings: DecodeSettings) -> SentenceStore | None:
        inverter = self.inverter
        if not inverter.fingerprint:  # made of parts: nothing says which weights these are
            return None
        identity = {
            "aligner": inverter.fingerprint,
            "quantization": inverter.quantization,
            "decoding": asdict(settings),
        }
        return SentenceStore(default_cache_dir() / "sentences" / inverter.fingerprint, identity)

    def _follower(self, tokenizer: PreTrainedTokenizerBase) -> Follows | None:
        """With `source` = 'task', what lets the producer work on the embeddings of the model."""
        if self.config.source != "task" or not self.config.enabled:
            return None
        from mixup_hf.training.task_encoder import FollowingInverter

        follower = FollowingInverter(
            self.inverter,
            self.producer.texts,
            tokenizer,
            rehearsed=[row.text for row in self.producer.produce(0, _REHEARSED)],
            steps=self.config.refine_steps,
            threshold=self.config.max_staleness,
            seed=self.seed,
        )
        self.producer.follow(
            follower,
            partial(_invert_chunk, follower.inverter, _decode_settings(self.config)),
            follower.inverter.fingerprint,
        )
        return follower

    def _build_gate(self) -> Gate | None:
        return build_gate(
            self.producer.texts,
            self._frozen_embeddings(),
            self.producer.targets,
            self.encoder,
            judges=self.config.judges,
            log_likelihood=self._log_likelihood,
            label_names=self.label_names,
            # Judges speak of one class a row; leaks are leaks in every task.
            policy=self.config.intrusion if self.problem_type == SINGLE_LABEL else "off",
            max_redraws=self.config.max_redraws,
            rate=self.config.intrusion_rate,
            eval_texts=self.eval_texts,
            leaks=self.config.leaks,
            seed=self.seed,
        )

    def _frozen_embeddings(self) -> Tensor:
        """Embeddings by the frozen encoder, whichever source is mixed: what judges look at."""
        if self.config.source == "frozen":
            return self.producer.embeddings()
        return self.encoder.encode(self.producer.texts)

    def _log_likelihood(self, texts: Sequence[str], names: Sequence[str]) -> Tensor:
        read = ["\n".join(split_sides(text)) for text in texts]
        return self.inverter.label_log_likelihood(read, names)

    @classmethod
    def from_pretrained(
        cls,
        aligner: str,
        texts: Sequence[str],
        labels: Sequence[Any],
        *,
        num_labels: int | None = None,
        label_names: Sequence[str] | None = None,
        eval_texts: Sequence[str] = (),
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **settings: Any,
    ) -> InversedMixup:
        """Load an aligner and prepare mixing.

        Args:
            aligner: `"embedded"`, a folder, or a Hub id.
            texts: As for the class.
            labels: As for the class.
            num_labels: As for the class.
            label_names: As for the class.
            eval_texts: As for the class.
            device: As for `Inverter.from_pretrained`.
            dtype: As for `Inverter.from_pretrained`.
            **settings: Fields of `MixupConfig`.
        """
        known = set(MixupConfig.__dataclass_fields__)
        for name in settings:
            errors.one_of("settings", name, sorted(known))
        config = replace(MixupConfig(**settings), aligner=aligner)
        _refuse_rows_file(config)  # before minutes of loading
        check_rows(texts, labels, num_labels, label_names)
        _decode_settings(config)
        inverter = Inverter.from_pretrained(
            aligner,
            revision=config.revision,
            quantization=config.quantization,  # type: ignore[arg-type]  # checked by the config
            device=device,
            dtype=dtype,
            engine=config.engine,
            server=ServerSettings(
                config.server_timeout, config.max_inflight, config.server_fallback
            ),
        )
        return cls(
            inverter,
            texts,
            labels,
            num_labels=num_labels,
            label_names=label_names,
            eval_texts=eval_texts,
            config=config,
        )

    def generate(
        self, n: int, *, epoch: int = 0, on_chunk: Callable[[int], object] | None = None
    ) -> list[MixedExample]:
        """Make exactly `n` mixed rows.

        The same call gives the same rows. In several processes the work is shared and every process
        gets all rows.

        Args:
            n: How many.
            epoch: Another epoch gives other pairs, ratios and sentences.
            on_chunk: Called with the number of rows of each chunk made, for a progress bar.

        Raises:
            ValueError: The embeddings are to be those of a model in training, and none is.
        """
        self._check_not_training()
        return self.producer.produce(epoch, n, on_chunk)

    def stream(self, n: int, *, epoch: int = 0) -> Iterator[list[MixedExample]]:
        """The rows of `generate`, a chunk at a time: memory does not grow with `n`.

        In several processes each gets the chunks that are its own.

        Args:
            n: How many rows in all.
            epoch: As for `generate`.

        Raises:
            ValueError: As for `generate`.
        """
        self._check_not_training()
        for chunk in self.producer.share(self.producer.chunks(n)):
            yield self.producer.chunk(epoch, chunk, n)

    def _check_not_training(self) -> None:
        if self.config.source == "task":
            raise errors.InvalidInput(
                "`source` = 'task' mixes embeddings of a model in training, and there is none "
                "here. Fine-tune with `trainer_kwargs`, or set `source: frozen`."
            )


def _refuse_rows_file(config: MixupConfig) -> None:
    if config.rows_file is not None:
        raise errors.bad(
            "rows_file",
            "be left out of InversedMixup, which makes its rows",
            config.rows_file,
            "OfflineMixup(rows_file, texts, labels) takes them from a file.",
        )


def _check_pairs(config: MixupConfig) -> None:
    """What texts of two sides cannot be mixed with."""
    for name, wanted in (("interpolation", "linear"), ("source", "frozen")):
        if getattr(config, name) != wanted:
            raise errors.bad(
                name, f"be {wanted!r} for pairs of texts", getattr(config, name), "Leave it out."
            )


def _pairing(config: MixupConfig, problem_type: str) -> str:
    """The config's; numbers have no classes, so there a method's own means near targets."""
    if problem_type != REGRESSION or config.pairing in ("random", "near_target"):
        return config.pairing
    if config.pairing == preset(config.method).pairing:
        return "near_target"
    raise errors.InvalidInput(
        f"`pairing` = {config.pairing!r} needs classes, but the labels are numbers. Take "
        "'near_target' or 'random'."
    )


def _by_index(
    strategy: str | float | Mapping[str | int, int] | None, names: list[str]
) -> SamplingStrategy | None:
    """The strategy with class indices for names."""
    if not isinstance(strategy, Mapping):
        return strategy
    unknown = [key for key in strategy if key not in names and key not in range(len(names))]
    if unknown:
        raise errors.bad("sampling_strategy", f"name classes among {names}", unknown)
    return {
        names.index(key) if isinstance(key, str) else key: count for key, count in strategy.items()
    }


def _decode_settings(config: MixupConfig) -> DecodeSettings:
    return DecodeSettings(
        config.max_new_tokens,
        config.temperature,
        config.top_p,
        config.top_k,
        config.num_candidates,
    )


def _invert_chunk(
    inverter: Inverter, settings: DecodeSettings, mixes: Tensor, seed: Sequence[int]
) -> list[str]:
    """Decode a chunk at once: its composition is part of what fixes the sentences."""
    return inverter.invert(
        mixes, seed=seed, batch_size=len(mixes), progress=False, **asdict(settings)
    )

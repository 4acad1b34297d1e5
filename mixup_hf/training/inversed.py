"""Inverted mixup of a training set: the public entry point."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Self

import torch
from transformers import PreTrainedTokenizerBase

from mixup_hf import errors, runtime
from mixup_hf.config import MixupConfig, check_unlabeled
from mixup_hf.data.targets import Targets
from mixup_hf.data.text_pairs import PairEncoder, are_pairs
from mixup_hf.generation.generator import Producer
from mixup_hf.inverter.engines.vllm import ServerSettings
from mixup_hf.inverter.model import Inverter
from mixup_hf.judging.labels.members.model import refuse_without_trainer
from mixup_hf.training.judged import JudgedPlugin
from mixup_hf.training.mix_settings import (
    check_pairs,
    check_partners,
    decode_settings,
    invert_chunk,
    pairing_of,
    refuse_rows_file,
    trained_for,
    warn_of_copies,
)
from mixup_hf.training.mixed_set import read_config
from mixup_hf.training.production import new_producer
from mixup_hf.training.row_pieces import generating_bar
from mixup_hf.training.training_rows import check_rows
from mixup_hf.types import Follows, MixedExample, Supplies

# Sentences decoded by the frozen inverter that its refinement for a task also trains on.
_REHEARSED = 128


class InversedMixup(JudgedPlugin):
    """Inverted mixup of one training set.

    Example:
        trainer = Trainer(model, args, train_dataset=train, processing_class=tokenizer)
        InversedMixup.from_pretrained("embedded").attach(trainer, text_column="text")
        trainer.train()

    Args:
        inverter: Encodes the texts and decodes their mixes, after it has been trained on over them
            if `config.own_texts` says so.
        texts: The training texts (N), and only those: parents must never be evaluation texts.
            Default: `attach` reads them off the Trainer.
        labels: Their labels: class indices or class names; for multi-label classification, lists of
            names or of one 0 or 1 per class; for regression, floats.
        num_labels: C. Default: as many as occur.
        label_names: The classes in the order of the model's outputs (`model.config.id2label`).
            Default for class names: sorted.
        problem_type: What the labels are, as transformers names it. Default: inferred from them.
        eval_texts: The texts the model is evaluated on. What happens to a generated row that nearly
            equals one of them is set by `config.leaks`.
        unlabeled_texts: Further texts (M) of the task, without labels. The committee labels them,
            and they are used beside the mixes, as `config.unlabeled_share` says, and as parents of
            mixes, as `config.unlabeled_parents` says. Those that repeat a training text or nearly
            equal an evaluation text are left out.
        label_descriptions: What class names mean, in words, by name; for the committee's member
            `label_names`. Default: the names made readable.
        config: How to mix.
        **settings: Fields of `MixupConfig`, instead of `config`.

    Raises:
        LeakError: With `leaks="fail"`, a training text nearly equals an evaluation text.
        InvalidInput: Empty texts, one class only, fewer rows than classes, labels out of range;
            unlabelled texts without a committee.
        InvalidType: A data set instead of texts and labels; an unknown kind of label.
    """

    producer: Producer

    def __init__(
        self,
        inverter: Inverter,
        texts: Sequence[Any] | None = None,
        labels: Sequence[Any] | None = None,
        *,
        num_labels: int | None = None,
        label_names: Sequence[str] | None = None,
        problem_type: str | None = None,
        eval_texts: Sequence[Any] = (),
        unlabeled_texts: Sequence[Any] = (),
        label_descriptions: Mapping[str, str] | None = None,
        config: MixupConfig | None = None,
        **settings: Any,
    ) -> None:
        config = read_config(config, settings)
        refuse_rows_file(config)
        super().__init__(inverter, config, unlabeled_texts, label_descriptions)
        if texts is not None or labels is not None:
            checked = check_rows(texts, labels, num_labels, label_names, problem_type)
            self._bind(*checked, eval_texts)

    def _bind(self, texts: list[str], targets: Targets, eval_texts: Sequence[Any]) -> None:
        _check_mixable(self.config, texts, targets)
        super()._bind(texts, targets, eval_texts)
        self.has_rows = False  # not before all is there: what follows may be interrupted
        self.inverter = trained_for(self.inverter, self.config, texts)
        self.encoder = PairEncoder(self.inverter) if are_pairs(texts) else self.inverter
        self.producer = self._new_producer()
        self.has_rows = True

    def _new_producer(self) -> Producer:
        """A producer of the frozen inverter's rows."""
        return new_producer(
            self.inverter,
            self.encoder,
            self.config,
            self.texts,
            Targets(self.problem_type, self.targets, self._groups, tuple(self.label_names)),
            seed=self.seed,
            gate=self._build_gate,
            labelling=self._labelling,
            unlabeled=self._unlabeled(),
            unlabeled_parents=self._unlabeled_parents(),
            balance=self._balancing(),
        )

    def _follows_model(self) -> bool:
        return self.config.mixing.source == "task" and self.config.enabled

    def _source(self, tokenizer: PreTrainedTokenizerBase) -> tuple[Supplies, Follows | None]:
        """With `source` = 'task', rows of the embeddings of the model in training.

        Each Trainer gets a producer and a refined projector of its own.
        """
        if not self._follows_model():
            return self.producer, None
        from mixup_hf.training.task_encoder import FollowingInverter

        frozen, followed = self.producer, self._new_producer()
        follower = FollowingInverter(
            self.inverter,
            self.texts,
            tokenizer,
            rehearsed=lambda: [row.text for row in frozen.produce(0, _REHEARSED)],
            steps=self.config.refine_steps,
            threshold=self.config.max_staleness,
            seed=self.seed,
        )
        followed.follow(
            follower,
            partial(invert_chunk, follower.inverter, decode_settings(self.config, self.texts)),
            follower.inverter.fingerprint,
        )
        return followed, follower

    @classmethod
    def from_pretrained(
        cls,
        aligner: str = "embedded",
        texts: Sequence[Any] | None = None,
        labels: Sequence[Any] | None = None,
        *,
        num_labels: int | None = None,
        label_names: Sequence[str] | None = None,
        problem_type: str | None = None,
        eval_texts: Sequence[Any] = (),
        unlabeled_texts: Sequence[Any] = (),
        label_descriptions: Mapping[str, str] | None = None,
        config: MixupConfig | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | str | None = None,
        **settings: Any,
    ) -> Self:
        """Load an aligner and prepare mixing.

        Args:
            aligner: `"embedded"`, a folder, or a Hub id.
            texts: As for the class. Default: `attach` reads them off the Trainer.
            labels: As for the class.
            num_labels: As for the class.
            label_names: As for the class.
            problem_type: As for the class.
            eval_texts: As for the class.
            unlabeled_texts: As for the class.
            label_descriptions: As for the class.
            config: As for the class; names the aligner, so that `aligner` is left out.
            device: As for `Inverter.from_pretrained`.
            dtype: As for `Inverter.from_pretrained`.
            **settings: Fields of `MixupConfig`.
        """
        config = read_config(config, settings | ({} if config else {"aligner": aligner}))
        refuse_rows_file(config)  # before minutes of loading
        check_unlabeled(config, "unlabeled_texts", given=len(unlabeled_texts) > 0)
        if texts is not None or labels is not None:
            _check_mixable(
                config,
                *check_rows(texts, labels, num_labels, label_names, problem_type),
            )
        decode_settings(config)
        inverter = Inverter.from_pretrained(
            config.aligner,
            revision=config.revision,
            quantization=config.quantization,
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
            problem_type=problem_type,
            eval_texts=eval_texts,
            unlabeled_texts=unlabeled_texts,
            label_descriptions=label_descriptions,
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
            on_chunk: Called with the number of rows of each chunk made, in place of a progress bar.

        Raises:
            InvalidState: The plugin has no training rows yet.
            InvalidInput: The embeddings of a model in training are to be mixed, and there is none.
        """
        self._check_can_generate()
        if on_chunk is not None:
            return self.producer.produce(epoch, n, on_chunk)
        with generating_bar(n) as bar:
            return self.producer.produce(epoch, n, bar.update)

    def stream(
        self, n: int, *, epoch: int = 0, gather: bool = False
    ) -> Iterator[list[MixedExample]]:
        """The rows of `generate`, chunk by chunk: memory does not grow with `n`.

        In several processes each gets its own share of the chunks, or with `gather` all of them.

        Args:
            n: How many rows in all.
            epoch: As for `generate`.
            gather: The processes decode side by side and exchange their rows: every process gets
                every row, in order.

        Raises:
            InvalidState: As for `generate`.
            InvalidInput: As for `generate`.
        """
        self._check_can_generate()
        every = self.producer.chunks(n)
        if not gather:
            for chunk in self.producer.share(every):
                yield self.producer.chunk(epoch, chunk, n)
            return
        for at in range(0, len(every), runtime.world_size()):
            turn = self.producer.share(every[at : at + runtime.world_size()])
            rows = runtime.merge({each: self.producer.chunk(epoch, each, n) for each in turn})
            yield [row for chunk in sorted(rows) for row in rows[chunk]]

    def _check_can_generate(self) -> None:
        self._require_rows()
        if self._needs_rehearsal() and self._rehearsal is None:
            raise refuse_without_trainer()
        if self.config.mixing.source == "task":
            raise errors.InvalidInput(
                "`source` = 'task' mixes embeddings of a model in training, and there is none "
                "here. Fine-tune with `attach` or `trainer_kwargs`, or set `source: frozen`."
            )


def _check_mixable(config: MixupConfig, texts: Sequence[str], targets: Targets) -> None:
    """Refuse rows that the settings cannot mix."""
    if are_pairs(texts):
        check_pairs(config)
    check_partners(pairing_of(config, targets.problem_type), targets.groups)
    warn_of_copies(texts)

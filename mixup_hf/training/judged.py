"""What a generated row is judged and labelled by, made from a plugin's training set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, cast

from torch import Tensor

from mixup_hf import errors
from mixup_hf.config import DEFAULT_COMMITTEE, MixupConfig, check_unlabeled
from mixup_hf.data.label_names import describe_labels
from mixup_hf.data.row_files import digest
from mixup_hf.data.targets import SINGLE_LABEL, Targets
from mixup_hf.data.text_pairs import split_sides
from mixup_hf.generation.generator import Producer
from mixup_hf.generation.labelling import Labelling
from mixup_hf.generation.readability import Readability, check_readability
from mixup_hf.generation.unlabeled import UnlabeledTexts
from mixup_hf.generation.unlabeled_parents import UnlabeledParents
from mixup_hf.inverter.model import Inverter
from mixup_hf.judging import Gate, build_gate
from mixup_hf.judging.events import is_degenerate
from mixup_hf.judging.labels import Committee
from mixup_hf.judging.labels.members.model import NAME as MEMBER
from mixup_hf.judging.labels.members.model import refuse_without_trainer
from mixup_hf.training.auto import Chosen
from mixup_hf.training.collator import MixupCollator
from mixup_hf.training.committee import build_committee
from mixup_hf.training.mix_settings import parent_lengths, text_check, vote_store
from mixup_hf.training.plain_loop import mixed_rows
from mixup_hf.training.plugin import TrainerPlugin
from mixup_hf.training.rehearsal import Rehearsal
from mixup_hf.training.unlabeled import checked_unlabeled
from mixup_hf.types import Encodes

_WORDS_PER_TOKEN = 0.75  # of English text, for the LLMs' tokenizers
# How many texts show how sure the committee is of text that nobody has labelled.
_CALIBRATION_TEXTS = 256
_CALIBRATION_SENTENCES = 64  # decoded, so they cost more
# Weight of the committee's label by the setting `label_source`.
_COMMITTEE_SHARE = {"committee": 1.0, "blend": 0.5}


class JudgedPlugin(TrainerPlugin):
    """A plugin whose rows pass a gate, and are labelled by a committee if the config says so.

    Args:
        inverter: Encodes the texts and decodes their mixes.
        config: How to mix.
        unlabeled_texts: Texts without labels.
        label_descriptions: What class names mean, by name.

    Attributes:
        unlabeled_texts: Those of the unlabelled texts that may be used.
        label_descriptions: What each class means (C).

    Raises:
        InvalidInput: There are unlabelled texts that nobody would label.
    """

    producer: Producer
    encoder: Encodes
    unlabeled_texts: list[str]
    label_descriptions: list[str]

    def __init__(
        self,
        inverter: Inverter,
        config: MixupConfig,
        unlabeled_texts: Sequence[Any] = (),
        label_descriptions: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(config)
        check_unlabeled(config, "unlabeled_texts", given=len(unlabeled_texts) > 0)
        self.inverter = inverter
        self._given_unlabeled = list(unlabeled_texts)
        self._given_descriptions = label_descriptions
        self._rehearsal: Rehearsal | None = None

    def _bind(self, texts: list[str], targets: Targets, eval_texts: Sequence[Any]) -> None:
        self._groups = targets.groups
        self.label_descriptions = describe_labels(targets.names, self._given_descriptions)
        super()._bind(texts, targets, eval_texts)

    def _choose(self, targets: Targets) -> Chosen:
        chosen = super()._choose(targets)
        if self._given_unlabeled and chosen.label_source != "committee":
            raise errors.InvalidInput(
                "`unlabeled_texts` needs a committee that labels them, and for this training set "
                "none is chosen by itself: see the setting `label_source`. Set `label_source: "
                "committee`, or leave the texts out."
            )
        return chosen

    def _guard(self, eval_texts: Sequence[Any]) -> None:
        super()._guard(eval_texts)
        self.unlabeled_texts = checked_unlabeled(
            self._given_unlabeled, self.texts, self.eval_texts, self.config.leaks
        )
        if self.has_rows:  # evaluation texts that became known later
            producer, more = self.producer, self._unlabeled_parents()
            producer.unlabeled, producer.unlabeled_parents = self._unlabeled(), more
            if more is not None:
                every = [*self.texts, *more.texts]
                producer.lengths = parent_lengths(self.inverter, self.config, every)
            if producer.gate is not None:
                producer.gate.forget()

    def _unlabeled(self) -> UnlabeledTexts | None:
        """The unlabelled texts among the rows; None without any."""
        if not self.unlabeled_texts:
            return None
        config, chosen = self.config, self.chosen
        real = len(self.texts) * max(1, chosen.refill_every)
        return UnlabeledTexts(
            self.unlabeled_texts,
            config.unlabeled_share,
            seed=self.seed,
            rows_per_refill=chosen.rows_per_refill or mixed_rows(real, config.mix_ratio),
        )

    def _unlabeled_parents(self) -> UnlabeledParents | None:
        """The unlabelled texts among the parents of mixes; None without any."""
        share = self.config.unlabeled_parents
        if not share:
            return None
        return UnlabeledParents(
            self.unlabeled_texts,
            share,
            seed=self.seed,
            num_neighbors=self.config.num_neighbors,
        )

    @cached_property
    def _labelling(self) -> Labelling | None:
        """What labels the rows of all producers; None leaves them their parents' labels."""
        if self.chosen.label_source == "parents":
            return None
        return Labelling(self._build_committee, _COMMITTEE_SHARE[self.chosen.label_source])

    @property
    def committee(self) -> Committee | None:
        """The committee that labels generated rows; None where they keep their parents' labels.

        It is a classifier of any texts, too: `mixup.committee.predict_proba(texts)`. Fitted on
        first use, unless a run has done so.

        Raises:
            InvalidState: The plugin has no training rows yet.
            InvalidInput: A member cannot work with this training set, or needs a Trainer that has
                not begun.
        """
        self._require_rows()
        if self._labelling is None:
            return None
        if self._needs_rehearsal() and self._rehearsal is None:
            raise refuse_without_trainer()
        return cast("Committee", self._labelling.labels)

    def _build_committee(self) -> Committee:
        """Fit the committee on the training rows: the same one in every process and every run."""
        extra = {} if self._rehearsal is None else {MEMBER: self._rehearsal.member()}
        return build_committee(
            self.inverter,
            self.encoder,
            self.texts,
            self._frozen_embeddings(),
            self._all_targets(),
            members=self._members(),
            descriptions=self.label_descriptions,
            seed=self.seed,
            calibration=self._calibration_texts,
            extra=extra,
            balanced=self.chosen.balance,
            kept=vote_store(self.inverter, self.config),
        )

    def _all_targets(self) -> Targets:
        return Targets(self.problem_type, self.targets, self._groups, tuple(self.label_names))

    def _new_rehearsal(self, collator: MixupCollator) -> Rehearsal | None:
        if not self._needs_rehearsal() or collator.mix_ratio == 0:
            return None
        return Rehearsal(
            self.texts,
            self._all_targets(),
            collator,
            self.class_weights,
            self.seed,
            on_begin=self._rehearsed,
        )

    def _needs_rehearsal(self) -> bool:
        """Whether a member of the committee is a copy of the model being trained."""
        return self.chosen.label_source != "parents" and MEMBER in self.config.committee

    def _rehearsed(self, rehearsal: Rehearsal) -> None:
        """Take the copy of the run that begins: another run may have had another one."""
        self._rehearsal = rehearsal
        if self._labelling is not None:
            self._labelling.forget()

    def committee_figures(self) -> dict[str, Any] | None:
        """What the committee is like, see `Committee.figures`; None before it has labelled rows."""
        fitted = None if self._labelling is None else self._labelling.fitted
        return fitted.figures() if isinstance(fitted, Committee) else None

    def _members(self) -> list[str]:
        """The members as set; of the default ones, those that know this kind of label."""
        chosen = self.config.committee
        knows = self.problem_type == SINGLE_LABEL or chosen != DEFAULT_COMMITTEE
        fitted = [name for name in chosen if knows or name != "setfit"]
        return [name for name in fitted if name != MEMBER or self._rehearsal is None]

    def _calibration_texts(self) -> list[str]:
        """Texts nobody has labelled, the same ones whichever rows are labelled first."""
        unlabeled = self.producer.unlabeled
        if unlabeled is not None:
            return unlabeled.first(_CALIBRATION_TEXTS)
        made = self.producer.first_sentences(_CALIBRATION_SENTENCES)
        return [text for text in made if not is_degenerate(text)]

    @property
    def labelled_by(self) -> str:
        """Who labels generated rows, in words."""
        committee = f"a committee ({', '.join(self._members())})"
        if self.chosen.label_source == "parents":
            return "the parents, by their weights"
        return (
            committee if self.chosen.label_source == "committee" else f"the parents and {committee}"
        )

    def check_readability(self) -> Readability | None:
        """Compare up to 32 training texts with what the aligner decodes from their embeddings.

        Done once, before the first rows are used, at the cost of generating 32 rows.

        Returns:
            The figures; None with `on_unreadable` = 'off'.

        Raises:
            InvalidState: The plugin has no training rows yet.
            InvalidInput: With `on_unreadable` = 'fail', the aligner cannot reproduce the texts.
        """
        self._require_rows()
        if self.config.on_unreadable == "off":
            return None
        return self._readability

    @cached_property
    def _readability(self) -> Readability:
        words = int(self.config.max_new_tokens * _WORDS_PER_TOKEN)
        found = check_readability(self.inverter, self.texts, seed=self.seed, max_words=words)
        return found.accepted(fail=self.config.on_unreadable == "fail")

    def _build_gate(self) -> Gate | None:
        self.check_readability()
        # With a committee, rows get their labels after the gate: there is none to doubt yet. And
        # judges predict one class per row; a look at the text works in every task.
        by_committee = self.chosen.label_source == "committee"
        texts_only = by_committee or self.problem_type != SINGLE_LABEL
        return build_gate(
            self.texts,
            self._frozen_embeddings(),
            self.targets,
            self.encoder,
            judges=self.config.judges,
            log_likelihood=self._log_likelihood,
            label_names=self.label_names,
            policy=self.config.intrusion,
            max_redraws=self.config.max_redraws,
            rate=self.config.intrusion_rate,
            eval_texts=self.eval_texts,
            leaks=self.config.leaks,
            seed=self.seed,
            texts_only=texts_only,
            unlabeled=self.unlabeled_texts,
            check=text_check(self.config, self.texts, self.unlabeled_texts),
        )

    def _frozen_embeddings(self) -> Tensor:
        """Embeddings by the frozen encoder, whichever source is mixed: what judges look at."""
        if self.config.mixing.source == "frozen":
            return self.producer.embeddings()
        return self.encoder.encode(self.texts)

    def _log_likelihood(self, texts: Sequence[str], names: Sequence[str]) -> Tensor:
        read = ["\n".join(split_sides(text)) for text in texts]
        return self.inverter.label_log_likelihood(read, names)

    def _settings(self) -> dict[str, Any]:
        """With what was given beside the settings, where labels depend on it."""
        known = super()._settings() | {"aligner_fingerprint": self.inverter.fingerprint}
        if self.chosen.label_source != "parents":
            known["label_descriptions"] = self.label_descriptions
        if self.unlabeled_texts:
            known["unlabeled_texts"] = digest(self.unlabeled_texts)
        return known

"""Types shared across the library: generated rows, and protocols of the objects that make them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from torch import Tensor

# "Record separator" between the two texts of a pair, which the library keeps as one string.
PAIR_MARK = "\x1e"


@dataclass(frozen=True)
class MixedExample:
    """One generated sentence with its soft label and where it came from.

    Attributes:
        text: The decoded sentence. For text pairs, both sentences joined by a control character;
            use `sides` to get them separately.
        label: Soft label (C,), in the order of the classes; sums to 1.
        lam: Weight of the first parent; in [0, 1], except for distributions that extrapolate.
        parents: Row numbers of the two (or m) parents in the given texts; without those of its
            parents that are unlabelled texts.
        shares: The weights of all parents, labelled ones first; they sum to 1.
        seed: Seed of the run.
        epoch: The refill of the pool that generated it.
        index: Position in that refill's pair plan.
        aligner_fingerprint: Fingerprint of the aligner used for decoding.
        method: Preset used to generate it.
        weights: Specification of the distribution that its shares were drawn from.
        interpolation: How embeddings were mixed.
        hints: Where the words hinted to the LLM came from: the mixed `embedding`, or the `parents`
            too; empty for a row that was not decoded, or by an earlier version.
        engine: The engine that decoded it.
        events: Problems that intrusion judges found in the first sentence generated for this
            position; names from `intrusion.EVENTS`.
        judges: Each judge's class probabilities (C,) for this sentence.
        votes: The class probabilities (C,) of each member of the committee that labels sentences.
        mitigation: How the events were handled: "none", or a value set by `intrusion.Gate`.
        attempts: Number of sentences generated for this position.
        weight: Weight of this row in the loss, on top of the weight of all mixed rows.
        unlabeled_parents: Numbers, among the unlabelled texts, of the parents that are such.
    """

    text: str
    label: tuple[float, ...]
    lam: float
    parents: tuple[int, ...]
    shares: tuple[float, ...]
    seed: int
    epoch: int
    index: int
    aligner_fingerprint: str
    method: str = ""
    weights: str = ""
    interpolation: str = ""
    hints: str = ""
    engine: str = ""
    events: tuple[str, ...] = ()
    judges: dict[str, tuple[float, ...]] = field(default_factory=dict)
    votes: dict[str, tuple[float, ...]] = field(default_factory=dict)
    mitigation: str = "none"
    attempts: int = 1
    weight: float = 1.0
    unlabeled_parents: tuple[int, ...] = ()

    @property
    def sides(self) -> tuple[str, ...]:
        """The single sentence, or both sentences of a pair."""
        return tuple(self.text.split(PAIR_MARK))

    @property
    def text_pair(self) -> str | None:
        """The second sentence of a pair; None for a single sentence."""
        return self.sides[1] if len(self.sides) > 1 else None

    @property
    def is_copy(self) -> bool:
        """Whether this is a training row's own text, in place of a sentence found fit."""
        return self.mitigation == "parent"

    @property
    def hard_label(self) -> int:
        """The class with the largest share; the first one in case of a tie."""
        return max(range(len(self.label)), key=self.label.__getitem__)

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-serializable dict; `from_json` is the inverse."""
        return asdict(self)

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> MixedExample:
        """Rebuild from the output of `to_json`."""
        sequences = {name: tuple(row[name]) for name in ("label", "parents", "shares", "events")}
        sequences["unlabeled_parents"] = tuple(row.get("unlabeled_parents") or ())
        by_name = {
            key: {name: tuple(values) for name, values in row.get(key, {}).items()}
            for key in ("judges", "votes")  # rows of earlier versions have no votes
        }
        return cls(**(row | sequences | by_name))


Redraw = Literal["pair", "ratio", "near"]


class Reviews(Protocol):
    """Judges generated rows and repairs them."""

    def review(
        self,
        rows: Sequence[MixedExample],
        redraw: Callable[[list[int], int, Redraw], list[MixedExample]],
    ) -> list[MixedExample]:
        """Return rows fit for training; `redraw(places, attempt, how)` regenerates some of them."""
        ...


class HasLabels(Protocol):
    """Labels of n texts, with the opinions they were pooled from."""

    @property
    def labels(self) -> Tensor:
        """Soft labels (n, C), float32."""
        ...

    @property
    def votes(self) -> Mapping[str, Tensor]:
        """The class probabilities (n, C) of each member, by its name."""
        ...


class Labels(Protocol):
    """Labels texts by what they say: a committee."""

    def label(self, texts: Sequence[str]) -> HasLabels:
        """Label n texts; what a text gets does not depend on the texts labelled before it."""
        ...


@runtime_checkable
class Encodes(Protocol):
    """Turns texts into embeddings."""

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Embed N texts as (N, D), float32."""
        ...


class Supplies(Protocol):
    """Supplies mixed rows of a training set for every refill."""

    @property
    def texts(self) -> Sequence[str]:
        """The training texts (N)."""
        ...

    def produce(
        self, epoch: int, num_rows: int, on_chunk: Callable[[int], object] | None = None
    ) -> list[MixedExample]:
        """Return a refill's rows on every process; `on_chunk` gets the size of each local chunk."""
        ...

    def forget(self) -> None:
        """Discard anything computed from a model that has changed since."""
        ...


class Begins(Protocol):
    """Changes a model before its first training step.

    Attributes:
        steps: How many optimizer steps that took, once it has begun.
    """

    steps: int

    def begin(self, model: Any, dataset: Any, args: Any, state: Any) -> None:
        """Called by every process when a run begins.

        Args:
            model: The model, not wrapped.
            dataset: The training rows as the collator sees them; the first shows the columns.
            args: The Trainer's `TrainingArguments`.
            state: The Trainer's `TrainerState`.
        """
        ...


class Follows(Protocol):
    """Keeps an inverter in sync with a model being trained."""

    def follow(self, model: Any) -> float:
        """Embed with `model` from now on; return how stale the inverter was, in nats per token."""
        ...

    def save(self, folder: Path) -> None:
        """Save what has changed."""
        ...

    def load(self, folder: Path) -> None:
        """Load what `save` wrote."""
        ...


@runtime_checkable
class Inverts(Protocol):
    """Turns embeddings into texts."""

    @property
    def fingerprint(self) -> str:
        """Identifies the weights that decode the texts."""
        ...

    def invert(self, embeddings: Tensor, *, seed: int | Sequence[int]) -> list[str]:
        """Decode (N, D) embeddings into N sentences; the same seed gives the same sentences."""
        ...

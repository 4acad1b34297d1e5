"""What the parts of the library hand to one another: rows, and the protocols of their makers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from torch import Tensor

# Between the two texts of a pair, which the library holds as one string: "record separator".
PAIR_MARK = "\x1e"


@dataclass(frozen=True)
class MixedExample:
    """One generated sentence with its soft label and where it came from.

    Attributes:
        text: The decoded sentence. For pairs of texts it holds both, joined by a control character:
            read them from `sides`.
        label: Soft label (C,), in the order of the classes; sums to 1.
        lam: Weight of the first parent; in [0, 1], but for distributions that go beyond it.
        parents: Rows of the parents in the texts that were given; two of them, or m.
        shares: The weights of all parents; they sum to 1.
        seed: Seed of the run.
        epoch: Which refill of the pool made it.
        index: Position in that refill's pair plan.
        aligner_fingerprint: Of the aligner that decoded it.
        method: Preset it was made under.
        weights: Specification of the distribution that its shares are from.
        interpolation: How embeddings were mixed.
        engine: What decoded it.
        events: What intrusion judges found wrong with the first sentence made for this place; names
            of `intrusion.EVENTS`.
        judges: Each judge's class probabilities (C,) for this sentence.
        mitigation: What was done about the events: "none", or as `intrusion.Gate` says.
        attempts: How many sentences were made for this place.
        weight: Weight in the loss, beside that of all mixed rows.
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
    engine: str = ""
    events: tuple[str, ...] = ()
    judges: dict[str, tuple[float, ...]] = field(default_factory=dict)
    mitigation: str = "none"
    attempts: int = 1
    weight: float = 1.0

    @property
    def sides(self) -> tuple[str, ...]:
        """The sentence alone, or both sentences of a pair."""
        return tuple(self.text.split(PAIR_MARK))

    @property
    def text_pair(self) -> str | None:
        """The second sentence of a pair; None for a single sentence."""
        return self.sides[1] if len(self.sides) > 1 else None

    @property
    def hard_label(self) -> int:
        """The class with the largest share; the first of them when several have it."""
        return max(range(len(self.label)), key=self.label.__getitem__)

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dict; `from_json` is its inverse."""
        return asdict(self)

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> MixedExample:
        """Rebuild from `to_json`."""
        sequences = {name: tuple(row[name]) for name in ("label", "parents", "shares", "events")}
        judges = {name: tuple(values) for name, values in row["judges"].items()}
        return cls(**(row | sequences | {"judges": judges}))


Redraw = Literal["pair", "ratio", "near"]


class Reviews(Protocol):
    """Judges generated rows and mends them."""

    def review(
        self,
        rows: Sequence[MixedExample],
        redraw: Callable[[list[int], int, Redraw], list[MixedExample]],
    ) -> list[MixedExample]:
        """The rows as they may be trained on; `redraw(places, attempt, how)` makes some anew."""
        ...


@runtime_checkable
class Encodes(Protocol):
    """Turns texts into embeddings."""

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Embed N texts as (N, D), float32."""
        ...


class Supplies(Protocol):
    """Has mixed rows of a training set for every refill."""

    @property
    def texts(self) -> Sequence[str]:
        """The training texts (N)."""
        ...

    def produce(
        self, epoch: int, num_rows: int, on_chunk: Callable[[int], object] | None = None
    ) -> list[MixedExample]:
        """The rows of a refill, on every process; `on_chunk` hears of those made on this one."""
        ...

    def forget(self) -> None:
        """Forget what was learnt of a model that has moved since."""
        ...


class Follows(Protocol):
    """Keeps an inverter in step with a model in training."""

    def follow(self, model: Any) -> float:
        """Embed with `model` from now on; how stale the inverter had become, in nats/token."""
        ...

    def save(self, folder: Path) -> None:
        """Write what has changed."""
        ...

    def load(self, folder: Path) -> None:
        """Take what `save` wrote."""
        ...


@runtime_checkable
class Inverts(Protocol):
    """Turns embeddings into texts."""

    @property
    def fingerprint(self) -> str:
        """Identifies the weights behind the texts."""
        ...

    def invert(self, embeddings: Tensor, *, seed: int | Sequence[int]) -> list[str]:
        """Decode (N, D) embeddings to N sentences; the same seed gives the same sentences."""
        ...

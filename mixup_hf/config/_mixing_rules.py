"""What settings of mixing may be, and what cannot be combined."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from mixup_hf import errors, registry

if TYPE_CHECKING:
    from mixup_hf.config.mixing import MixupConfig

CurriculumFill = Literal["none", "real"]
Failure = Literal["stop", "real_rows"]
Hints = Literal["embedding", "parents"]
Interpolation = Literal["linear", "linear_renorm", "slerp"]
IntrusionPolicy = Literal["keep", "drop", "resample", "relabel", "blend", "local", "weight"]
LabelSource = Literal["parents", "committee", "blend"]
LeakPolicy = Literal["drop", "fail", "off"]
Quantization = Literal["4bit", "none"]
StrategyName = Literal["auto", "minority", "not minority", "not majority", "all"]
Source = Literal["frozen", "task"]
Unreadable = Literal["warn", "fail", "off"]


def check_mix_ratio(mix_ratio: float) -> None:
    """Raise `InvalidInput` unless 0 <= `mix_ratio` < 1."""
    errors.in_range("mix_ratio", mix_ratio, 0.0, 1.0)
    if mix_ratio == 1.0:
        raise errors.bad("mix_ratio", "be below 1", mix_ratio, "A batch needs real rows too.")


def check_interpolation(interpolation: str, num_parents: int) -> None:
    """Raise `InvalidInput` unless `num_parents` can be mixed that way."""
    errors.one_of("interpolation", interpolation, Interpolation.__args__)  # type: ignore[attr-defined]
    if interpolation == "slerp" and num_parents > 2:
        raise errors.InvalidInput(
            f"`interpolation` = 'slerp' mixes two parents, but `weights` draws {num_parents}. "
            "Use 'linear' or 'linear_renorm'."
        )


def check_combinations(mixup: MixupConfig) -> None:
    """Raise `InvalidInput` where settings cannot be combined."""
    mixing = mixup.mixing
    if mixup.committee == ("model",):
        raise errors.bad(
            "committee",
            "name other members beside 'model', which has seen every real row: nobody could say "
            "how right it is",
            mixup.committee,
            "Add 'encoder'.",
        )
    engine = mixup.engine.partition(":")[0]
    if mixup.length == "match" and not registry.get("engine", engine)().matches_length:
        raise errors.InvalidInput(
            f"`length` = 'match' needs an engine that can choose where a sentence ends, but "
            f"`engine` = {mixup.engine!r} cannot. Set `length: free`, or leave it out."
        )
    check_interpolation(mixing.interpolation, registry.build("weights", mixing.weights).num_parents)
    if mixup.background and mixing.source == "task":
        raise errors.InvalidInput(
            "`background` is incompatible with `source` = 'task': sentences generated ahead "
            "would come from a model that has moved on. Unset one of them."
        )
    if mixup.rows_file is not None and (mixup.background or mixing.source == "task"):
        raise errors.InvalidInput(
            f"`rows_file` = {mixup.rows_file!r} is incompatible with `background` and with "
            "`source` = 'task', which generate rows. Unset one of them."
        )


@dataclass(frozen=True)
class Mixing:
    """How rows are mixed, once the method has filled in what was left open.

    Attributes:
        weights: Specification of the distribution of lambda.
        pairing: Name of the pairing.
        interpolation: How embeddings are interpolated.
        source: Whose embeddings are mixed.
    """

    weights: str
    pairing: str
    interpolation: str
    source: str


def check_unlabeled(mixup: MixupConfig, name: str, prefix: str = "", *, given: bool = True) -> None:
    """Raise `InvalidInput` where nobody would label the unlabelled texts, or they are missing.

    Args:
        mixup: How to mix.
        name: What the unlabelled texts are given as.
        prefix: What stands before the names of settings there.
        given: Whether there are such texts.
    """
    names = [f"{prefix}{each}" for each in ("rows_file", "label_source", "unlabeled_parents")]
    if name.startswith("--"):  # an option of the command line
        names = [each.replace("_", "-") for each in names]
    rows_file, label_source, parents = names
    if not given:
        if mixup.unlabeled_parents and mixup.rows_file is None:
            raise errors.InvalidInput(
                f"`{parents}` = {mixup.unlabeled_parents:g} needs unlabelled texts, but there are "
                f"none. Give `{name}`, or set it to 0."
            )
        return
    if mixup.rows_file is not None:
        raise errors.InvalidInput(
            f"`{name}` is incompatible with `{rows_file}`, whose rows are used as they are. "
            "Unset one of them."
        )
    if mixup.label_source not in (None, "committee"):
        raise errors.InvalidInput(
            f"`{name}` needs `{label_source}` = 'committee', because such texts have no "
            f"parents to take labels from, but got {mixup.label_source!r}. Set it, or leave the "
            "texts out."
        )

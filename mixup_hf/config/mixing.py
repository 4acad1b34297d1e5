"""What can be set about mixing: the pairs, the sentences, their labels, when they are generated."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from mixup_hf import registry
from mixup_hf.config import _decoding, _objective
from mixup_hf.config._base import OFF, Named, Number, Whole, settings
from mixup_hf.config._mixing_rules import (
    CurriculumFill,
    Failure,
    Hints,
    Interpolation,
    IntrusionPolicy,
    LabelSource,
    LeakPolicy,
    Mixing,
    Quantization,
    Source,
    StrategyName,
    Unreadable,
    check_combinations,
)

# The method used by default; recipes/benchmarks/RESULTS.md compares them.
DEFAULT_METHOD = "smotext"
# Who labels sentences by default, of those that know the kind of task.
DEFAULT_COMMITTEE = ("encoder", "llm", "setfit")


@settings
class MixupConfig:
    """How sentences are mixed, decoded and fed to training."""

    enabled: bool = Field(default=True, description="Whether rows are mixed at all.")
    aligner: str = Field(
        default="embedded", description="The aligner: embedded, a folder, or a Hub id."
    )
    revision: str | None = Field(default=None, description="Hub revision of the aligner.")
    quantization: Quantization | None = Field(
        default=None, description="Weights of the LLM. By default 4bit on CUDA, none elsewhere."
    )
    engine: Annotated[str, Named("engine", takes="argument")] = Field(
        default="auto",
        description="What decodes the mixes; a vLLM server is written vllm:http://host:8000.",
    )
    server_timeout: Number = Field(
        default=120.0, gt=0, description="With a server: seconds a sentence may take."
    )
    max_inflight: Whole = Field(
        default=64, ge=1, description="With a server: sentences requested at the same time."
    )
    server_fallback: bool = Field(
        default=False,
        description="With a server that fails: warn, and decode in this process; else stop.",
    )
    reuse: bool = Field(
        default=True,
        description=(
            "Reuse sentences that an earlier run with the same settings decoded, and what its "
            "committee said about them."
        ),
    )
    cache_megabytes: Whole = Field(
        default=1024, ge=1, description="Size limit of each of these caches, in megabytes."
    )
    rows_file: str | None = Field(
        default=None,
        description=(
            "Rows generated beforehand, by `mixup-hf augment` or by a run that mixed; no LLM is "
            "loaded."
        ),
    )
    method: Annotated[str, Named("method")] = Field(
        default=DEFAULT_METHOD,
        description=(
            "Published method to follow; it decides weights, pairing, interpolation and source "
            "unless they are set."
        ),
    )
    weights: Annotated[str, Named("weights", takes="numbers")] | None = Field(
        default=None, description="Distribution of lambda, the weight of the first parent."
    )
    interpolation: Interpolation | None = Field(
        default=None,
        description=(
            "How embeddings are interpolated; linear_renorm restores the length that linear "
            "interpolation loses. By default the method's."
        ),
    )
    hints: Hints = Field(
        default="embedding",
        description="Words hinted to the LLM: the mixed embedding's, or the parents' own too.",
    )
    pairing: Annotated[str, Named("pairing")] | None = Field(
        default=None, description="Which rows are mixed with each other. By default the method's."
    )
    source: Source | None = Field(
        default=None,
        description=(
            "Whose embeddings are mixed: those of the aligner's encoder (frozen), or those of the "
            "model in training (task), to which the aligner is then refined. By default the "
            "method's."
        ),
    )
    warmup_epochs: Whole = Field(
        default=1, ge=0, description="With source task: epochs on real rows before mixing starts."
    )
    refine_steps: Whole = Field(
        default=32,
        ge=1,
        description="With source task: training steps per refinement of the aligner.",
    )
    max_staleness: Number = Field(
        default=0.2,
        ge=0,
        description="With source task: staleness, in nats per token, that triggers a refinement.",
    )
    num_neighbors: Whole = Field(
        default=5, ge=1, description="Neighbors that the pairings smote and local choose from."
    )
    sampling_strategy: StrategyName | Number | dict[str | int, Whole] | None = Field(
        default=None,
        description=(
            "How many rows to generate per class, as in imbalanced-learn: a strategy, a ratio for "
            "two classes, or counts by class. By default every row is a first parent equally often."
        ),
    )
    intrusion: Annotated[Literal[IntrusionPolicy, "off"], OFF] = Field(
        default="drop",
        description=(
            "What happens to a sentence whose label the judges doubt; off runs no judges. With "
            "label_source committee there is no label to doubt yet: only sentences that copy a "
            "parent or make no sense are regenerated."
        ),
    )
    judges: tuple[Annotated[str, Named("judge")], ...] = Field(
        default=("knn",),
        min_length=1,
        description="Who predicts a sentence's label; several are averaged.",
    )
    intrusion_rate: Number = Field(
        default=0.05, gt=0, le=0.5, description="Share of real rows that the judges may doubt."
    )
    max_redraws: Whole = Field(
        default=4, ge=0, description="How often a doubtful sentence is regenerated."
    )
    label_source: LabelSource | None = Field(
        default=None,
        description=(
            "Who labels a generated sentence: its parents, by their weights; a committee that "
            "reads it; or blend, half each. By default the committee where one can be fitted and "
            "tested: each row has one of several classes, most classes have two rows or more, the "
            "source is frozen, and intrusion is no policy that mends labels. Else the parents."
        ),
    )
    committee: tuple[Annotated[str, Named("member")], ...] = Field(
        default=DEFAULT_COMMITTEE,
        min_length=1,
        description=(
            "Who predicts labels in the committee; each counts by how well it predicts held-out "
            "rows. With model, which needs a Trainer and no held-out rows, name another one. By "
            "default without setfit where a row has several labels or a number."
        ),
    )
    unlabeled_share: Number = Field(
        default=0.5,
        ge=0,
        le=1,
        description=(
            "With unlabelled texts: share of the generated rows that are such a text as it is, "
            "with the committee's label; the others are mixes."
        ),
    )
    unlabeled_parents: Number = Field(
        default=0.0,
        ge=0,
        le=1,
        description=(
            "With unlabelled texts: share of the parents of mixes that are such a text, mixed with "
            "one of its nearest texts."
        ),
    )
    leaks: Annotated[LeakPolicy, OFF] = Field(
        default="drop",
        description="What happens to a sentence that nearly duplicates an evaluation text.",
    )
    on_unreadable: Annotated[Unreadable, OFF] = Field(
        default="warn",
        description=(
            "What happens when the aligner cannot reproduce a sample of the training texts, such "
            "as texts in another language; off skips the check."
        ),
    )
    mix_ratio: Number = Field(
        default=0.5,
        ge=0,
        lt=1,
        description="Share of mixed rows in a batch; a batch needs real rows too.",
    )
    mixed_weight: Number = Field(
        default=1.0, gt=0, description="Weight of a mixed row in the loss."
    )
    curriculum: Annotated[str, Named("curriculum", takes="numbers")] | None = Field(
        default=None,
        description=(
            "When in a run generated rows are used. By default first:0.5 with a committee, else "
            "constant."
        ),
    )
    curriculum_fill: CurriculumFill | None = Field(
        default=None,
        description=(
            "What replaces a generated row that the curriculum leaves out: a training row drawn "
            "at random (real), so that batches keep their size, or nothing. By default real with a "
            "committee, else none."
        ),
    )
    contrastive_weight: Number | None = _objective.CONTRASTIVE_WEIGHT
    contrastive_rows: _objective.ContrastiveRows = _objective.CONTRASTIVE_ROWS
    contrastive_start: Whole | None = _objective.CONTRASTIVE_START
    head_start: bool | None = _objective.HEAD_START
    weight_average: Number | None = _objective.WEIGHT_AVERAGE
    balance: bool | None = _objective.BALANCE
    class_weights: _objective.ClassWeights | None = _objective.CLASS_WEIGHTS
    refill_every: Whole | None = Field(
        default=None,
        ge=0,
        description=(
            "Epochs between refills with new sentences; 0 fills once. By default 0 with a "
            "committee, else 1."
        ),
    )
    background: bool = Field(
        default=False, description="Generate the next refill in a thread while training goes on."
    )
    auto_off: bool = Field(
        default=False,
        description=(
            "Stop mixing once the model is worse on the development set, with 95 % confidence."
        ),
    )
    on_failure: Failure = Field(
        default="stop",
        description=(
            "When sentences cannot be generated: stop, or log a warning and go on with real rows "
            "(one process only)."
        ),
    )
    rows_per_refill: Whole | None = Field(
        default=None,
        ge=1,
        description=(
            "Sentences per refill. By default as many as one refill uses; with a committee, and "
            "refill_every left open, four per training row, at least 400 and at most 2,000, or all "
            "rows of rows_file."
        ),
    )
    max_new_tokens: Whole = Field(default=40, ge=1, description="Longest sentence, in tokens.")
    temperature: Number = Field(
        default=0.7, ge=0, description="Sampling temperature; 0 decodes greedily."
    )
    top_p: Number = Field(
        default=0.95, gt=0, le=1, description="Probability mass of nucleus sampling."
    )
    top_k: Whole = Field(default=50, ge=1, description="Most likely tokens considered per step.")
    num_candidates: Whole = _decoding.NUM_CANDIDATES
    corrections: Whole = _decoding.CORRECTIONS
    close_enough: Number | None = _decoding.CLOSE_ENOUGH
    form: _decoding.Match = _decoding.FORM
    length: _decoding.Match | None = _decoding.LENGTH
    novel_names: _decoding.NovelNames = _decoding.NOVEL_NAMES
    own_texts: Annotated[_decoding.OwnTexts, OFF] = _decoding.OWN_TEXTS
    chunk_size: Whole = Field(
        default=256,
        ge=1,
        description="Pairs decoded as one batch; another size gives other sentences.",
    )
    seed: Whole | None = Field(
        default=None,
        ge=0,
        description="Seed of pairs, ratios and decoding. By default the Trainer's it reads, or 0.",
    )

    def __post_init__(self) -> None:
        check_combinations(self)

    @property
    def mixing(self) -> Mixing:
        """Weights, pairing, interpolation and source: as set, and where not set, the method's."""
        method = registry.get("method", self.method)
        return Mixing(
            weights=self.weights or method.weights,
            pairing=self.pairing or method.pairing,
            interpolation=self.interpolation or method.interpolation,
            source=self.source or method.source,
        )

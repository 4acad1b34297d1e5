"""What can be set about mixing: the pairs, the sentences, their labels, when they are made."""

from __future__ import annotations

from dataclasses import dataclass, field

from mixup_hf import errors, registry
from mixup_hf._fields import help_
from mixup_hf.inverter.engines.registry import check_engine
from mixup_hf.judging.policies import LEAK_POLICIES, POLICIES
from mixup_hf.mixing.interpolation import check_interpolation
from mixup_hf.mixing.methods import DEFAULT_METHOD, preset
from mixup_hf.mixing.pairing import PAIRINGS, STRATEGIES
from mixup_hf.mixing.weights import parse_weights

_SOURCES = ("frozen", "task")


def check_mix_ratio(mix_ratio: float) -> None:
    """Raise `ValueError` unless 0 <= `mix_ratio` < 1."""
    errors.in_range("mix_ratio", mix_ratio, 0.0, 1.0)
    if mix_ratio == 1.0:
        raise errors.bad("mix_ratio", "be below 1", mix_ratio, "A batch needs real rows too.")


@dataclass(frozen=True)
class MixupConfig:
    """How sentences are mixed, decoded and fed to training."""

    __pydantic_config__ = {"extra": "forbid"}

    enabled: bool = field(default=True, metadata=help_("Whether anything is mixed."))
    aligner: str = field(default="embedded", metadata=help_("embedded, a folder, or a Hub id."))
    revision: str | None = field(default=None, metadata=help_("Hub revision of the aligner."))
    quantization: str | None = field(
        default=None, metadata=help_("4bit or none; default: 4bit on CUDA, none elsewhere.")
    )
    engine: str = field(
        default="auto",
        metadata=help_(
            "What decodes: transformers; fast, the LLM packed for a CPU; auto, fast where it can; "
            "vllm:http://host:8000, a vLLM server."
        ),
    )
    server_timeout: float = field(
        default=120.0, metadata=help_("With a server: seconds that a sentence may take.")
    )
    max_inflight: int = field(
        default=64, metadata=help_("With a server: sentences asked for at a time.")
    )
    server_fallback: bool = field(
        default=False,
        metadata=help_("With a server: decode here, and say so, once it cannot; else stop."),
    )
    reuse: bool = field(
        default=True,
        metadata=help_("Take sentences that an earlier run with the same settings decoded."),
    )
    rows_file: str | None = field(
        default=None,
        metadata=help_(
            "Rows made before, by `mixup-hf augment` or a run that mixed: no LLM is loaded."
        ),
    )
    method: str = field(
        default=DEFAULT_METHOD,
        metadata=help_(
            "smotext, inversed-mixup or structure-preserving: sets weights, pairing, "
            "interpolation and source where those are left empty."
        ),
    )
    weights: str = field(
        default="",
        metadata=help_(
            "Distribution of lambda: beta:A, uniform, fixed:W, epbeta:eps=E, dirichlet:A,m=M."
        ),
    )
    interpolation: str = field(
        default="", metadata=help_("How embeddings are mixed: linear, linear_renorm, slerp.")
    )
    pairing: str = field(
        default="",
        metadata=help_(
            "Who is mixed: same_class, random, cross_class, smote, local, minority, near_target."
        ),
    )
    source: str = field(
        default="",
        metadata=help_(
            "Whose embeddings are mixed: frozen, the aligner's own encoder's; task, those of the "
            "model in training, which the aligner then follows."
        ),
    )
    warmup_epochs: int = field(
        default=1, metadata=help_("With source task: epochs on real rows before anything is mixed.")
    )
    refine_steps: int = field(
        default=32, metadata=help_("With source task: steps by which the aligner is refined.")
    )
    max_staleness: float = field(
        default=0.2,
        metadata=help_("With source task: nats/token of staleness that call for a refresh."),
    )
    num_neighbors: int = field(
        default=5, metadata=help_("Neighbours that smote and local choose from.")
    )
    sampling_strategy: str | float | dict[str | int, int] | None = field(
        default=None,
        metadata=help_(
            "Rows of which class: auto, minority, not minority, all, a ratio, or counts by class; "
            "default: all rows alike."
        ),
    )
    intrusion: str = field(
        default="drop",
        metadata=help_(
            "What is done with a sentence whose label is doubtful: keep, drop, resample, relabel, "
            "blend, local, weight; off judges nothing."
        ),
    )
    judges: tuple[str, ...] = field(
        default=("knn",), metadata=help_("Who says what a sentence is: knn, classifier, llm.")
    )
    intrusion_rate: float = field(
        default=0.05, metadata=help_("Share of real rows that the judges may doubt.")
    )
    max_redraws: int = field(
        default=4, metadata=help_("How often a doubtful sentence is made anew.")
    )
    leaks: str = field(
        default="drop",
        metadata=help_(
            "What is done with a sentence that is nearly an evaluation text: drop, fail or off."
        ),
    )
    mix_ratio: float = field(default=0.5, metadata=help_("Share of mixed rows in a batch, [0, 1)."))
    mixed_weight: float = field(default=1.0, metadata=help_("Weight of a mixed row in the loss."))
    refill_every: int = field(
        default=1, metadata=help_("Epochs between fresh sentences; 0 makes them once.")
    )
    background: bool = field(
        default=False,
        metadata=help_("Make the next refill's sentences in a thread while training goes on."),
    )
    auto_off: bool = field(
        default=False,
        metadata=help_(
            "Stop mixing when the development set says, with 95 % confidence, that the model gets "
            "worse on it."
        ),
    )
    on_failure: str = field(
        default="stop",
        metadata=help_(
            "When sentences cannot be made: stop; or real_rows: say so and go on (one process)."
        ),
    )
    rows_per_refill: int | None = field(
        default=None, metadata=help_("Sentences per refill; default: what is used until the next.")
    )
    max_new_tokens: int = field(default=40, metadata=help_("Longest sentence, in tokens."))
    temperature: float = field(default=0.7, metadata=help_("0 decodes greedily."))
    top_p: float = field(default=0.95, metadata=help_("Nucleus of the sampling."))
    top_k: int = field(default=50, metadata=help_("Tokens considered at each step."))
    num_candidates: int = field(
        default=1, metadata=help_("Sentences decoded per mix; the closest to it is kept.")
    )
    chunk_size: int = field(
        default=256, metadata=help_("Pairs decoded at a time; part of what fixes the sentences.")
    )
    seed: int | None = field(
        default=None,
        metadata=help_("Seed of pairs, ratios, decoding and draws; default: the run's, else 0."),
    )

    def __post_init__(self) -> None:
        meant = preset(self.method)
        for name in ("weights", "pairing", "interpolation", "source"):
            if not getattr(self, name):
                object.__setattr__(self, name, getattr(meant, name))
        errors.one_of("leaks", self.leaks, LEAK_POLICIES)
        check_mix_ratio(self.mix_ratio)
        errors.positive("mixed_weight", self.mixed_weight)
        errors.at_least("temperature", self.temperature, 0.0)
        errors.positive("top_p", self.top_p)
        errors.in_range("top_p", self.top_p, 0.0, 1.0)
        for name in ("top_k", "num_candidates", "max_new_tokens"):
            errors.at_least(name, getattr(self, name), 1)
        if self.rows_per_refill is not None:
            errors.at_least("rows_per_refill", self.rows_per_refill, 1)
        errors.one_of("quantization", self.quantization, (None, "4bit", "none"))
        check_engine(self.engine)
        errors.positive("server_timeout", self.server_timeout)
        errors.at_least("max_inflight", self.max_inflight, 1)
        errors.one_of("source", self.source, _SOURCES)
        errors.one_of("on_failure", self.on_failure, ("stop", "real_rows"))
        if self.background and self.source == "task":
            raise errors.InvalidInput(
                "`background` cannot be had with `source` = 'task': sentences made ahead would be "
                "of a model that has moved on. Leave one of them out."
            )
        if self.rows_file is not None and (self.background or self.source == "task"):
            raise errors.InvalidInput(
                f"`rows_file` = {self.rows_file!r} has its rows already: `background` and `source` "
                "= 'task' say how rows are made. Leave out one or the other."
            )
        errors.at_least("warmup_epochs", self.warmup_epochs, 0)
        errors.at_least("refine_steps", self.refine_steps, 1)
        errors.at_least("max_staleness", self.max_staleness, 0.0)
        if self.seed is not None:
            errors.at_least("seed", self.seed, 0)
        check_interpolation(self.interpolation, parse_weights(self.weights).num_parents)
        errors.one_of("pairing", self.pairing, PAIRINGS)
        errors.at_least("num_neighbors", self.num_neighbors, 1)
        errors.one_of("intrusion", self.intrusion, ("off", *POLICIES))
        if not self.judges:
            raise errors.bad("judges", "name at least one", self.judges, "Try judges=('knn',).")
        for judge in self.judges:
            errors.one_of("judges", judge, registry.names("judge"))
        errors.positive("intrusion_rate", self.intrusion_rate)
        errors.in_range("intrusion_rate", self.intrusion_rate, 0.0, 0.5)
        errors.at_least("max_redraws", self.max_redraws, 0)
        if isinstance(self.sampling_strategy, str):
            errors.one_of("sampling_strategy", self.sampling_strategy, STRATEGIES)
        errors.at_least("chunk_size", self.chunk_size, 1)
        errors.at_least("refill_every", self.refill_every, 0)

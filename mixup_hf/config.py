"""What a user can set: frozen dataclasses whose fields carry their help, checked on creation.

Only the edge of the library knows these classes: everything below takes plain arguments.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from mixup_hf import _checks
from mixup_hf.intrusion import JUDGES, LEAK_POLICIES, POLICIES
from mixup_hf.inverter.engines import check_engine
from mixup_hf.mixing import check_interpolation
from mixup_hf.pairing import PAIRINGS, STRATEGIES
from mixup_hf.presets import preset
from mixup_hf.weights import parse_weights

SOURCES = ("frozen", "task")


def check_mix_ratio(mix_ratio: float) -> None:
    """Raise `ValueError` unless 0 <= `mix_ratio` < 1."""
    _checks.in_range("mix_ratio", mix_ratio, 0.0, 1.0)
    if mix_ratio == 1.0:
        raise _checks.bad("mix_ratio", "be below 1", mix_ratio, "A batch needs real rows too.")


def _help(text: str) -> dict[str, str]:
    return {"help": text}


@dataclass(frozen=True)
class StageConfig:
    """One stage of alignment training: what trains, for how long, how fast.

    A stage ends at `minutes` of training or at `max_steps`, whichever comes first; the learning
    rate follows the same clock, so a stage that runs out of time has still decayed to zero.
    """

    __pydantic_config__ = {"extra": "forbid"}

    name: str = field(metadata=_help("Folder name of the stage, below output_dir."))
    train_lexicon: bool = field(
        default=False, metadata=_help("Stage 0: the lexicon learns, and nothing else.")
    )
    train_projector: bool = field(default=True, metadata=_help("Whether the projector learns."))
    train_lora: bool = field(default=False, metadata=_help("Whether the LoRA learns."))
    minutes: float = field(default=60.0, metadata=_help("Time budget in minutes."))
    max_steps: int = field(default=1_000_000, metadata=_help("Bound on optimiser steps."))
    projector_lr: float = field(
        default=1e-3, metadata=_help("Peak learning rate of the projector, or of the lexicon.")
    )
    lora_lr: float = field(default=5e-4, metadata=_help("Peak learning rate of the LoRA."))
    warmup_steps: int = field(default=50, metadata=_help("Steps of linear warm-up."))
    decay_share: float = field(
        default=0.7, metadata=_help("Last share of the stage over which the rate falls to zero.")
    )

    def __post_init__(self) -> None:
        if not self.name or "/" in self.name:
            raise _checks.bad("stages.name", "be a plain folder name", self.name)
        if not (self.train_lexicon or self.train_projector or self.train_lora):
            raise ValueError(
                f"Stage {self.name!r} trains nothing: set `train_projector` or `train_lora`."
            )
        if self.train_lexicon and (self.train_projector or self.train_lora):
            raise ValueError(
                f"Stage {self.name!r} trains the lexicon together with the projector or the LoRA. "
                "Give the lexicon a stage of its own, with `train_projector: false`."
            )
        _checks.positive("stages.minutes", self.minutes)
        _checks.at_least("stages.max_steps", self.max_steps, 1)
        _checks.positive("stages.projector_lr", self.projector_lr)
        _checks.positive("stages.lora_lr", self.lora_lr)
        _checks.at_least("stages.warmup_steps", self.warmup_steps, 0)
        _checks.in_range("stages.decay_share", self.decay_share, 0.0, 1.0)


@dataclass(frozen=True)
class TaskConfig:
    """Stage 2: labelled texts, the encoder's warm-up on them, and what is mixed in."""

    __pydantic_config__ = {"extra": "forbid"}

    file: str = field(metadata=_help("Labelled texts: csv, jsonl or parquet. Training rows only."))
    text_column: str = field(default="text", metadata=_help("Column that holds the text."))
    label_column: str = field(default="label", metadata=_help("Column that holds the label."))
    max_length: int = field(default=128, metadata=_help("Longest text, in tokens."))
    warm_up_epochs: float = field(default=3.0, metadata=_help("Passes of the supervised warm-up."))
    warm_up_lr: float = field(default=5e-5, metadata=_help("Its peak learning rate."))
    warm_up_batch_size: int = field(default=16, metadata=_help("Its rows per step and process."))
    unlabelled_share: float = field(
        default=0.5, metadata=_help("Share of `data` among the refinement's texts, [0, 1).")
    )

    def __post_init__(self) -> None:
        _checks.at_least("task.max_length", self.max_length, 4)
        _checks.positive("task.warm_up_epochs", self.warm_up_epochs)
        _checks.positive("task.warm_up_lr", self.warm_up_lr)
        _checks.at_least("task.warm_up_batch_size", self.warm_up_batch_size, 1)
        _checks.in_range("task.unlabelled_share", self.unlabelled_share, 0.0, 0.99)


@dataclass(frozen=True)
class AlignConfig:
    """Alignment: which encoder and LLM, on which sentences, how large, how long."""

    __pydantic_config__ = {"extra": "forbid"}

    data: str = field(metadata=_help("Text file (.txt, .gz), a folder of them, or a Hub id."))
    output_dir: str = field(metadata=_help("Where checkpoints and the aligner are written."))
    cache_dir: str | None = field(
        default=None, metadata=_help("Where embeddings are kept; default: output_dir/cache.")
    )
    task: TaskConfig | None = field(
        default=None, metadata=_help("Stage 2: refine `start_from` for labelled texts.")
    )
    text_column: str = field(default="text", metadata=_help("Column of a Hub data set."))
    max_sentences: int = field(default=200_000, metadata=_help("How many sentences to read."))
    min_words: int = field(default=4, metadata=_help("Shortest sentence, in words."))
    max_words: int = field(default=20, metadata=_help("Longest sentence, in words."))
    holdout: int = field(default=256, metadata=_help("Sentences kept out of training."))
    encoder: str = field(
        default="all-minilm-l6-v2", metadata=_help("Encoder: folder, Hub id, name.")
    )
    encoder_revision: str | None = field(default=None, metadata=_help("Hub revision to pin."))
    pooling: str = field(default="mean", metadata=_help("mean, cls or last."))
    normalize: bool = field(default=True, metadata=_help("Scale embeddings to unit length."))
    encoder_prefix: str = field(
        default="", metadata=_help('Text the encoder wants before every input, such as "query: ".')
    )
    llm: str = field(default="smollm2-135m-instruct", metadata=_help("Causal LM to align."))
    llm_revision: str | None = field(default=None, metadata=_help("Hub revision to pin."))
    base_grid: str | None = field(
        default="nf4", metadata=_help("Weights to align to: nf4 or null.")
    )
    quantization: str = field(
        default="none",
        metadata=_help("4bit (QLoRA) trains a large LLM in a quarter of the memory, slower."),
    )
    start_from: str | None = field(
        default=None,
        metadata=_help("Aligner to go on from; its sizes and prompt count, not those given here."),
    )
    num_soft_tokens: int = field(default=4, metadata=_help("K, soft tokens per embedding."))
    projector_width: int = field(default=1024, metadata=_help("Hidden width of the projector."))
    num_hints: int = field(
        default=16, metadata=_help("M, words offered before the soft tokens; 0 for none.")
    )
    lexicon_sentences: int = field(
        default=300_000, metadata=_help("Further sentences, for the lexicon only.")
    )
    lexicon_from: str | None = field(
        default=None,
        metadata=_help("Take the lexicon of this aligner (embedded, a folder, a Hub id)."),
    )
    lexicon_epochs: int = field(default=2, metadata=_help("Passes over them, time permitting."))
    lexicon_words: int = field(default=18_000, metadata=_help("Most words the lexicon knows."))
    lexicon_common: int = field(
        default=60, metadata=_help("The most frequent words, which are never hints.")
    )
    lexicon_width: int = field(default=1024, metadata=_help("Hidden width of the lexicon."))
    lexicon_rank: int = field(default=224, metadata=_help("Rank of its output layer."))
    prompt_prefix: str = field(default="", metadata=_help("Text before the soft tokens."))
    prompt_suffix: str = field(default="", metadata=_help("Text after the soft tokens."))
    prompt_chat: bool = field(
        default=False, metadata=_help("Put the prompt into the LLM's chat template.")
    )
    noise: float = field(
        default=0.0, metadata=_help("Noise on embeddings in training, relative to their length.")
    )
    mix_share: float = field(
        default=0.0, metadata=_help("Share of embeddings mixed with a neighbour's in training.")
    )
    joined_share: float = field(
        default=0.0,
        metadata=_help("Share of texts that are two sentences, read from the mix of both."),
    )
    lora_r: int = field(default=16, metadata=_help("Rank of the LoRA."))
    lora_alpha: int = field(default=32, metadata=_help("Scale of the LoRA."))
    lora_layers: float = field(
        default=1.0, metadata=_help("Share of the LLM's layers with a LoRA, from the top.")
    )
    batch_tokens: int = field(default=1200, metadata=_help("Positions per batch and process."))
    max_grad_norm: float = field(default=1.0, metadata=_help("Gradient clipping."))
    bf16: bool = field(default=True, metadata=_help("Train under bf16 autocast."))
    log_steps: int = field(default=50, metadata=_help("Steps between log lines."))
    save_steps: int = field(default=250, metadata=_help("Steps between checkpoints."))
    eval_steps: int = field(default=500, metadata=_help("Steps between held-out checks."))
    eval_sentences: int = field(default=64, metadata=_help("Held-out sentences to invert then."))
    max_minutes: float | None = field(
        default=None, metadata=_help("Time for all stages; scales their minutes to fit.")
    )
    seed: int = field(default=0, metadata=_help("Seed of everything random."))
    ratio_pairs: int = field(
        default=100,
        metadata=_help("Pairs that the ratio curve is fitted on in the end; 0 fits none."),
    )
    use_cpu: bool = field(default=False, metadata=_help("Stay on the CPU even if there is a GPU."))
    stages: tuple[StageConfig, ...] = field(
        default=(
            StageConfig(
                name="0-lexicon",
                train_lexicon=True,
                train_projector=False,
                minutes=15.0,
                projector_lr=2e-3,
                decay_share=1.0,
            ),
            StageConfig(
                name="1b-lora", train_lora=True, minutes=68.0, warmup_steps=30, decay_share=0.5
            ),
        ),
        metadata=_help("The stages, in order."),
    )

    def __post_init__(self) -> None:
        for name in ("max_sentences", "min_words", "holdout", "lora_r", "lora_alpha", "log_steps"):
            _checks.at_least(name, getattr(self, name), 1)
        for name in ("save_steps", "eval_steps", "eval_sentences"):
            _checks.at_least(name, getattr(self, name), 1)
        _checks.at_least("max_words", self.max_words, self.min_words)
        _checks.positive("max_grad_norm", self.max_grad_norm)
        if self.max_minutes is not None:
            _checks.positive("max_minutes", self.max_minutes)
        if self.holdout >= self.max_sentences:
            raise _checks.bad(
                "holdout", f"be below max_sentences ({self.max_sentences})", self.holdout
            )
        if not self.stages:
            raise _checks.bad("stages", "name at least one stage", self.stages)
        names = [stage.name for stage in self.stages]
        if len(set(names)) < len(names):
            raise _checks.bad("stages", "have a name of its own for each stage", names)
        _checks.one_of("pooling", self.pooling, ("mean", "cls", "last"))
        _checks.one_of("base_grid", self.base_grid, ("nf4", None))
        for name in ("num_soft_tokens", "projector_width"):
            _checks.at_least(name, getattr(self, name), 1)
        _checks.one_of("quantization", self.quantization, ("4bit", "none"))
        _checks.at_least("ratio_pairs", self.ratio_pairs, 0)
        _checks.at_least("noise", self.noise, 0.0)
        _checks.in_range("mix_share", self.mix_share, 0.0, 1.0)
        _checks.in_range("joined_share", self.joined_share, 0.0, 0.9)
        _checks.positive("lora_layers", self.lora_layers)
        _checks.in_range("lora_layers", self.lora_layers, 0.0, 1.0)
        if self.task is not None and self.start_from is None:
            raise ValueError(
                "`task` refines an aligner that exists. Set `start_from` (embedded, a folder or a "
                "Hub id), or leave `task` out."
            )
        self._check_lexicon()

    def _check_lexicon(self) -> None:
        _checks.at_least("num_hints", self.num_hints, 0)
        _checks.at_least("lexicon_common", self.lexicon_common, 0)
        for name in ("lexicon_epochs", "lexicon_width", "lexicon_rank"):
            _checks.at_least(name, getattr(self, name), 1)
        trained = [stage.name for stage in self.stages if stage.train_lexicon]
        given = self.start_from or self.lexicon_from
        if self.num_hints and not trained and given is None:
            raise ValueError(
                f"`num_hints` = {self.num_hints} needs a lexicon, but no stage trains one. Add a "
                "first stage with `train_lexicon: true`, set `lexicon_from` or `start_from`, or "
                "set `num_hints: 0`."
            )
        if self.lexicon_from is not None and (trained or self.start_from or not self.num_hints):
            raise ValueError(
                f"`lexicon_from` = {self.lexicon_from!r} gives a new aligner with hints a lexicon, "
                "but this one gets it from a stage or from `start_from`, or has `num_hints: 0`. "
                "Leave one of them out."
            )
        if trained and not self.num_hints:
            raise ValueError(
                f"Stage {trained[0]!r} trains a lexicon, but `num_hints` = 0 never asks it. "
                "Leave the stage out, or set `num_hints` (16 is a good number)."
            )
        if self.num_hints:
            _checks.at_least("lexicon_sentences", self.lexicon_sentences, 1)
            _checks.at_least(
                "lexicon_words", self.lexicon_words, self.num_hints + self.lexicon_common
            )

    @property
    def trains_lexicon(self) -> bool:
        """Whether a stage does."""
        return any(stage.train_lexicon for stage in self.stages)

    def stage_minutes(self, stage: StageConfig) -> float:
        """The stage's time budget, scaled so that all stages fit `max_minutes`."""
        if self.max_minutes is None:
            return stage.minutes
        return stage.minutes * self.max_minutes / sum(each.minutes for each in self.stages)


@dataclass(frozen=True)
class FidelityConfig:
    """Measuring an aligner: on which sentences, how."""

    __pydantic_config__ = {"extra": "forbid"}

    data: str = field(metadata=_help("Text file (.txt, .gz), a folder of them, or a Hub id."))
    origins: str | None = field(
        default=None, metadata=_help("File with the origin of each line of data, to report by.")
    )
    text_column: str = field(default="text", metadata=_help("Column of a Hub data set."))
    max_sentences: int = field(default=300, metadata=_help("How many sentences to read."))
    min_words: int = field(default=4, metadata=_help("Shortest sentence, in words."))
    max_words: int = field(default=20, metadata=_help("Longest sentence, in words."))
    num_pairs: int = field(default=60, metadata=_help("Pairs for the lambda-recovery."))
    best_of: int = field(
        default=1, metadata=_help("1 decodes greedily; more keeps the closest of so many samples.")
    )
    quantization: str | None = field(
        default=None, metadata=_help("4bit or none; default: 4bit on CUDA, none elsewhere.")
    )
    dtype: str = field(
        default="float32",
        metadata=_help("float32, which gives the same figures on every CPU, or bfloat16."),
    )
    output_dir: str | None = field(
        default=None, metadata=_help("Where fidelity.json and fidelity.png go; none: only print.")
    )
    seed: int = field(default=0, metadata=_help("Seed of pairs and sampling."))

    def __post_init__(self) -> None:
        _checks.at_least("max_sentences", self.max_sentences, 2)
        _checks.at_least("min_words", self.min_words, 1)
        _checks.at_least("max_words", self.max_words, self.min_words)
        _checks.at_least("num_pairs", self.num_pairs, 2)
        _checks.at_least("best_of", self.best_of, 1)
        _checks.one_of("dtype", self.dtype, ("float32", "bfloat16"))
        _checks.one_of("quantization", self.quantization, (None, "4bit", "none"))
        _checks.at_least("seed", self.seed, 0)


@dataclass(frozen=True)
class MixupConfig:
    """How sentences are mixed, decoded and fed to training."""

    __pydantic_config__ = {"extra": "forbid"}

    enabled: bool = field(default=True, metadata=_help("Whether anything is mixed."))
    aligner: str = field(default="embedded", metadata=_help("embedded, a folder, or a Hub id."))
    revision: str | None = field(default=None, metadata=_help("Hub revision of the aligner."))
    quantization: str | None = field(
        default=None, metadata=_help("4bit or none; default: 4bit on CUDA, none elsewhere.")
    )
    engine: str = field(
        default="auto",
        metadata=_help(
            "What decodes: transformers; fast, the LLM packed for a CPU; auto, fast where it can; "
            "vllm:http://host:8000, a vLLM server."
        ),
    )
    server_timeout: float = field(
        default=120.0, metadata=_help("With a server: seconds that a sentence may take.")
    )
    max_inflight: int = field(
        default=64, metadata=_help("With a server: sentences asked for at a time.")
    )
    server_fallback: bool = field(
        default=False,
        metadata=_help("With a server: decode here, and say so, once it cannot; else stop."),
    )
    reuse: bool = field(
        default=True,
        metadata=_help("Take sentences that an earlier run with the same settings decoded."),
    )
    rows_file: str | None = field(
        default=None,
        metadata=_help(
            "Rows made before, by `mixup-hf augment` or a run that mixed: no LLM is loaded."
        ),
    )
    method: str = field(
        default="inversed-mixup",
        metadata=_help(
            "inversed-mixup, smotext or structure-preserving: sets weights, pairing, "
            "interpolation and source where those are left empty."
        ),
    )
    weights: str = field(
        default="",
        metadata=_help(
            "Distribution of lambda: beta:A, uniform, fixed:W, epbeta:eps=E, dirichlet:A,m=M."
        ),
    )
    interpolation: str = field(
        default="", metadata=_help("How embeddings are mixed: linear, linear_renorm, slerp.")
    )
    pairing: str = field(
        default="",
        metadata=_help(
            "Who is mixed: same_class, random, cross_class, smote, local, minority, near_target."
        ),
    )
    source: str = field(
        default="",
        metadata=_help(
            "Whose embeddings are mixed: frozen, the aligner's own encoder's; task, those of the "
            "model in training, which the aligner then follows."
        ),
    )
    warmup_epochs: int = field(
        default=1, metadata=_help("With source task: epochs on real rows before anything is mixed.")
    )
    refine_steps: int = field(
        default=32, metadata=_help("With source task: steps by which the aligner is refined.")
    )
    max_staleness: float = field(
        default=0.2,
        metadata=_help("With source task: nats/token of staleness that call for a refresh."),
    )
    num_neighbors: int = field(
        default=5, metadata=_help("Neighbours that smote and local choose from.")
    )
    sampling_strategy: str | float | dict[str | int, int] | None = field(
        default=None,
        metadata=_help(
            "Rows of which class: auto, minority, not minority, all, a ratio, or counts by class; "
            "default: all rows alike."
        ),
    )
    intrusion: str = field(
        default="drop",
        metadata=_help(
            "What is done with a sentence whose label is doubtful: keep, drop, resample, relabel, "
            "blend, local, weight; off judges nothing."
        ),
    )
    judges: tuple[str, ...] = field(
        default=("knn",), metadata=_help("Who says what a sentence is: knn, classifier, llm.")
    )
    intrusion_rate: float = field(
        default=0.05, metadata=_help("Share of real rows that the judges may doubt.")
    )
    max_redraws: int = field(
        default=4, metadata=_help("How often a doubtful sentence is made anew.")
    )
    leaks: str = field(
        default="drop",
        metadata=_help(
            "What is done with a sentence that is nearly an evaluation text: drop, fail or off."
        ),
    )
    mix_ratio: float = field(default=0.5, metadata=_help("Share of mixed rows in a batch, [0, 1)."))
    mixed_weight: float = field(default=1.0, metadata=_help("Weight of a mixed row in the loss."))
    refill_every: int = field(
        default=1, metadata=_help("Epochs between fresh sentences; 0 makes them once.")
    )
    background: bool = field(
        default=False,
        metadata=_help("Make the next refill's sentences in a thread while training goes on."),
    )
    auto_off: bool = field(
        default=False,
        metadata=_help(
            "Stop mixing when the development set says, with 95 % confidence, that the model gets "
            "worse on it."
        ),
    )
    on_failure: str = field(
        default="stop",
        metadata=_help(
            "When sentences cannot be made: stop; or real_rows: say so and go on (one process)."
        ),
    )
    rows_per_refill: int | None = field(
        default=None, metadata=_help("Sentences per refill; default: what is used until the next.")
    )
    max_new_tokens: int = field(default=40, metadata=_help("Longest sentence, in tokens."))
    temperature: float = field(default=0.7, metadata=_help("0 decodes greedily."))
    top_p: float = field(default=0.95, metadata=_help("Nucleus of the sampling."))
    top_k: int = field(default=50, metadata=_help("Tokens considered at each step."))
    num_candidates: int = field(
        default=1, metadata=_help("Sentences decoded per mix; the closest to it is kept.")
    )
    chunk_size: int = field(
        default=256, metadata=_help("Pairs decoded at a time; part of what fixes the sentences.")
    )
    seed: int | None = field(
        default=None,
        metadata=_help("Seed of pairs, ratios, decoding and draws; default: the run's, else 0."),
    )

    def __post_init__(self) -> None:
        meant = preset(self.method)
        for name in ("weights", "pairing", "interpolation", "source"):
            if not getattr(self, name):
                object.__setattr__(self, name, getattr(meant, name))
        _checks.one_of("leaks", self.leaks, LEAK_POLICIES)
        check_mix_ratio(self.mix_ratio)
        _checks.positive("mixed_weight", self.mixed_weight)
        _checks.at_least("temperature", self.temperature, 0.0)
        _checks.positive("top_p", self.top_p)
        _checks.in_range("top_p", self.top_p, 0.0, 1.0)
        for name in ("top_k", "num_candidates", "max_new_tokens"):
            _checks.at_least(name, getattr(self, name), 1)
        if self.rows_per_refill is not None:
            _checks.at_least("rows_per_refill", self.rows_per_refill, 1)
        _checks.one_of("quantization", self.quantization, (None, "4bit", "none"))
        check_engine(self.engine)
        _checks.positive("server_timeout", self.server_timeout)
        _checks.at_least("max_inflight", self.max_inflight, 1)
        _checks.one_of("source", self.source, SOURCES)
        _checks.one_of("on_failure", self.on_failure, ("stop", "real_rows"))
        if self.background and self.source == "task":
            raise ValueError(
                "`background` cannot be had with `source` = 'task': sentences made ahead would be "
                "of a model that has moved on. Leave one of them out."
            )
        if self.rows_file is not None and (self.background or self.source == "task"):
            raise ValueError(
                f"`rows_file` = {self.rows_file!r} has its rows already: `background` and `source` "
                "= 'task' say how rows are made. Leave out one or the other."
            )
        _checks.at_least("warmup_epochs", self.warmup_epochs, 0)
        _checks.at_least("refine_steps", self.refine_steps, 1)
        _checks.at_least("max_staleness", self.max_staleness, 0.0)
        if self.seed is not None:
            _checks.at_least("seed", self.seed, 0)
        check_interpolation(self.interpolation, parse_weights(self.weights).num_parents)
        _checks.one_of("pairing", self.pairing, PAIRINGS)
        _checks.at_least("num_neighbors", self.num_neighbors, 1)
        _checks.one_of("intrusion", self.intrusion, ("off", *POLICIES))
        if not self.judges:
            raise _checks.bad("judges", "name at least one", self.judges, "Try judges=('knn',).")
        for judge in self.judges:
            _checks.one_of("judges", judge, JUDGES)
        _checks.positive("intrusion_rate", self.intrusion_rate)
        _checks.in_range("intrusion_rate", self.intrusion_rate, 0.0, 0.5)
        _checks.at_least("max_redraws", self.max_redraws, 0)
        if isinstance(self.sampling_strategy, str):
            _checks.one_of("sampling_strategy", self.sampling_strategy, STRATEGIES)
        _checks.at_least("chunk_size", self.chunk_size, 1)
        _checks.at_least("refill_every", self.refill_every, 0)


@dataclass(frozen=True)
class DataConfig:
    """The labelled texts: files, or a data set by name."""

    __pydantic_config__ = {"extra": "forbid"}

    train_file: str | None = field(default=None, metadata=_help("csv, jsonl or parquet."))
    test_file: str | None = field(default=None, metadata=_help("csv, jsonl or parquet."))
    dataset: str | None = field(default=None, metadata=_help("bbc_headlines, or a Hub id."))
    revision: str | None = field(default=None, metadata=_help("Hub revision of the data set."))
    text_column: str = field(default="text", metadata=_help("Column that holds the text."))
    text_pair_column: str | None = field(
        default=None, metadata=_help("Column of a second text, where rows are pairs of texts.")
    )
    label_column: str = field(default="label", metadata=_help("Column that holds the label."))
    shots: int | None = field(default=None, metadata=_help("Rows per class, drawn with `seed`."))
    max_length: int = field(default=128, metadata=_help("Longest text of the classifier, tokens."))

    def __post_init__(self) -> None:
        files = (self.train_file is not None, self.test_file is not None)
        if (self.dataset is None) != all(files) or (self.dataset is not None and any(files)):
            raise ValueError(
                "`data` must give either `dataset`, or both `train_file` and `test_file`, but got "
                f"dataset={self.dataset!r}, train_file={self.train_file!r}, "
                f"test_file={self.test_file!r}."
            )
        if self.shots is not None:
            _checks.at_least("data.shots", self.shots, 1)
        _checks.at_least("data.max_length", self.max_length, 4)


def check_no_auto_off(mixup: MixupConfig) -> None:
    """Raise `ValueError` for `auto_off` where there is a test split only: it must steer nothing."""
    if mixup.auto_off:
        raise ValueError(
            "`mixup.auto_off` would let the test split decide when mixing stops, and so spoil its "
            "scores. Use it in a script of your own, whose Trainer has a development set."
        )


@dataclass(frozen=True)
class FinetuneConfig:
    """A whole fine-tuning run; baseline and mixup differ only in `mixup`."""

    __pydantic_config__ = {"extra": "forbid"}

    data: DataConfig = field(metadata=_help("The labelled texts."))
    output_dir: str = field(metadata=_help("Where metrics, sentences and checkpoints go."))
    model: str = field(default="all-minilm-l6-v2", metadata=_help("Classifier to fine-tune."))
    model_revision: str | None = field(default=None, metadata=_help("Hub revision of the model."))
    seed: int = field(default=0, metadata=_help("Seed of the shots and of training."))
    training: dict[str, Any] = field(
        default_factory=dict, metadata=_help("Any of transformers' TrainingArguments.")
    )
    mixup: MixupConfig = field(default_factory=MixupConfig, metadata=_help("What is mixed, how."))

    def __post_init__(self) -> None:
        _checks.at_least("seed", self.seed, 0)
        for name in ("output_dir", "seed"):
            if name in self.training:
                raise ValueError(f"Set `{name}` at the top of the config, not in `training`.")
        check_no_auto_off(self.mixup)
        for name, value in self.training.items():
            if value in ("on", "off"):  # to TrainingArguments any word is true
                raise _checks.bad(f"training.{name}", "be true or false", value)

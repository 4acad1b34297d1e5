"""What can be set when an aligner is trained or measured."""

from __future__ import annotations

from dataclasses import dataclass, field

from mixup_hf import errors
from mixup_hf._fields import help_


@dataclass(frozen=True)
class StageConfig:
    """One stage of alignment training: what trains, for how long, how fast.

    A stage ends at `minutes` of training or at `max_steps`, whichever comes first; the learning
    rate follows the same clock, so a stage that runs out of time has still decayed to zero.
    """

    __pydantic_config__ = {"extra": "forbid"}

    name: str = field(metadata=help_("Folder name of the stage, below output_dir."))
    train_lexicon: bool = field(
        default=False, metadata=help_("Stage 0: the lexicon learns, and nothing else.")
    )
    train_projector: bool = field(default=True, metadata=help_("Whether the projector learns."))
    train_lora: bool = field(default=False, metadata=help_("Whether the LoRA learns."))
    minutes: float = field(default=60.0, metadata=help_("Time budget in minutes."))
    max_steps: int = field(default=1_000_000, metadata=help_("Bound on optimiser steps."))
    projector_lr: float = field(
        default=1e-3, metadata=help_("Peak learning rate of the projector, or of the lexicon.")
    )
    lora_lr: float = field(default=5e-4, metadata=help_("Peak learning rate of the LoRA."))
    warmup_steps: int = field(default=50, metadata=help_("Steps of linear warm-up."))
    decay_share: float = field(
        default=0.7, metadata=help_("Last share of the stage over which the rate falls to zero.")
    )

    def __post_init__(self) -> None:
        if not self.name or "/" in self.name:
            raise errors.bad("stages.name", "be a plain folder name", self.name)
        if not (self.train_lexicon or self.train_projector or self.train_lora):
            raise errors.InvalidInput(
                f"Stage {self.name!r} trains nothing: set `train_projector` or `train_lora`."
            )
        if self.train_lexicon and (self.train_projector or self.train_lora):
            raise errors.InvalidInput(
                f"Stage {self.name!r} trains the lexicon together with the projector or the LoRA. "
                "Give the lexicon a stage of its own, with `train_projector: false`."
            )
        errors.positive("stages.minutes", self.minutes)
        errors.at_least("stages.max_steps", self.max_steps, 1)
        errors.positive("stages.projector_lr", self.projector_lr)
        errors.positive("stages.lora_lr", self.lora_lr)
        errors.at_least("stages.warmup_steps", self.warmup_steps, 0)
        errors.in_range("stages.decay_share", self.decay_share, 0.0, 1.0)


@dataclass(frozen=True)
class TaskConfig:
    """Stage 2: labelled texts, the encoder's warm-up on them, and what is mixed in."""

    __pydantic_config__ = {"extra": "forbid"}

    file: str = field(metadata=help_("Labelled texts: csv, jsonl or parquet. Training rows only."))
    text_column: str = field(default="text", metadata=help_("Column that holds the text."))
    label_column: str = field(default="label", metadata=help_("Column that holds the label."))
    max_length: int = field(default=128, metadata=help_("Longest text, in tokens."))
    warm_up_epochs: float = field(default=3.0, metadata=help_("Passes of the supervised warm-up."))
    warm_up_lr: float = field(default=5e-5, metadata=help_("Its peak learning rate."))
    warm_up_batch_size: int = field(default=16, metadata=help_("Its rows per step and process."))
    unlabelled_share: float = field(
        default=0.5, metadata=help_("Share of `data` among the refinement's texts, [0, 1).")
    )

    def __post_init__(self) -> None:
        errors.at_least("task.max_length", self.max_length, 4)
        errors.positive("task.warm_up_epochs", self.warm_up_epochs)
        errors.positive("task.warm_up_lr", self.warm_up_lr)
        errors.at_least("task.warm_up_batch_size", self.warm_up_batch_size, 1)
        errors.in_range("task.unlabelled_share", self.unlabelled_share, 0.0, 0.99)


@dataclass(frozen=True)
class AlignConfig:
    """Alignment: which encoder and LLM, on which sentences, how large, how long."""

    __pydantic_config__ = {"extra": "forbid"}

    data: str = field(metadata=help_("Text file (.txt, .gz), a folder of them, or a Hub id."))
    output_dir: str = field(metadata=help_("Where checkpoints and the aligner are written."))
    cache_dir: str | None = field(
        default=None, metadata=help_("Where embeddings are kept; default: output_dir/cache.")
    )
    task: TaskConfig | None = field(
        default=None, metadata=help_("Stage 2: refine `start_from` for labelled texts.")
    )
    text_column: str = field(default="text", metadata=help_("Column of a Hub data set."))
    max_sentences: int = field(default=200_000, metadata=help_("How many sentences to read."))
    min_words: int = field(default=4, metadata=help_("Shortest sentence, in words."))
    max_words: int = field(default=20, metadata=help_("Longest sentence, in words."))
    holdout: int = field(default=256, metadata=help_("Sentences kept out of training."))
    encoder: str = field(
        default="all-minilm-l6-v2", metadata=help_("Encoder: folder, Hub id, name.")
    )
    encoder_revision: str | None = field(default=None, metadata=help_("Hub revision to pin."))
    pooling: str = field(default="mean", metadata=help_("mean, cls or last."))
    normalize: bool = field(default=True, metadata=help_("Scale embeddings to unit length."))
    encoder_prefix: str = field(
        default="", metadata=help_('Text the encoder wants before every input, such as "query: ".')
    )
    llm: str = field(default="smollm2-135m-instruct", metadata=help_("Causal LM to align."))
    llm_revision: str | None = field(default=None, metadata=help_("Hub revision to pin."))
    base_grid: str | None = field(
        default="nf4", metadata=help_("Weights to align to: nf4 or null.")
    )
    quantization: str = field(
        default="none",
        metadata=help_("4bit (QLoRA) trains a large LLM in a quarter of the memory, slower."),
    )
    start_from: str | None = field(
        default=None,
        metadata=help_("Aligner to go on from; its sizes and prompt count, not those given here."),
    )
    num_soft_tokens: int = field(default=4, metadata=help_("K, soft tokens per embedding."))
    projector_width: int = field(default=1024, metadata=help_("Hidden width of the projector."))
    num_hints: int = field(
        default=16, metadata=help_("M, words offered before the soft tokens; 0 for none.")
    )
    lexicon_sentences: int = field(
        default=300_000, metadata=help_("Further sentences, for the lexicon only.")
    )
    lexicon_from: str | None = field(
        default=None,
        metadata=help_("Take the lexicon of this aligner (embedded, a folder, a Hub id)."),
    )
    lexicon_epochs: int = field(default=2, metadata=help_("Passes over them, time permitting."))
    lexicon_words: int = field(default=18_000, metadata=help_("Most words the lexicon knows."))
    lexicon_common: int = field(
        default=60, metadata=help_("The most frequent words, which are never hints.")
    )
    lexicon_width: int = field(default=1024, metadata=help_("Hidden width of the lexicon."))
    lexicon_rank: int = field(default=224, metadata=help_("Rank of its output layer."))
    prompt_prefix: str = field(default="", metadata=help_("Text before the soft tokens."))
    prompt_suffix: str = field(default="", metadata=help_("Text after the soft tokens."))
    prompt_chat: bool = field(
        default=False, metadata=help_("Put the prompt into the LLM's chat template.")
    )
    noise: float = field(
        default=0.0, metadata=help_("Noise on embeddings in training, relative to their length.")
    )
    mix_share: float = field(
        default=0.0, metadata=help_("Share of embeddings mixed with a neighbour's in training.")
    )
    joined_share: float = field(
        default=0.0,
        metadata=help_("Share of texts that are two sentences, read from the mix of both."),
    )
    lora_r: int = field(default=16, metadata=help_("Rank of the LoRA."))
    lora_alpha: int = field(default=32, metadata=help_("Scale of the LoRA."))
    lora_layers: float = field(
        default=1.0, metadata=help_("Share of the LLM's layers with a LoRA, from the top.")
    )
    batch_tokens: int = field(default=1200, metadata=help_("Positions per batch and process."))
    max_grad_norm: float = field(default=1.0, metadata=help_("Gradient clipping."))
    bf16: bool = field(default=True, metadata=help_("Train under bf16 autocast."))
    log_steps: int = field(default=50, metadata=help_("Steps between log lines."))
    save_steps: int = field(default=250, metadata=help_("Steps between checkpoints."))
    eval_steps: int = field(default=500, metadata=help_("Steps between held-out checks."))
    eval_sentences: int = field(default=64, metadata=help_("Held-out sentences to invert then."))
    max_minutes: float | None = field(
        default=None, metadata=help_("Time for all stages; scales their minutes to fit.")
    )
    seed: int = field(default=0, metadata=help_("Seed of everything random."))
    ratio_pairs: int = field(
        default=100,
        metadata=help_("Pairs that the ratio curve is fitted on in the end; 0 fits none."),
    )
    use_cpu: bool = field(default=False, metadata=help_("Stay on the CPU even if there is a GPU."))
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
        metadata=help_("The stages, in order."),
    )

    def __post_init__(self) -> None:
        for name in ("max_sentences", "min_words", "holdout", "lora_r", "lora_alpha", "log_steps"):
            errors.at_least(name, getattr(self, name), 1)
        for name in ("save_steps", "eval_steps", "eval_sentences"):
            errors.at_least(name, getattr(self, name), 1)
        errors.at_least("max_words", self.max_words, self.min_words)
        errors.positive("max_grad_norm", self.max_grad_norm)
        if self.max_minutes is not None:
            errors.positive("max_minutes", self.max_minutes)
        if self.holdout >= self.max_sentences:
            raise errors.bad(
                "holdout", f"be below max_sentences ({self.max_sentences})", self.holdout
            )
        if not self.stages:
            raise errors.bad("stages", "name at least one stage", self.stages)
        names = [stage.name for stage in self.stages]
        if len(set(names)) < len(names):
            raise errors.bad("stages", "have a name of its own for each stage", names)
        errors.one_of("pooling", self.pooling, ("mean", "cls", "last"))
        errors.one_of("base_grid", self.base_grid, ("nf4", None))
        for name in ("num_soft_tokens", "projector_width"):
            errors.at_least(name, getattr(self, name), 1)
        errors.one_of("quantization", self.quantization, ("4bit", "none"))
        errors.at_least("ratio_pairs", self.ratio_pairs, 0)
        errors.at_least("noise", self.noise, 0.0)
        errors.in_range("mix_share", self.mix_share, 0.0, 1.0)
        errors.in_range("joined_share", self.joined_share, 0.0, 0.9)
        errors.positive("lora_layers", self.lora_layers)
        errors.in_range("lora_layers", self.lora_layers, 0.0, 1.0)
        if self.task is not None and self.start_from is None:
            raise errors.InvalidInput(
                "`task` refines an aligner that exists. Set `start_from` (embedded, a folder or a "
                "Hub id), or leave `task` out."
            )
        self._check_lexicon()

    def _check_lexicon(self) -> None:
        errors.at_least("num_hints", self.num_hints, 0)
        errors.at_least("lexicon_common", self.lexicon_common, 0)
        for name in ("lexicon_epochs", "lexicon_width", "lexicon_rank"):
            errors.at_least(name, getattr(self, name), 1)
        trained = [stage.name for stage in self.stages if stage.train_lexicon]
        given = self.start_from or self.lexicon_from
        if self.num_hints and not trained and given is None:
            raise errors.InvalidInput(
                f"`num_hints` = {self.num_hints} needs a lexicon, but no stage trains one. Add a "
                "first stage with `train_lexicon: true`, set `lexicon_from` or `start_from`, or "
                "set `num_hints: 0`."
            )
        if self.lexicon_from is not None and (trained or self.start_from or not self.num_hints):
            raise errors.InvalidInput(
                f"`lexicon_from` = {self.lexicon_from!r} gives a new aligner with hints a lexicon, "
                "but this one gets it from a stage or from `start_from`, or has `num_hints: 0`. "
                "Leave one of them out."
            )
        if trained and not self.num_hints:
            raise errors.InvalidInput(
                f"Stage {trained[0]!r} trains a lexicon, but `num_hints` = 0 never asks it. "
                "Leave the stage out, or set `num_hints` (16 is a good number)."
            )
        if self.num_hints:
            errors.at_least("lexicon_sentences", self.lexicon_sentences, 1)
            errors.at_least(
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

    data: str = field(metadata=help_("Text file (.txt, .gz), a folder of them, or a Hub id."))
    origins: str | None = field(
        default=None, metadata=help_("File with the origin of each line of data, to report by.")
    )
    text_column: str = field(default="text", metadata=help_("Column of a Hub data set."))
    max_sentences: int = field(default=300, metadata=help_("How many sentences to read."))
    min_words: int = field(default=4, metadata=help_("Shortest sentence, in words."))
    max_words: int = field(default=20, metadata=help_("Longest sentence, in words."))
    num_pairs: int = field(default=60, metadata=help_("Pairs for the lambda-recovery."))
    best_of: int = field(
        default=1, metadata=help_("1 decodes greedily; more keeps the closest of so many samples.")
    )
    quantization: str | None = field(
        default=None, metadata=help_("4bit or none; default: 4bit on CUDA, none elsewhere.")
    )
    dtype: str = field(
        default="float32",
        metadata=help_("float32, which gives the same figures on every CPU, or bfloat16."),
    )
    output_dir: str | None = field(
        default=None, metadata=help_("Where fidelity.json and fidelity.png go; none: only print.")
    )
    seed: int = field(default=0, metadata=help_("Seed of pairs and sampling."))

    def __post_init__(self) -> None:
        errors.at_least("max_sentences", self.max_sentences, 2)
        errors.at_least("min_words", self.min_words, 1)
        errors.at_least("max_words", self.max_words, self.min_words)
        errors.at_least("num_pairs", self.num_pairs, 2)
        errors.at_least("best_of", self.best_of, 1)
        errors.one_of("dtype", self.dtype, ("float32", "bfloat16"))
        errors.one_of("quantization", self.quantization, (None, "4bit", "none"))
        errors.at_least("seed", self.seed, 0)

"""What can be set when an aligner is trained."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from mixup_hf import errors
from mixup_hf.config._base import Number, Whole, settings
from mixup_hf.config._mixing_rules import Quantization


@settings
class StageConfig:
    """One stage of alignment training: what is trained, for how long, how fast.

    A stage ends after `minutes` of training or `max_steps`, whichever comes first. The learning
    rate follows the same clock, so a stage that runs out of time has still decayed to zero.
    """

    name: str = Field(description="Name of the stage; a folder of that name in output_dir.")
    train_lexicon: bool = Field(
        default=False,
        description="Train the lexicon (stage 0); nothing else may be trained with it.",
    )
    train_projector: bool = Field(default=True, description="Train the projector.")
    train_lora: bool = Field(default=False, description="Train the LoRA.")
    minutes: Number = Field(default=60.0, gt=0, description="Time budget in minutes.")
    max_steps: Whole = Field(default=1_000_000, ge=1, description="Most optimizer steps.")
    max_epochs: Number | None = Field(default=None, gt=0, description="Most passes over the data.")
    projector_lr: Number = Field(
        default=1e-3, gt=0, description="Peak learning rate of the projector, or of the lexicon."
    )
    lora_lr: Number = Field(default=5e-4, gt=0, description="Peak learning rate of the LoRA.")
    warmup_steps: Whole = Field(default=50, ge=0, description="Steps of linear warmup.")
    decay_share: Number = Field(
        default=0.7,
        ge=0,
        le=1,
        description="Final share of the stage over which the rate decays to zero.",
    )

    def __post_init__(self) -> None:
        if not self.name or "/" in self.name:
            raise errors.bad("name", "be a plain folder name", self.name)
        if not (self.train_lexicon or self.train_projector or self.train_lora):
            raise errors.InvalidInput(
                f"Stage {self.name!r} trains nothing: set `train_projector` or `train_lora`."
            )
        if self.train_lexicon and (self.train_projector or self.train_lora):
            raise errors.InvalidInput(
                f"Stage {self.name!r} trains the lexicon together with the projector or the LoRA. "
                "Give the lexicon a separate stage, with `train_projector: false`."
            )


@settings
class TaskConfig:
    """Stage 2: labelled texts, the encoder's warmup on them, and the unlabelled texts beside them.

    The encoder is fine-tuned on the labelled texts first; the aligner is then refined to it.
    """

    file: str = Field(
        description="Labelled texts: csv, jsonl or parquet. Training rows only, no test rows."
    )
    text_column: str = Field(default="text", description="Column of the text.")
    label_column: str = Field(default="label", description="Column of the label.")
    max_length: Whole = Field(default=128, ge=4, description="Longest text, in tokens.")
    warm_up_epochs: Number = Field(
        default=3.0, gt=0, description="Epochs of the supervised warmup."
    )
    warm_up_lr: Number = Field(default=5e-5, gt=0, description="Peak learning rate of the warmup.")
    warm_up_batch_size: Whole = Field(
        default=16, ge=1, description="Rows per step and process in the warmup."
    )
    unlabelled_share: Number = Field(
        default=0.5, ge=0, le=0.99, description="Share of `data` among the texts of the refinement."
    )


@settings
class AlignConfig:
    """Alignment: which encoder and LLM, on which sentences, how large, how long."""

    data: str = Field(description="Text file (.gz works), table, folder, or Hub id; see `align`.")
    output_dir: str = Field(description="Folder for checkpoints and the aligner.")
    cache_dir: str | None = Field(
        default=None, description="Folder for cached embeddings. By default output_dir/cache."
    )
    task: TaskConfig | None = Field(
        default=None, description="Stage 2: refine `start_from` for labelled texts."
    )
    text_column: str = Field(default="text", description="Text column of a table or Hub data set.")
    max_sentences: Whole = Field(default=200_000, ge=1, description="How many sentences to read.")
    min_words: Whole = Field(default=4, ge=1, description="Shortest sentence, in words.")
    max_words: Whole = Field(default=20, description="Longest sentence, in words.")
    holdout: Whole = Field(default=256, ge=1, description="Sentences held out of training.")
    encoder: str = Field(
        default="all-minilm-l6-v2", description="Sentence encoder: a name, a folder, or a Hub id."
    )
    encoder_revision: str | None = Field(default=None, description="Hub revision of the encoder.")
    pooling: Literal["mean", "cls", "last"] = Field(
        default="mean", description="How token states become one embedding."
    )
    normalize: bool = Field(default=True, description="Scale embeddings to unit length.")
    encoder_prefix: str = Field(
        default="", description='Text the encoder expects before every input, such as "query: ".'
    )
    llm: str = Field(default="smollm2-135m-instruct", description="Causal LM to align.")
    llm_revision: str | None = Field(default=None, description="Hub revision of the LLM.")
    base_grid: Literal["nf4"] | None = Field(
        default="nf4",
        description="Round the LLM's weights to this grid before training; null keeps them.",
    )
    quantization: Quantization = Field(
        default="none",
        description="4bit (QLoRA) trains a large LLM in a quarter of the memory, more slowly.",
    )
    start_from: str | None = Field(
        default=None,
        description="Aligner to continue from; its sizes, prompt and LoRA apply."
        " A `lora_*` setting that differs from it is an error.",
    )
    num_soft_tokens: Whole = Field(default=4, ge=1, description="K, the soft tokens per embedding.")
    projector_width: Whole = Field(default=1024, ge=1, description="Hidden width of the projector.")
    num_hints: Whole = Field(
        default=16, ge=0, description="M, the hint words before the soft tokens; 0 for none."
    )
    lexicon_sentences: Whole = Field(default=300_000, description="Further ones, for the lexicon.")
    lexicon_from: str | None = Field(
        default=None, description="Aligner whose lexicon is used: embedded, a folder, or a Hub id."
    )
    lexicon_epochs: Whole = Field(
        default=2, ge=1, description="Epochs of the lexicon, if its time budget allows."
    )
    lexicon_words: Whole = Field(
        default=18_000, description="Size of the lexicon's vocabulary, in words."
    )
    lexicon_common: Whole = Field(
        default=60, ge=0, description="The most frequent words, which are never used as hints."
    )
    lexicon_width: Whole = Field(default=1024, ge=1, description="Hidden width of the lexicon.")
    lexicon_rank: Whole = Field(
        default=224, ge=1, description="Rank of the lexicon's output layer."
    )
    lexicon_mix_share: Number = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Share of embeddings mixed with another, words and all, for the lexicon.",
    )
    guidance: Number = Field(
        default=0.0,
        ge=0,
        description="How strongly the lexicon of a new aligner guides decoding; 0.5 is good.",
    )
    guided_training: bool = Field(
        default=False,
        description="Guide in training too: the LLM then learns what the lexicon does not say.",
    )
    offered_share: Number = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Share of sentences hinted by their own words, and another's that do not fit.",
    )
    prompt_prefix: str = Field(default="", description="Prompt text before the soft tokens.")
    prompt_suffix: str = Field(default="", description="Prompt text after the soft tokens.")
    prompt_chat: bool = Field(
        default=False, description="Wrap the prompt in the LLM's chat template."
    )
    noise: Number = Field(
        default=0.0,
        ge=0,
        description="Noise added to embeddings in training, relative to their length.",
    )
    mix_share: Number = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Share of embeddings mixed with a neighbor's in training.",
    )
    joined_share: Number = Field(
        default=0.0,
        ge=0,
        le=0.9,
        description="Share of texts that join two sentences, to be decoded from the mix of both.",
    )
    lora_r: Whole | None = Field(
        default=None,
        ge=1,
        description="Rank of the LoRA. By default 16, or that of `start_from`.",
    )
    lora_alpha: Whole | None = Field(
        default=None,
        ge=1,
        description="Scale of the LoRA. By default 32, or that of `start_from`.",
    )
    lora_layers: Number | None = Field(
        default=None,
        gt=0,
        le=1,
        description="Share of the LLM's layers with a LoRA, from the top. By default 1, or the "
        "layers of `start_from`.",
    )
    batch_tokens: Whole = Field(default=1200, ge=1, description="Positions per batch and process.")
    max_grad_norm: Number = Field(
        default=1.0, gt=0, description="Norm to which gradients are clipped."
    )
    bf16: bool | None = Field(default=None, description="bf16 autocast; by default where fast.")
    log_steps: Whole = Field(default=50, ge=1, description="Steps between log lines.")
    save_steps: Whole = Field(default=250, ge=1, description="Steps between checkpoints.")
    eval_steps: Whole = Field(
        default=500, ge=1, description="Steps between evaluations on the holdout."
    )
    eval_sentences: Whole = Field(
        default=64, ge=1, description="Held-out sentences decoded in each evaluation."
    )
    max_minutes: Number | None = Field(
        default=None, gt=0, description="Time for all stages together; scales their minutes to fit."
    )
    seed: Whole = Field(default=0, description="Seed of everything random.")
    ratio_pairs: Whole = Field(
        default=100,
        ge=0,
        description="Pairs to fit the ratio curve on after training; 0 fits none.",
    )
    use_cpu: bool = Field(default=False, description="Train on the CPU even if there is a GPU.")
    stages: tuple[StageConfig, ...] = Field(
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
        min_length=1,
        description="The stages, in order.",
    )

    def __post_init__(self) -> None:
        errors.at_least("max_words", self.max_words, self.min_words)
        if self.holdout >= self.max_sentences:
            raise errors.bad(
                "holdout", f"be below max_sentences ({self.max_sentences})", self.holdout
            )
        names = [stage.name for stage in self.stages]
        if len(set(names)) < len(names):
            raise errors.bad("stages", "have a different name each", names)
        if self.task is not None and self.start_from is None:
            raise errors.InvalidInput(
                "`task` refines an existing aligner. Set `start_from` (embedded, a folder or a "
                "Hub id), or leave `task` out."
            )
        self._check_lexicon()

    def _check_lexicon(self) -> None:
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
                f"`lexicon_from` = {self.lexicon_from!r} provides the lexicon of a new aligner "
                "with hints, but this one gets it from a stage or from `start_from`, or has "
                "`num_hints: 0`. Leave one of them out."
            )
        if trained and not self.num_hints:
            raise errors.InvalidInput(
                f"Stage {trained[0]!r} trains a lexicon, but `num_hints` = 0 never uses it. "
                "Leave the stage out, or set `num_hints`; 16 is a good value."
            )
        if self.num_hints:
            errors.at_least("lexicon_sentences", self.lexicon_sentences, 1)
            least = self.num_hints + self.lexicon_common
            errors.at_least("lexicon_words", self.lexicon_words, least)

    @property
    def trains_lexicon(self) -> bool:
        """Whether a stage trains the lexicon."""
        return any(stage.train_lexicon for stage in self.stages)

    def stage_minutes(self, stage: StageConfig) -> float:
        """The stage's time budget, scaled so that all stages fit `max_minutes`."""
        if self.max_minutes is None:
            return stage.minutes
        return stage.minutes * self.max_minutes / sum(each.minutes for each in self.stages)

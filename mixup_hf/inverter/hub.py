"""Saving an inverter's aligner, exporting its LLM, and pushing the aligner to the Hub."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import torch
from huggingface_hub import HfApi, ModelCard
from huggingface_hub.errors import HfHubHTTPError

from mixup_hf import errors
from mixup_hf.inverter.checkpoint import load_aligner, save_checkpoint
from mixup_hf.inverter.lora import LORA_FOLDER

if TYPE_CHECKING:
    from mixup_hf.inverter.model import Inverter

# The errors of its HTTP library, whichever that is, and of the network and the disk.
_FAILURES: tuple[type[BaseException], ...] = (*HfHubHTTPError.__bases__, OSError)
CHECKPOINT_FILES = (
    "config.json",
    "model.safetensors",
    "README.md",
    f"{LORA_FOLDER}/adapter_config.json",
    f"{LORA_FOLDER}/adapter_model.safetensors",
)


def save_inverter(inverter: Inverter, folder: str | Path, card: ModelCard | None = None) -> Path:
    """Write the aligner of an inverter; a merged LoRA is copied from where it was loaded."""
    target = save_checkpoint(folder, inverter.aligner, inverter.llm, card)
    lora = inverter.folder / LORA_FOLDER if inverter.folder is not None else None
    if lora is not None and lora.is_dir() and lora.resolve() != (target / LORA_FOLDER).resolve():
        shutil.copytree(lora, target / LORA_FOLDER, dirs_exist_ok=True)
    return target


def export_merged_llm(inverter: Inverter, folder: str | Path, dtype: torch.dtype) -> Path:
    """Write the LLM with its LoRA merged in, and its tokenizer.

    Raises:
        InvalidInput: The LLM has 4-bit weights, into which nothing can be merged.
    """
    if hasattr(inverter.llm, "peft_config"):
        raise errors.bad(
            "quantization", "be 'none' to export the LLM with its LoRA", inverter.quantization
        )
    copy.deepcopy(inverter.llm).to(dtype).save_pretrained(folder)
    inverter.tokenizer.save_pretrained(folder)
    return Path(folder)


def push_inverter(
    inverter: Inverter,
    repo_id: str,
    card: ModelCard | None,
    *,
    private: bool = False,
    token: str | None = None,
) -> str:
    """Upload the aligner of an inverter; without a card, with the one it was loaded with."""
    with TemporaryDirectory() as scratch:
        folder = save_inverter(inverter, scratch, card)
        kept = inverter.folder / "README.md" if inverter.folder is not None else None
        if card is None and kept is not None and kept.is_file():
            shutil.copyfile(kept, folder / "README.md")
        return push_folder(folder, repo_id, private=private, token=token)


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
        AlignerMismatchError: The folder is not a readable aligner checkpoint.
        InvalidState: The upload failed.
    """
    load_aligner(Path(folder))
    _refuse_links(Path(folder))
    api = HfApi(token=token)
    with uploading(repo_id):
        api.create_repo(repo_id, private=private, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repo_id,
            folder_path=folder,
            allow_patterns=list(CHECKPOINT_FILES),
            commit_message="Upload aligner",
        )
    return str(commit.commit_url)


@contextmanager
def uploading(repo_id: str) -> Iterator[None]:
    """Say what can be done where the Hub refuses an upload or cannot be reached.

    Raises:
        InvalidState: The upload failed.
    """
    try:
        yield
    except _FAILURES as error:
        cause = " ".join(str(error).split())[:300] or type(error).__name__
        raise errors.InvalidState(
            f"The upload to {repo_id!r} failed: {cause}. Check that the Hub can be reached "
            "(HF_HUB_OFFLINE is not set), that you are logged in (`hf auth login`) with a token "
            "that may write, and that the repository is yours. The same command tries again."
        ) from error


def _refuse_links(folder: Path) -> None:
    """Raise for links to files elsewhere: what they name would be uploaded, be it private or not.

    The Hub's own cache is made of links into its `blobs`.
    """
    home = folder.resolve()
    blobs = home.parent.parent / "blobs"
    for name in CHECKPOINT_FILES:
        real = (folder / name).resolve()
        if not (real.is_relative_to(home) or real.is_relative_to(blobs)):
            raise errors.InvalidInput(
                f"{folder / name} is a link to {real}, outside of the checkpoint. Replace it by a "
                "copy if that file is to be public."
            )

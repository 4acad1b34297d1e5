"""Models and tokenizers from folders: safetensors only, complete, finite, no code of their own.

A folder may come from anywhere. Whatever is wrong with it is one error that names the folder.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from mixup_hf import errors

_READ = (".json", ".safetensors", ".txt", ".model", ".jinja")
# Weights that models of this library do without: a checkpoint of another task lacks them.
_SPARE = ("pooler.",)


class UnreadableModel(errors.InvalidInput):
    """The folder of a model is damaged, incomplete, or asks for something that is never done."""


def load_model(kind: Any, folder: str | Path, *, complete: bool = True, **settings: Any) -> Any:
    """Load a transformers model.

    Args:
        kind: One of transformers' auto classes.
        folder: The model's folder.
        complete: Refuse a folder that lacks some of the model's weights, which transformers would
            draw at random. A classifier's new head needs False.
        **settings: Keyword arguments of `kind.from_pretrained`.

    Raises:
        UnreadableModel: The folder is damaged or incomplete, has other weights than safetensors,
            weights that are no finite numbers, file names that lead out of it, or needs code of its
            own.
    """
    with readable(folder):
        check_files(folder)
        model, info = kind.from_pretrained(
            folder,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
            **settings,
        )
        missing = sorted(each for each in info["missing_keys"] if not each.startswith(_SPARE))
        if complete and missing:
            raise ValueError(f"{len(missing)} weights are missing, such as {missing[0]}")
        require_finite(dict(model.named_parameters()))
    return model


def load_tokenizer(folder: str | Path) -> PreTrainedTokenizerBase:
    """Load a transformers tokenizer.

    Raises:
        UnreadableModel: Its files are damaged or missing, or it needs code of its own.
    """
    with readable(folder):
        check_files(folder)
        tokenizer: Any = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    found: PreTrainedTokenizerBase = tokenizer
    return found


@contextmanager
def readable(folder: str | Path) -> Iterator[None]:
    """Turn whatever goes wrong while a model's folder is read into an error that names it.

    Raises:
        UnreadableModel: Something went wrong.
    """
    try:
        yield
    except errors.MixupError:
        raise
    except Exception as error:  # transformers, tokenizers and safetensors raise many kinds
        reason = " ".join(str(error).split())[:400] or type(error).__name__
        raise UnreadableModel(
            f"The model in {folder} cannot be read ({reason}). It is damaged, incomplete or of a "
            "kind that is not supported: models need safetensors weights, and code that comes with "
            "a model is never run. Fetch it again, or name another one."
        ) from error


def check_files(folder: str | Path) -> None:
    """Raise for files that are pipes, devices or dead links, or that lead out of the folder.

    Raises:
        UnreadableModel: There is one.
    """
    for path in sorted(Path(folder).glob("*")):
        if path.suffix in _READ and not path.is_file():
            raise UnreadableModel(
                f"{path} is not a file (but a folder, a device, a pipe or a link to nothing). "
                "Fetch the model again."
            )
        if path.name.endswith(".index.json"):
            _check_index(path)


def _check_index(path: Path) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    for name in content["weight_map"].values():
        if Path(name).name != name:
            raise UnreadableModel(
                f"{path} names weights outside of its folder: {name!r}. Fetch the model again, and "
                "do not use it if that is how it was published."
            )


def require_finite(state: dict[str, torch.Tensor]) -> None:
    """Raise for NaN or infinite weights, which would decode to nonsense without an error.

    Raises:
        ValueError: There are some.
    """
    for name, value in state.items():
        if value.is_floating_point() and not value.isfinite().all():
            raise ValueError(f"{name} has values that are not finite (NaN or infinity)")

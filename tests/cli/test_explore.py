"""`mixup-hf explore`: what it refuses before any model is loaded, and how it starts and ends."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable
from pathlib import Path
from socket import socket
from typing import Any

import pytest
from tiny import make_rows
from typer.testing import CliRunner

from mixup_hf.cli import main as cli
from mixup_hf.errors import InvalidInput, MissingFile, MissingPackage
from mixup_hf.explorer import server


def explore(*arguments: object) -> str:
    result = CliRunner().invoke(cli.app, ["explore", *map(str, arguments)])
    if result.exception is not None:
        raise result.exception
    return result.output


@pytest.fixture
def data(tmp_path: Path) -> Path:
    texts, labels = make_rows(24)
    rows = [{"text": text, "kind": f"k{label}"} for text, label in zip(texts, labels, strict=True)]
    path = tmp_path / "train.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_it_serves_the_page_on_this_machine_until_it_is_interrupted(
    data: Path, saved_aligner: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("gradio")
    answers: list[str] = []
    options = ("--label-column", "kind", "--aligner", saved_aligner(), "--port", 0)
    with monkeypatch.context() as patch:
        patch.setattr(server, "wait", lambda: None)
        serve = server.serve

        def asked(session: Any, *, on_ready: Callable[[str], object], **where: Any) -> None:
            def ready(url: str) -> None:
                with urllib.request.urlopen(url) as answer:
                    answers.append(answer.read().decode())
                on_ready(url)

            serve(session, on_ready=ready, **where)

        patch.setattr(server, "serve", asked)
        printed = explore(data, *options)
    assert printed.startswith("Starting: models and rows are loaded …\n")
    assert "http://127.0.0.1:" in printed and "Ctrl-C" in printed
    assert "mixup-hf explore" in answers[0] and "24 rows, 3 classes" in answers[0]
    assert "fonts.googleapis.com" not in answers[0]


def test_ctrl_c_is_the_way_to_end_it(monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupted:
        def wait(self) -> None:
            raise KeyboardInterrupt

    monkeypatch.setattr(server, "Event", Interrupted)
    server.wait()


def test_bad_options_are_refused_before_models_are_loaded(data: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="`--output` must be a new file"):
        explore(data, "--output", data)
    with pytest.raises(InvalidInput, match="`format` must be one of"):
        explore(data, "--output", tmp_path / "kept.txt")
    with pytest.raises(InvalidInput, match="`--port` must lie in"):
        explore(data, "--port", 70000)
    with socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(InvalidInput, match=r"cannot be served at .*use.* 0 takes any"):
            explore(data, "--port", taken.getsockname()[1])
    with pytest.raises(InvalidInput, match="`--host` 203.0.113.7"):
        explore(data, "--host", "203.0.113.7")
    with pytest.raises(MissingFile, match="There is no file"):
        explore(tmp_path / "nothing.jsonl")
    with pytest.raises(InvalidInput, match="`label_column` must be a column of"):
        explore(data, "--label-column", "topic")


def test_without_gradio_the_extra_is_named(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(module: str) -> Any:
        raise ModuleNotFoundError(f"No module named {module!r}", name="gradio")

    monkeypatch.setattr("mixup_hf.errors.import_module", missing)
    with pytest.raises(MissingPackage, match=r"needs gradio.*pip install 'mixup_hf\[explore\]'"):
        explore(data)

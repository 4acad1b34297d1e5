"""Generated rows to the Hub and back, against a hub on this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hub_stub import HubStub
from huggingface_hub import DatasetCard
from mixed_files import NAMES, TEXTS, MixedFile, make_mixed

from mixup_hf import OfflineMixup, errors
from mixup_hf.data.row_files import mixed_json, read_mixed
from mixup_hf.data.row_writer import write_rows
from mixup_hf.generation.data_card import NOT_AUDITED, data_card
from mixup_hf.generation.publishing import DATA_FILE, push_rows

REPO = "user/rows"
ROWS = [
    replace(
        row,
        label=tuple(round(share, 6) for share in row.label),  # as files have them
        text=f"generated sentence {at}",
        votes={"encoder": (0.5, 0.25, 0.25)} if at % 2 else {},
        mitigation="parent" if at == 5 else "none",
    )
    for at, row in enumerate(make_mixed())
]
PULL = f"""
import json
from datasets import load_dataset
rows = load_dataset({REPO!r}, split="train")
print("ROWS" + json.dumps([dict(row) for row in rows]))
"""


def run(hub: HubStub, home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run in a process of its own: the Hub's client reads its address once, at import."""
    environment = os.environ | {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(home),
        "HF_TOKEN": "dummy",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_OFFLINE": "0",
        "HF_DATASETS_OFFLINE": "0",
    }
    done = subprocess.run(
        [sys.executable, *words], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done


def without_nulls(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if value is not None}


def test_pushed_rows_come_back_without_a_training_text(tmp_path: Path) -> None:
    file = MixedFile(tmp_path / "rows.jsonl", ROWS)()
    audit = tmp_path / "audit.json"
    audit.write_text(json.dumps({"rows": 6, "verdict": "Nothing was found."}))
    with HubStub() as hub:
        words = ["-m", "mixup_hf", "push-dataset", str(file), REPO, "--license", "cc-by-4.0"]
        done = run(hub, tmp_path / "home", *words, "--audit", str(audit), "--source", "user/texts")
        stored = hub.repos[f"datasets/{REPO}"]
        pulled = run(hub, tmp_path / "home", "-c", PULL).stdout.partition("ROWS")[2]
    assert "1 rows repeat real texts and were left out" in done.stdout
    assert "pushed 5 rows: " in done.stdout
    assert set(stored) == {DATA_FILE, "README.md"}
    for text in TEXTS:
        assert not any(text.encode() in content for content in stored.values())
    assert str(tmp_path).encode() not in b"".join(stored.values())

    rows = [without_nulls(row) for row in json.loads(pulled)]
    assert len(rows) == 5 and "parent_texts" not in rows[0]
    back = tmp_path / "pulled.parquet"
    back.write_bytes(stored[DATA_FILE])
    assert read_mixed(back, TEXTS, NAMES) == ROWS[:5]
    assert [row["soft_label"] for row in rows] == [
        mixed_json(row, None, NAMES)["soft_label"] for row in ROWS[:5]
    ]

    card = DatasetCard(stored["README.md"].decode())
    assert card.data.license == "cc-by-4.0"
    assert card.data.source_datasets == ["user/texts"]
    shown = card.text
    assert "Audited (6 rows). Nothing was found." in shown
    assert "A committee (encoder)" in shown
    assert f"`{ROWS[0].aligner_fingerprint}`" in shown


@pytest.mark.parametrize("format", ["csv", "parquet"])
def test_parents_are_uploaded_on_request(
    tmp_path: Path, format: str, uploads: dict[str, bytes]
) -> None:
    file = tmp_path / f"rows.{format}"
    write_rows(file, [mixed_json(row, TEXTS, NAMES) for row in ROWS])
    pushed = push_rows(file, REPO, license="mit", parents=True)
    assert (pushed.rows, pushed.left_out) == (6, 0)
    back = tmp_path / "back.parquet"
    back.write_bytes(uploads[DATA_FILE])
    assert read_mixed(back, TEXTS, NAMES) == ROWS
    assert "`parent_texts` holds training texts." in uploads["README.md"].decode()
    assert NOT_AUDITED in uploads["README.md"].decode()


@pytest.fixture
def uploads(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """What a push uploads, without a hub."""
    from huggingface_hub import HfApi

    held: dict[str, bytes] = {}

    class Commit:
        commit_url = "commit"

    def upload(self: HfApi, *, folder_path: str, **_: object) -> Commit:
        for path in Path(folder_path).rglob("*"):
            if path.is_file():
                held[str(path.relative_to(folder_path))] = path.read_bytes()
        return Commit()

    monkeypatch.setattr(HfApi, "create_repo", lambda self, repo, **_: None)
    monkeypatch.setattr(HfApi, "upload_folder", upload)
    return held


def test_the_plugin_for_rows_of_a_file_pushes_them(
    tmp_path: Path, uploads: dict[str, bytes]
) -> None:
    file = MixedFile(tmp_path / "rows.jsonl", ROWS)()
    assert OfflineMixup(file).push_to_hub(REPO, license="mit") == "commit"
    assert set(uploads) == {DATA_FILE, "README.md"}


def test_text_and_label_are_enough(tmp_path: Path, uploads: dict[str, bytes]) -> None:
    file = tmp_path / "rows.csv"
    file.write_text("text,label,note\none,a,kept by hand\ntwo,b,\n")
    # They do not say whether they repeat training texts.
    with pytest.raises(errors.InvalidInput, match=r"mitigation, method.*--parents"):
        push_rows(file, REPO, license="mit")
    push_rows(file, REPO, license="mit", parents=True)
    assert "assume that some of them do" in uploads["README.md"].decode()
    back = tmp_path / "back.parquet"
    back.write_bytes(uploads[DATA_FILE])
    assert [row.text for row in read_mixed(back, ["x"], ["a", "b"])] == ["one", "two"]
    assert "is not recorded" in uploads["README.md"].decode()


def test_the_card_names_no_folder_of_this_machine() -> None:
    record = mixed_json(ROWS[0], None, NAMES)
    for aligner, shown in (("embedded", True), ("/home/someone/aligner", False)):
        card = data_card([record], {"settings": {"aligner": aligner}}, name=REPO, licence="mit")
        assert (aligner in card.text) is shown


@pytest.mark.parametrize(
    "repo, options, message",
    [
        ("rows", {}, "`repo_id` must be USER/NAME"),
        (REPO, {"license": "CC BY 4.0"}, "`license` must be a licence as the Hub spells it"),
        (REPO, {"audit": "none.json"}, "`audit`: there is no file"),
        (REPO, {"audit": __file__}, "`audit` must be figures of"),
        (REPO, {"parents": True}, "has no column `parent_texts`"),
    ],
)
def test_what_cannot_be_pushed_is_refused_before_the_hub_is_asked(
    tmp_path: Path, repo: str, options: dict[str, Any], message: str
) -> None:
    file = tmp_path / "rows.jsonl"
    write_rows(file, [mixed_json(row, None, NAMES) for row in ROWS])
    with pytest.raises(errors.MixupError, match=message):
        push_rows(file, repo, **{"license": "mit"} | options)


def test_a_row_that_is_one_of_its_parents_is_left_out_whatever_it_says(
    tmp_path: Path, uploads: dict[str, bytes]
) -> None:
    file = tmp_path / "rows.jsonl"
    own = replace(ROWS[0], text=TEXTS[ROWS[0].parents[0]], mitigation="edited")
    write_rows(file, [mixed_json(row, TEXTS, NAMES) for row in (own, ROWS[1])])
    pushed = push_rows(file, REPO, license="mit")
    assert (pushed.rows, pushed.left_out) == (1, 1)


def test_rows_that_all_repeat_training_texts_are_not_pushed(tmp_path: Path) -> None:
    file = MixedFile(tmp_path / "rows.jsonl", [replace(ROWS[0], mitigation="parent")])()
    with pytest.raises(errors.InvalidInput, match="repeat training texts"):
        push_rows(file, REPO, license="mit")


def test_an_upload_that_the_hub_refuses_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    def refused(self: object, *args: object, **kwargs: object) -> None:
        raise huggingface_hub.errors.OfflineModeIsEnabled("Cannot reach the hub: offline mode.")

    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", refused)
    file = MixedFile(tmp_path / "rows.jsonl", ROWS)()
    with pytest.raises(errors.InvalidState, match="offline mode.*`hf auth login`"):
        push_rows(file, REPO, license="mit")

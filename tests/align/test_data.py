from __future__ import annotations

import gzip
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from tiny import FakeEncoder, make_rows, word_tokenizer

from mixup_hf.align import data
from mixup_hf.align.data import cached_embeddings, read_sentences, read_with_origins
from mixup_hf.errors import InvalidInput
from mixup_hf.inverter.batches import IGNORED, TokenBudgetBatches, unwrap


def read(source: Path, **settings: int) -> list[str]:
    limits = {"min_words": 2, "max_words": 4, "limit": 100} | settings
    return read_sentences(str(source), text_column="text", **limits)


def make_batches(batch_tokens: int = 64, seed: int = 0) -> TokenBudgetBatches:
    sentences, _ = make_rows(60)
    return TokenBudgetBatches(
        sentences,
        np.arange(60 * 4, dtype=np.float16).reshape(60, 4),
        word_tokenizer(classifier=False),
        prompt_length=3,
        batch_tokens=batch_tokens,
        end_id=5,
        seed=seed,
    )


def test_sentences_are_filtered_by_length_and_limited(tmp_path: Path) -> None:
    file = tmp_path / "s.txt"
    file.write_text(
        "one\ntwo words\n\n three short words \nfive words are too many\nfour words it is\n"
    )
    assert read(file) == ["two words", "three short words", "four words it is"]
    assert read(file, limit=1) == ["two words"]


def test_gz_and_folders_are_read(tmp_path: Path) -> None:
    for number, text in enumerate(["first file", "second file"]):
        with gzip.open(tmp_path / f"sentences-{number}.txt.gz", "wt") as stream:
            stream.write(text + "\n")
    assert read(tmp_path / "sentences-1.txt.gz") == ["second file"]
    assert read(tmp_path) == ["first file", "second file"]


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_tables_are_read_by_their_column_and_not_as_lines(tmp_path: Path, kind: str) -> None:
    texts = ["one two, three", "four", "five six seven"]
    table, file = Dataset.from_dict({"said": texts, "label": [0, 1, 0]}), tmp_path / f"rows.{kind}"
    write = {"csv": table.to_csv, "jsonl": table.to_json, "parquet": table.to_parquet}
    write[kind](str(file))
    bounds = {"text_column": "said", "min_words": 2, "max_words": 20, "limit": 9}
    assert read_sentences(str(file), **bounds) == [texts[0], texts[2]]
    with pytest.raises(InvalidInput, match="text_column.*said, label"):
        read_sentences(str(file), **bounds | {"text_column": "text"})
    (tmp_path / "origins.txt").write_text("a\nb\nc\n")
    found = read_with_origins(str(file), str(tmp_path / "origins.txt"), **bounds)
    assert found == ([texts[0], texts[2]], ["a", "c"])


@pytest.mark.parametrize("name", ["rows.jsonl.gz", "rows.tsv", "rows.CSV", "rows.csv.gz"])
def test_tables_that_would_be_read_as_lines_are_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text('{"text": "one sentence of words"}\n')
    with pytest.raises(ValueError, match="`data` must be text with one sentence a line"):
        read_sentences(str(path), text_column="text", min_words=1, max_words=9, limit=9)


def test_a_byte_order_mark_is_no_part_of_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "lines.txt"
    path.write_text("one sentence\n", encoding="utf-8-sig")
    found = read_sentences(str(path), text_column="text", min_words=1, max_words=9, limit=9)
    assert found == ["one sentence"]


def test_a_source_without_fitting_sentences_says_what_to_change(tmp_path: Path) -> None:
    file = tmp_path / "s.txt"
    file.write_text("one\n")
    with pytest.raises(ValueError, match="min_words"):
        read(file)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read(tmp_path / "nowhere.txt")


def test_every_sentence_is_in_one_batch_within_the_budget() -> None:
    batches = make_batches()
    rows = np.concatenate(batches.batches)
    assert sorted(rows.tolist()) == list(range(60))
    for index in range(len(batches)):
        batch = batches[index]
        count, width = batch["labels"].shape
        assert count * (width - 1 + 3) <= 64
        assert len(batch["embeddings"]) == count


def test_an_item_pairs_each_embedding_with_its_own_sentence() -> None:
    batches = make_batches()
    batch = unwrap([batches[2]])
    for line, row in enumerate(batches.batches[2]):
        tokens = [*batches.token_ids[row], 5]
        assert batch["embeddings"][line, 0].item() == row * 4
        labels = batch["labels"][line]
        assert labels[: len(tokens)].tolist() == tokens
        assert (labels[len(tokens) :] == IGNORED).all()


def test_the_seed_decides_who_shares_a_batch() -> None:
    first, again, other = make_batches(), make_batches(), make_batches(seed=1)
    as_lists = [[batch.tolist() for batch in each.batches] for each in (first, again, other)]
    assert as_lists[0] == as_lists[1] != as_lists[2]


class CountingEncoder(FakeEncoder):
    pooling, normalize, prefix, max_length, calls = "mean", True, "", 128, 0
    model = SimpleNamespace(dtype=torch.float32, device=torch.device("cpu"))

    def encode(self, texts: list[str]) -> torch.Tensor:
        self.calls += 1
        return super().encode(texts)


def test_embeddings_are_made_once_and_again_when_the_input_changes(tmp_path: Path) -> None:
    encoder = CountingEncoder()
    first = cached_embeddings(["one text", "another"], encoder, "f", tmp_path)  # type: ignore[arg-type]
    cached_embeddings(["one text", "another"], encoder, "f", tmp_path)  # type: ignore[arg-type]
    assert encoder.calls == 1
    assert first.shape == (2, 8)
    cached_embeddings(["one text", "changed"], encoder, "f", tmp_path)  # type: ignore[arg-type]
    cached_embeddings(["one text", "another"], encoder, "g", tmp_path)  # type: ignore[arg-type]
    assert encoder.calls == 3
    assert not list(tmp_path.glob("*partial*"))


@pytest.mark.parametrize(
    ("name", "value"),
    [("prefix", "query: "), ("max_length", 8), ("pooling", "cls"), ("normalize", False)],
)
def test_embeddings_are_made_again_when_the_encoder_embeds_otherwise(
    tmp_path: Path, name: str, value: object
) -> None:
    encoder: Any = CountingEncoder()
    cached_embeddings(["one text"], encoder, "f", tmp_path)
    setattr(encoder, name, value)
    cached_embeddings(["one text"], encoder, "f", tmp_path)
    assert encoder.calls == 2


def test_embeddings_are_made_again_in_another_precision(tmp_path: Path) -> None:
    encoder: Any = CountingEncoder()
    cached_embeddings(["one text"], encoder, "f", tmp_path)
    cached_embeddings(["one text"], encoder, "f", tmp_path, bf16=True)
    encoder.model = SimpleNamespace(dtype=torch.float16, device=torch.device("cpu"))
    cached_embeddings(["one text"], encoder, "f", tmp_path)
    assert encoder.calls == 3


@pytest.mark.parametrize("name", ["data/x.txt", "data/x.gz", "data/x.jsonl", "./x", "folder/x"])
def test_a_mistyped_path_is_not_asked_for_at_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    with pytest.raises(FileNotFoundError, match="neither an existing file or folder"):
        read(Path(name) if name[0] != "." else name)  # type: ignore[arg-type]


def test_a_user_and_a_name_are_a_hub_id(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "_hub_lines", lambda source, column: iter([f"{source} {column}"]))
    assert read(Path("user/name")) == ["user/name text"]

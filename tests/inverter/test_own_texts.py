"""An aligner trained on over a training set's own texts."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
from filelock import FileLock
from tiny import WORDS, make_inverter, make_rows

from mixup_hf import Inverter, errors, fetch_embedded
from mixup_hf.inverter import own_texts
from mixup_hf.inverter.own_texts import FEWEST, trained_on, usable_texts
from mixup_hf.inverter.quantization import Quantization

TEXTS, _ = make_rows(FEWEST + 20)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(own_texts, "default_cache_dir", lambda: tmp_path / "own-cache")
    return tmp_path / "own-cache" / "own-texts"


@pytest.fixture
def inverter(saved_aligner: Callable[..., Path]) -> Inverter:
    return Inverter.from_pretrained(str(saved_aligner(lora=True)))


def _weights(inverter: Inverter) -> list[torch.Tensor]:
    return [*inverter.aligner.state_dict().values(), *inverter.llm.state_dict().values()]


def test_enough_short_texts_of_one_kind_are_usable() -> None:
    short = [f"{first} {second}" for first in WORDS for second in WORDS][: 2 * FEWEST]
    long = [f"{text} " * 11 for text in short]
    assert usable_texts(short) == short
    assert usable_texts([*short, *short, "one"]) == short  # once each; a word is no sentence
    assert usable_texts(short[: FEWEST - 1]) == []
    assert usable_texts(short + long) == short  # half of them
    assert usable_texts([*short, *long, "one"]) == []
    assert usable_texts([f"{text} {'x' * 200}" for text in short]) == []


def test_what_was_trained_writes_more_like_the_texts_and_is_kept(
    inverter: Inverter, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = [value.clone() for value in _weights(inverter)]
    torch.manual_seed(7)
    drawn = torch.rand(3)
    torch.manual_seed(7)
    trained = trained_on(inverter, TEXTS)
    assert torch.equal(torch.rand(3), drawn)  # the run's random state is as it was
    assert trained.fingerprint.startswith(f"{inverter.fingerprint}+")
    assert trained.encoder is inverter.encoder
    assert trained.name == inverter.name
    assert all(map(torch.equal, _weights(inverter), before))
    embeddings = inverter.encode(TEXTS[:20])
    assert trained.invert(embeddings, seed=1) != inverter.invert(embeddings, seed=1)

    monkeypatch.setattr(own_texts, "_train", lambda *_: pytest.fail("trained twice"))
    again = trained_on(inverter, TEXTS)
    assert again.fingerprint == trained.fingerprint
    assert all(map(torch.equal, _weights(again), _weights(trained)))
    assert [path.name for path in cache.iterdir() if path.is_dir()] == [
        own_texts._identity(inverter, TEXTS)
    ]


def test_what_was_trained_is_not_trained_again(inverter: Inverter, cache: Path) -> None:
    trained = trained_on(inverter, TEXTS)
    assert "already" in str(own_texts.why_not(trained))
    assert trained_on(trained, TEXTS) is trained


def test_another_config_of_the_same_weights_is_another_aligner(
    inverter: Inverter, cache: Path
) -> None:
    before = own_texts._identity(inverter, TEXTS)
    inverter.aligner.config.ratio_curve = [0.0, 0.4, 1.0]
    assert own_texts._identity(inverter, TEXTS) != before


def test_held_out_texts_decide_whether_it_pays(
    inverter: Inverter, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_texts, "_LEAST_GAIN", 1e9)
    assert trained_on(inverter, TEXTS) is inverter
    monkeypatch.setattr(own_texts, "_train", lambda *_: pytest.fail("trained twice"))
    assert trained_on(inverter, TEXTS) is inverter


def test_the_same_texts_give_the_same_weights(inverter: Inverter, cache: Path) -> None:
    first = _weights(trained_on(inverter, TEXTS))
    shutil.rmtree(cache)
    torch.manual_seed(99)
    assert all(map(torch.equal, _weights(trained_on(inverter, TEXTS)), first))
    other = trained_on(inverter, TEXTS[1:])
    assert other.fingerprint != trained_on(inverter, TEXTS).fingerprint


def test_other_weights_for_the_same_texts_have_another_fingerprint(
    inverter: Inverter, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = trained_on(inverter, TEXTS).fingerprint
    shutil.rmtree(cache)
    monkeypatch.setattr(own_texts, "_LORA_RATE", 1e-3)  # as other arithmetic would
    assert trained_on(inverter, TEXTS).fingerprint != first


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_it_trains_where_the_caller_computes_no_gradients(
    inverter: Inverter, cache: Path, mode: Callable[[], Any]
) -> None:
    with mode():
        assert trained_on(inverter, TEXTS).fingerprint != inverter.fingerprint


def test_a_process_waits_for_the_one_that_trains(
    inverter: Inverter, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = cache / own_texts._identity(inverter, TEXTS)
    expected = trained_on(inverter, TEXTS).fingerprint
    folder.rename(cache / "made")
    monkeypatch.setattr(own_texts, "_train", lambda *_: pytest.fail("trained twice"))
    found: list[str] = []
    with FileLock(folder.with_suffix(".lock")):
        other = threading.Thread(
            target=lambda: found.append(trained_on(inverter, TEXTS).fingerprint)
        )
        other.start()
        other.join(0.3)
        assert other.is_alive()
        (cache / "made").rename(folder)
    other.join()
    assert found == [expected]


def test_a_training_that_was_stopped_leaves_nothing_that_is_used(
    inverter: Inverter, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any) -> NoReturn:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(own_texts, "save_checkpoint", stop)
        with pytest.raises(KeyboardInterrupt):
            trained_on(inverter, TEXTS)
    assert [path for path in cache.iterdir() if path.is_dir()] == []
    with monkeypatch.context() as patched:  # after its last file was written
        patched.setattr(Path, "replace", stop)
        with pytest.raises(KeyboardInterrupt):
            trained_on(inverter, TEXTS)
    assert not (cache / own_texts._identity(inverter, TEXTS)).exists()
    # A folder that is not whole, whatever left it.
    half = cache / own_texts._identity(inverter, TEXTS)
    half.mkdir()
    (half / "model.safetensors").write_bytes(b"half")
    assert trained_on(inverter, TEXTS).fingerprint != inverter.fingerprint
    assert [path for path in cache.iterdir() if path.is_dir()] == [half]


def test_an_inverter_whose_weights_are_elsewhere_stays_as_it_is(
    inverter: Inverter, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = make_inverter()
    assert "folder" in str(own_texts.why_not(bare))
    assert trained_on(bare, TEXTS) is bare
    monkeypatch.setattr(inverter.writer, "matches_length", False, raising=False)
    assert "elsewhere" in str(own_texts.why_not(inverter))
    assert trained_on(inverter, TEXTS) is inverter
    assert not cache.exists()


def test_a_cache_that_cannot_be_written_is_named_with_the_way_out(
    inverter: Inverter, cache: Path
) -> None:
    cache.parent.write_text("a file")
    with pytest.raises(errors.InvalidState, match=r"MIXUP_HF_CACHE.*`own_texts: off`"):
        trained_on(inverter, TEXTS)


def test_too_little_memory_is_named_with_the_way_out(
    inverter: Inverter, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any) -> NoReturn:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(own_texts, "descend", full)
    with pytest.raises(errors.InvalidState, match="more memory than cpu has left.*own_texts: off"):
        trained_on(inverter, TEXTS)
    assert not list(cache.rglob("*.safetensors"))


def test_its_card_says_what_it_has_read(inverter: Inverter, cache: Path) -> None:
    """`push_to_hub` uploads the card that lies beside the weights."""
    assert inverter.folder is not None
    (inverter.folder / "README.md").write_text("# An aligner\n", encoding="utf-8")
    trained = trained_on(inverter, TEXTS)
    assert trained.folder is not None
    card = (trained.folder / "README.md").read_text(encoding="utf-8")
    assert card.startswith("# An aligner\n")
    assert "has also read" in card


@pytest.mark.parametrize("count", [1, 5, 40])
def test_every_batch_is_read_before_one_is_read_again(count: int) -> None:
    order = own_texts._order(count)
    assert len(order) == min(own_texts._MOST_STEPS, -(-count * 16 // 10))
    assert len(set(order[:count])) == min(count, len(order))
    rates = [own_texts._rate(24, step) for step in range(24)]
    assert rates[0] < rates[5] == max(rates) and 0 < rates[-1] < 0.1


@pytest.mark.slow
@pytest.mark.parametrize("quantization", ["none", "4bit"])
def test_the_embedded_aligner_learns_how_headlines_are_written(
    quantization: Quantization, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_texts, "_MOST_STEPS", 3)
    monkeypatch.setattr(own_texts, "_HELD_OUT", 16)
    file = fetch_embedded("bbc_headlines") / "train.jsonl"
    texts = [json.loads(line)["text"] for line in file.read_text("utf-8").splitlines()][:400]
    inverter = Inverter.from_pretrained(quantization=quantization)
    trained = trained_on(inverter, texts)
    (result,) = cache.glob("*/own_texts.json")
    figures = json.loads(result.read_text())
    assert figures["after"] < figures["before"] - 0.1
    assert trained.fingerprint != inverter.fingerprint
    # The committee reads the LLM as it was before any alignment.
    states = [each.hidden_states(texts[:4]) for each in (inverter, trained)]
    assert torch.nn.functional.cosine_similarity(*states, dim=-1).min() > 0.999

"""What the campaign of hostile checkpoints has found, each on its own."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import make_classifier, make_encoder, make_llm, word_tokenizer
from transformers import AutoModel, AutoModelForSequenceClassification

from mixup_hf import Inverter
from mixup_hf.data.sources import SourceError, resolve
from mixup_hf.evaluation.experiment.arms._setfit import _refuse_code
from mixup_hf.inverter import hub
from mixup_hf.inverter.checkpoint import load_aligner, save_checkpoint
from mixup_hf.inverter.encoder import FrozenEncoder
from mixup_hf.inverter.lora import AlignerMismatchError, load_lora
from mixup_hf.inverter.pretrained import UnreadableModel, load_model, load_tokenizer


def edit(file: Path, **changes: Any) -> None:
    content = json.loads(file.read_text()) if file.is_file() else {}
    file.write_text(json.dumps(content | changes))


def change(file: Path, with_state: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    state = load_file(file)
    with_state(state)
    save_file(state, file, metadata={"format": "pt"})


@pytest.fixture
def encoder(tmp_path: Path) -> Path:
    made = make_encoder()
    made.model.save_pretrained(tmp_path / "encoder")
    made.tokenizer.save_pretrained(tmp_path / "encoder")
    return tmp_path / "encoder"


@pytest.fixture
def aligner(saved_aligner: Callable[..., Path]) -> Path:
    return saved_aligner(lora=True)


def test_weights_that_are_missing_are_not_drawn_at_random(encoder: Path) -> None:
    name = "encoder.layer.0.output.dense.weight"
    change(encoder / "model.safetensors", lambda state: state.pop(name))
    with pytest.raises(UnreadableModel, match=f"1 weights are missing, such as {name}"):
        FrozenEncoder.from_pretrained(encoder)


def test_a_pooler_that_nothing_reads_may_be_missing(encoder: Path) -> None:
    change(encoder / "model.safetensors", lambda state: state.pop("pooler.dense.weight"))
    assert FrozenEncoder.from_pretrained(encoder).encode(["the bank"]).isfinite().all()


@pytest.mark.parametrize(
    "file",
    [
        "aligner/model.safetensors",
        "aligner/lora/adapter_model.safetensors",
        "encoder/model.safetensors",
        "llm/model.safetensors",
    ],
)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(aligner: Path, file: str, value: float) -> None:
    def spoil(state: dict[str, torch.Tensor]) -> None:
        state[min(state)].view(-1)[0] = value

    change(aligner.parent / file, spoil)
    with pytest.raises(ValueError, match="not finite"):
        Inverter.from_pretrained(aligner, device="cpu", dtype=torch.float32)


def test_code_beside_a_model_is_neither_run_nor_asked_about(
    encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def asked(*_: object) -> str:
        raise AssertionError("the user was asked whether to run it")

    monkeypatch.setattr("builtins.input", asked)
    (encoder / "evil.py").write_text(f"open({str(encoder / 'executed')!r}, 'w')\nclass Evil: ...\n")
    named = dict.fromkeys(["AutoConfig", "AutoModel"], "evil.Evil")
    edit(encoder / "config.json", model_type="evil", auto_map=named)
    with pytest.raises(UnreadableModel, match="code that comes with a model is never run"):
        load_model(AutoModel, encoder)
    edit(encoder / "tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.Evil", None]})
    load_tokenizer(encoder)  # transformers has a class of its own for these files
    assert not (encoder / "executed").exists()


def test_an_index_that_leads_out_of_the_folder_is_refused(encoder: Path) -> None:
    (encoder / "model.safetensors").rename(encoder.parent / "other.safetensors")
    names = load_file(encoder.parent / "other.safetensors")
    index = {"metadata": {}, "weight_map": dict.fromkeys(names, "../other.safetensors")}
    edit(encoder / "model.safetensors.index.json", **index)
    with pytest.raises(UnreadableModel, match="outside of its folder"):
        load_model(AutoModel, encoder)


def test_a_pipe_in_the_place_of_a_file_is_refused_and_not_waited_for(aligner: Path) -> None:
    for file in (aligner / "config.json", aligner.parent / "llm" / "generation_config.json"):
        kept = file.read_text()
        file.unlink()
        os.mkfifo(file)
        with pytest.raises(UnreadableModel, match="is not a file"):
            Inverter.from_pretrained(aligner, device="cpu")
        file.unlink()
        file.write_text(kept)


def test_a_classifier_is_read_from_safetensors_only(tmp_path: Path) -> None:
    model = make_classifier()
    model.config.save_pretrained(tmp_path)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(UnreadableModel, match=r"model\.safetensors"):
        load_model(AutoModelForSequenceClassification, tmp_path, complete=False)


@pytest.mark.parametrize("modules", ["[{}]", "[1]", "null", '[{"type": 5, "path": "x"}]', "{"])
def test_a_list_of_modules_that_is_none_is_refused(encoder: Path, modules: str) -> None:
    (encoder / "modules.json").write_text(modules)
    if modules == "null":
        modules = ""
    with pytest.raises(UnreadableModel, match="cannot be read"):
        FrozenEncoder.from_pretrained(encoder)


def test_texts_longer_than_an_encoder_has_positions_are_cut(encoder: Path) -> None:
    loaded = FrozenEncoder.from_pretrained(encoder)  # 64 positions
    assert loaded.encode(["bank " * 200]).isfinite().all()


def test_sizes_are_compared_before_memory_is_taken(
    aligner: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    edit(aligner / "config.json", projector_width=10**7)
    monkeypatch.setattr("mixup_hf.inverter.checkpoint.load_file", lambda _: pytest.fail("too late"))
    with pytest.raises(AlignerMismatchError, match=r"its config says \(10000000, 16\)"):
        load_aligner(aligner)


def test_an_aligner_of_whole_numbers_is_refused(aligner: Path) -> None:
    def round_down(state: dict[str, torch.Tensor]) -> None:
        state["projector.up.weight"] = state["projector.up.weight"].long()

    change(aligner / "model.safetensors", round_down)
    with pytest.raises(AlignerMismatchError, match="is of type I64"):
        load_aligner(aligner)


@pytest.mark.parametrize(
    "changes",
    [
        {"prompt_prefix": ["x"]},
        {"llm": 5},
        {"embedding_rms": float("nan")},
        {"format_version": "2"},
    ],
)
def test_a_config_of_other_types_is_refused(aligner: Path, changes: dict[str, Any]) -> None:
    edit(aligner / "config.json", **changes)
    with pytest.raises((ValueError, TypeError), match=next(iter(changes)) + "|format"):
        load_aligner(aligner)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"megatron_config": {"a": 1}, "megatron_core": "evil", "use_dora": True}, "imported"),
        ({"peft_type": "XLORA"}, "expected 'LORA'"),
        ({"target_modules": "(.*.*)*x", "use_dora": True}, "as a pattern"),
        ({"r": 64}, "has rank 2, but its config says 64"),
        ({"r": 0}, "`r` must be greater than 0"),
        ({"lora_alpha": float("nan")}, "`lora_alpha` must be greater than 0"),
    ],
)
def test_a_lora_that_asks_for_something_else_is_refused(
    aligner: Path, changes: dict[str, Any], message: str
) -> None:
    edit(aligner / "lora" / "adapter_config.json", **changes)
    with pytest.raises(ValueError, match=message):
        load_lora(make_llm(), aligner, merge=True)


def test_saving_does_not_write_through_links(aligner: Path, tmp_path: Path) -> None:
    blob = tmp_path / "blob"
    blob.write_text("of the Hub's cache")
    target = tmp_path / "target"
    target.mkdir()
    for name in ("config.json", "model.safetensors"):
        (target / name).symlink_to(blob)
    save_checkpoint(target, load_aligner(aligner), None)
    assert blob.read_text() == "of the Hub's cache"
    load_aligner(target)


def test_a_link_to_a_file_elsewhere_is_not_uploaded(
    aligner: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("private")
    (aligner / "README.md").unlink(missing_ok=True)
    (aligner / "README.md").symlink_to(secret)
    monkeypatch.setattr(hub, "HfApi", lambda **_: pytest.fail("the Hub was asked"))
    with pytest.raises(ValueError, match=r"README\.md is a link to .*secret, outside"):
        hub.push_folder(aligner, "user/name")


@pytest.mark.parametrize("name", ["a" * 5000, "\x00", "~nobody-of-this-name/x", "/home/other/llm"])
def test_a_name_that_is_no_folder_here_is_told_as_one(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(SourceError) as caught:
        resolve(name)
    assert ("another machine" in str(caught.value)) == (name[0] in "/~")
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("kind", ["pickle", "module"])
def test_setfit_neither_unpickles_nor_imports(encoder: Path, kind: str) -> None:
    _refuse_code(encoder)
    if kind == "pickle":
        (encoder / "model_head.pkl").write_bytes(b"")
    else:
        (encoder / "modules.json").write_text(json.dumps([{"type": "evil.Module", "path": ""}]))
    with pytest.raises(UnreadableModel, match="pickle|code of its own"):
        _refuse_code(encoder)


def test_the_tiny_tokenizer_is_read_as_it_was_written(encoder: Path) -> None:
    text = "the bank and the market"
    assert load_tokenizer(encoder)(text) == word_tokenizer(classifier=True)(text)

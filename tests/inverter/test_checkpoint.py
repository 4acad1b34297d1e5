from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import make_inverter

from mixup_hf import Inverter
from mixup_hf.data.embedded import EMBEDDED
from mixup_hf.data.sources import ResolvedSource, resolve
from mixup_hf.inverter.aligner import FORMAT_VERSION, Aligner, AlignerConfig
from mixup_hf.inverter.checkpoint import check_partner, fingerprint, load_aligner, save_checkpoint
from mixup_hf.inverter.lora import AlignerMismatchError

SIZES = {"embedding_dim": 16, "llm_dim": 32, "projector_width": 24, "num_soft_tokens": 3}


def make_aligner(**config: Any) -> Aligner:
    torch.manual_seed(0)
    return Aligner(AlignerConfig(**(SIZES | config)))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_checkpoint(tmp_path / "aligner", make_aligner(), llm=None)


def edit_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_what_is_saved_is_what_is_loaded(tmp_path: Path) -> None:
    aligner = make_aligner(
        encoder="own/encoder",
        encoder_revision="abc",
        encoder_fingerprint="0123",
        pooling="cls",
        normalize=False,
        llm="own/llm",
        base_grid=None,
        embedding_rms=0.3,
        prompt_prefix="say: ",
        prompt_suffix=" :end",
    )
    loaded = load_aligner(save_checkpoint(tmp_path, aligner, llm=None, dtype=torch.float32))
    told_by_transformers = {"dtype", "architectures", "_name_or_path", "transformers_version"}
    for name in AlignerConfig().to_dict().keys() - told_by_transformers:
        assert getattr(loaded.config, name) == getattr(aligner.config, name), name
    embeddings = torch.randn(4, 16)
    assert torch.equal(loaded(embeddings), aligner(embeddings))


def test_weights_are_stored_in_bf16_and_loaded_in_float32(folder: Path) -> None:
    stored = load_file(folder / "model.safetensors")
    assert {value.dtype for value in stored.values()} == {torch.bfloat16}
    assert {value.dtype for value in load_aligner(folder).state_dict().values()} == {torch.float32}
    original = make_aligner().state_dict()
    for name, value in load_aligner(folder).state_dict().items():
        assert torch.equal(value, original[name].bfloat16().float())


def test_saving_changes_nothing_about_what_is_saved(tmp_path: Path) -> None:
    aligner = make_aligner()
    before = {name: value.clone() for name, value in aligner.state_dict().items()}
    save_checkpoint(tmp_path, aligner, llm=None)
    after = aligner.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert aligner.dtype == torch.float32


def test_a_checkpoint_is_json_and_safetensors_only(folder: Path) -> None:
    assert {path.name for path in folder.iterdir()} == {"config.json", "model.safetensors"}


def test_the_base_models_are_not_saved(saved_aligner: Callable[..., Path]) -> None:
    stored = load_file(saved_aligner() / "model.safetensors")
    assert stored
    assert all(name.startswith("projector.") for name in stored)


def test_a_newer_format_is_refused_with_the_way_out(folder: Path) -> None:
    edit_config(folder, format_version=FORMAT_VERSION + 1)
    with pytest.raises(
        AlignerMismatchError,
        match=rf"format {FORMAT_VERSION + 1}; .*up to {FORMAT_VERSION}\. Update your clone",
    ):
        load_aligner(folder)


def test_keys_of_a_newer_version_are_warned_of_and_ignored(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    load_aligner(folder)
    assert not caplog.messages  # its own keys are all known
    edit_config(folder, soft_token_schedule="late")
    load_aligner(folder)
    (message,) = caplog.messages
    assert "soft_token_schedule" in message
    assert "update your clone of mixup_hf" in message


def test_an_older_format_is_read(folder: Path) -> None:
    edit_config(folder, format_version=FORMAT_VERSION - 1)
    load_aligner(folder)


@pytest.mark.parametrize("keep", [0, 5, 0.5, 0.99])
def test_a_truncated_file_is_refused_with_the_way_out(folder: Path, keep: float) -> None:
    weights = folder / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[: keep if isinstance(keep, int) else int(len(content) * keep)])
    with pytest.raises(AlignerMismatchError, match="damaged or cut short: fetch it again"):
        load_aligner(folder)


def test_weights_of_another_size_are_refused(folder: Path) -> None:
    edit_config(folder, projector_width=12)
    with pytest.raises(AlignerMismatchError, match="cannot be read"):
        load_aligner(folder)


def test_missing_weights_are_refused_not_made_up(folder: Path) -> None:
    weights = folder / "model.safetensors"
    state = load_file(weights)
    del state["projector.up.weight"]
    save_file(state, weights, metadata={"format": "pt"})
    with pytest.raises(AlignerMismatchError, match=r"projector\.up\.weight|damaged"):
        load_aligner(folder)


def test_a_checkpoint_without_safetensors_is_refused(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    with pytest.raises(AlignerMismatchError, match="no model.safetensors.*fetch it again"):
        load_aligner(folder)
    torch.save(state, folder / "pytorch_model.bin")  # a pickle
    with pytest.raises(AlignerMismatchError, match="no model.safetensors"):
        load_aligner(folder)


def test_a_folder_without_a_config_is_no_aligner(tmp_path: Path) -> None:
    with pytest.raises(AlignerMismatchError, match="is not an aligner checkpoint.*config.json"):
        load_aligner(tmp_path)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe\x00", b"[1, 2]", b'"text"', b"null"])
def test_a_config_that_is_no_json_object_is_no_aligners(folder: Path, content: bytes) -> None:
    (folder / "config.json").write_bytes(content)
    with pytest.raises(AlignerMismatchError, match="is not an aligner checkpoint"):
        load_aligner(folder)


def test_another_models_folder_is_named_as_such(tmp_path: Path) -> None:
    make_inverter().llm.save_pretrained(tmp_path)
    with pytest.raises(AlignerMismatchError, match=r"type 'llama', expected .*`mixup-hf align`"):
        load_aligner(tmp_path)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"pooling": "max"}, "`pooling` must be one of"),
        ({"base_grid": "fp4"}, "`base_grid` must be one of 'nf4', None"),
        ({"num_soft_tokens": 0}, "`num_soft_tokens` must be at least 1"),
        ({"projector_width": 0}, "`projector_width` must be at least 1"),
    ],
)
def test_a_config_out_of_range_is_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AlignerConfig(**config)


@pytest.fixture
def partner(tmp_path: Path) -> ResolvedSource:
    encoder = make_inverter().encoder
    encoder.model.save_pretrained(tmp_path / "partner")
    encoder.tokenizer.save_pretrained(tmp_path / "partner")
    return resolve(str(tmp_path / "partner"))


def test_a_fingerprint_is_that_of_the_content_not_of_the_place(
    partner: ResolvedSource, tmp_path: Path
) -> None:
    before = fingerprint(partner)
    assert len(before) == 16
    moved = partner.path.rename(tmp_path / "moved")
    assert fingerprint(resolve(str(moved))) == before


@pytest.mark.parametrize("file", ["model.safetensors", "tokenizer.json"])
def test_other_weights_or_another_tokenizer_have_another_fingerprint(
    partner: ResolvedSource, file: str
) -> None:
    before = fingerprint(partner)
    path = partner.path / file
    path.write_bytes(path.read_bytes() + b" ")
    assert fingerprint(partner) != before


def test_the_pinned_digest_is_the_fingerprint_of_an_embedded_model(tmp_path: Path) -> None:
    name = "all-minilm-l6-v2"
    source = ResolvedSource(name, tmp_path, EMBEDDED[name].wheel.sha256)
    assert fingerprint(source) == EMBEDDED[name].wheel.sha256[:16]


def test_a_folder_that_is_named_like_an_embedded_model_is_read_through(
    partner: ResolvedSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = fingerprint(partner)
    monkeypatch.chdir(tmp_path)
    partner.path.rename(tmp_path / "all-minilm-l6-v2")
    source = resolve("all-minilm-l6-v2")
    assert source.path == (tmp_path / "all-minilm-l6-v2").resolve()
    assert fingerprint(source) == before


def test_a_partner_is_checked_when_its_fingerprint_is_known(partner: ResolvedSource) -> None:
    check_partner("encoder", None, partner)
    check_partner("encoder", fingerprint(partner), partner)
    with pytest.raises(AlignerMismatchError, match="another encoder: .*expects 0123"):
        check_partner("encoder", "0123", partner)


@pytest.mark.parametrize("kind", ["encoder", "llm"])
def test_an_aligner_refuses_other_partners_with_the_way_out(
    saved_aligner: Callable[..., Path], kind: str
) -> None:
    folder = saved_aligner(**{f"{kind}_fingerprint": "0" * 16})
    shown = {"encoder": "encoder", "llm": "LLM"}[kind]
    with pytest.raises(AlignerMismatchError, match=rf"another {shown}: .*`mixup-hf align`"):
        Inverter.from_pretrained(folder, device="cpu")


@pytest.mark.parametrize(("size", "kind"), [("embedding_dim", "encoder"), ("llm_dim", "LLM")])
def test_an_aligner_refuses_partners_of_another_width(
    saved_aligner: Callable[..., Path], size: str, kind: str
) -> None:
    folder = saved_aligner()
    partners = {key: getattr(load_aligner(folder).config, key) for key in ("encoder", "llm")}
    save_checkpoint(folder, make_aligner(base_grid=None, **partners, **{size: 8}), llm=None)
    with pytest.raises(AlignerMismatchError, match=rf"another {kind}: .*expects 8"):
        Inverter.from_pretrained(folder, device="cpu", dtype=torch.float32)

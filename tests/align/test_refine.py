"""Stages 2 and 3: an aligner follows an encoder that learns a task."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from aligning import make_config, save_partners
from tiny import make_inverter, make_rows, word_tokenizer

from mixup_hf import Inverter
from mixup_hf.align import align
from mixup_hf.config import StageConfig, TaskConfig
from mixup_hf.errors import InvalidInput
from mixup_hf.inverter import refinement
from mixup_hf.inverter.batches import TokenBudgetBatches
from mixup_hf.inverter.checkpoint import load_aligner
from mixup_hf.inverter.lora import AlignerMismatchError
from mixup_hf.inverter.objective import AlignmentModel
from mixup_hf.inverter.prompt import SoftPrompt


def refining(folder: Path, partners: dict[str, str], start: Path, **settings: Any) -> Any:
    texts, labels = make_rows(24)
    rows = [{"text": text, "label": label} for text, label in zip(texts, labels, strict=True)]
    data = folder / "task.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = TaskConfig(
        file=str(data), warm_up_epochs=2, warm_up_lr=1e-3, warm_up_batch_size=8, max_length=16
    )
    refine = StageConfig(name="2-refine", train_lora=True, max_steps=3, warmup_steps=0)
    settings = {"stages": (refine,), "task": task, "start_from": str(start)} | settings
    return make_config(partners, folder / "refined", **settings)


def test_stage_2_moves_the_encoder_and_refines_the_aligner_for_it(tmp_path: Path) -> None:
    partners = save_partners(tmp_path)
    start = align(make_config(partners, tmp_path / "stage1"))
    refined = align(refining(tmp_path, partners, start))
    before, after = (
        Inverter.from_pretrained(each, device="cpu", quantization="none")
        for each in (start, refined)
    )
    texts = ["the red market", "new film star"]
    assert not torch.allclose(before.encode(texts), after.encode(texts), atol=1e-3)
    assert after.aligner.config.encoder == str(tmp_path / "refined" / "encoder")
    assert len(after.invert(after.encode(texts))) == 2
    changed = [
        name
        for name, value in before.aligner.state_dict().items()
        if not torch.equal(value, after.aligner.state_dict()[name])
    ]
    assert any("projector" in name for name in changed)
    assert not any("lexicon" in name for name in changed)  # no stage named it


def test_stage_2_learns_labelled_texts_and_a_share_of_others(tmp_path: Path) -> None:
    from mixup_hf.align.session import Session

    partners = save_partners(tmp_path)
    start = align(make_config(partners, tmp_path / "stage1"))
    session = Session(refining(tmp_path, partners, start), torch.device("cpu"))
    labelled, _ = make_rows(24)
    assert session.sentences[:24] == labelled
    assert len(session.sentences) == 48  # half of them, as unlabelled_share says
    assert len(session.embeddings) == 48


def test_the_warm_up_is_done_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    partners = save_partners(tmp_path)
    start = align(make_config(partners, tmp_path / "stage1"))
    config = refining(tmp_path, partners, start)
    align(config)
    mark = tmp_path / "refined" / "encoder" / "warmed.json"
    written = mark.stat().st_mtime_ns
    align(config)
    assert mark.stat().st_mtime_ns == written


def test_going_on_keeps_sizes_and_words_of_the_aligner(tmp_path: Path) -> None:
    partners = save_partners(tmp_path)
    start = align(make_config(partners, tmp_path / "stage1"))
    lexicon = StageConfig(
        name="0-lexicon", train_lexicon=True, train_projector=False, max_steps=1, warmup_steps=0
    )
    # Other sizes in the config are not used: those of the aligner are.
    config = make_config(
        partners, tmp_path / "more", start_from=str(start), stages=(lexicon,), num_soft_tokens=7
    )
    before, after = load_aligner(start), load_aligner(align(config))
    assert after.config.num_soft_tokens == before.config.num_soft_tokens == 2
    assert before.hints is not None
    assert after.hints is not None
    assert torch.equal(after.hints.lexicon.token_ids, before.hints.lexicon.token_ids)
    assert not torch.equal(after.hints.lexicon.up.weight, before.hints.lexicon.up.weight)


def test_guided_training_needs_guidance(tmp_path: Path) -> None:
    config = make_config(save_partners(tmp_path), tmp_path / "run", guided_training=True)
    with pytest.raises(InvalidInput, match="guidance.*above 0 for `guided_training`"):
        align(config)


def test_going_on_with_another_llm_is_refused(tmp_path: Path) -> None:
    partners = save_partners(tmp_path)
    start = align(make_config(partners, tmp_path / "stage1"))
    with pytest.raises(AlignerMismatchError, match="trained for another LLM"):
        align(
            make_config(
                partners | {"llm": partners["encoder"]}, tmp_path / "x", start_from=str(start)
            )
        )


def test_stage_3_brings_a_stale_projector_back() -> None:
    inverter = make_inverter()
    inverter.llm.requires_grad_(False)
    model = AlignmentModel(
        SoftPrompt.build(inverter.aligner, inverter.llm, inverter.tokenizer), inverter.llm
    )
    texts, _ = make_rows(24)
    batches = TokenBudgetBatches(
        texts,
        inverter.encode(texts).numpy(),
        word_tokenizer(classifier=False),
        prompt_length=model.prompt.length,
        batch_tokens=128,
        end_id=5,
        seed=0,
    )
    frozen = {name: value.clone() for name, value in inverter.llm.state_dict().items()}
    state = torch.get_rng_state()
    before, after = refinement.refresh(model, batches, steps=30, learning_rate=0.01)
    assert after < before - 0.05
    assert torch.equal(torch.get_rng_state(), state)
    assert all(
        torch.equal(value, frozen[name]) for name, value in inverter.llm.state_dict().items()
    )
    assert not any(value.requires_grad for value in model.parameters())
    assert refinement.generation_loss(model, batches) == pytest.approx(after)


def test_a_lora_in_the_upper_layers_is_nowhere_else(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    partners = save_partners(tmp_path)
    names = {
        share: {
            name.split(".layers.")[1].split(".")[0]
            for name in load_file(
                align(make_config(partners, tmp_path / str(share), lora_layers=share))
                / "lora"
                / "adapter_model.safetensors"
            )
        }
        for share in (0.5, 1.0)
    }
    assert names == {0.5: {"1"}, 1.0: {"0", "1"}}

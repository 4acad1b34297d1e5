from __future__ import annotations

import torch
from tiny import make_inverter
from torch.nn import functional as F

from mixup_hf.align.data import IGNORED
from mixup_hf.align.objective import AlignmentModel
from mixup_hf.inverter.prompting import SoftPrompt


def make_model() -> AlignmentModel:
    inverter = make_inverter()
    prompt = SoftPrompt.build(inverter.aligner, inverter.llm, inverter.tokenizer)
    inverter.llm.requires_grad_(False)
    prompt.projector.requires_grad_(True)
    return AlignmentModel(prompt, inverter.llm)


def make_batch() -> dict[str, torch.Tensor]:
    ids = torch.tensor([[7, 8, 9], [10, 11, 5]])
    labels = torch.tensor([[7, 8, 9, 5], [10, 11, 5, IGNORED]])
    embeddings = torch.randn(2, 16, generator=torch.Generator().manual_seed(0))
    return {"embeddings": embeddings, "input_ids": ids, "labels": labels}


def plain_loss(model: AlignmentModel, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """The same objective with all logits at once and torch's own cross entropy."""
    prompts = model.prompt(batch["embeddings"])
    table = model.llm.get_input_embeddings()
    inputs = torch.cat([prompts, table(batch["input_ids"])], dim=1)
    logits = model.llm(inputs_embeds=inputs).logits[:, prompts.shape[1] - 1 :]
    return F.cross_entropy(logits.flatten(0, 1), batch["labels"].flatten(), ignore_index=IGNORED)


def test_loss_and_gradient_equal_plain_cross_entropy() -> None:
    model, batch = make_model(), make_batch()
    parameters = list(model.prompt.projector.parameters())
    loss = model(**batch)["loss"]
    expected = plain_loss(model, batch)
    torch.testing.assert_close(loss, expected)
    for ours, theirs in zip(
        torch.autograd.grad(loss, parameters),
        torch.autograd.grad(expected, parameters),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_the_trainers_count_of_targets_replaces_the_batchs_own() -> None:
    model, batch = make_model(), make_batch()
    own = model(**batch)["loss"]
    torch.testing.assert_close(model(**batch, num_items_in_batch=14)["loss"], own * 7 / 14)


def test_state_dict_holds_what_trains_and_nothing_else() -> None:
    model = make_model()
    names = set(model.state_dict())
    trained = {name for name, value in model.named_parameters() if value.requires_grad}
    assert names == trained
    assert all(name.startswith("prompt.projector.") for name in names)


def test_a_state_dict_with_unknown_names_is_refused() -> None:
    model = make_model()
    state = model.state_dict() | {"prompt.projector.surplus": torch.zeros(1)}
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        assert "surplus" in str(error)
    else:
        raise AssertionError("an unknown key was accepted")

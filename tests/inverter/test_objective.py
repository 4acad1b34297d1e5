from __future__ import annotations

import pytest
import torch
from tiny import make_inverter
from torch.nn import functional as F

from mixup_hf.inverter.batches import IGNORED
from mixup_hf.inverter.guidance import favour
from mixup_hf.inverter.objective import AlignmentModel
from mixup_hf.inverter.prompt import SoftPrompt


def make_model(**perturbation: float) -> AlignmentModel:
    inverter = make_inverter()
    prompt = SoftPrompt.build(inverter.aligner, inverter.llm, inverter.tokenizer)
    inverter.llm.requires_grad_(False)
    prompt.projector.requires_grad_(True)
    return AlignmentModel(prompt, inverter.llm, **perturbation)


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


def test_guidance_is_in_the_loss_as_it_is_in_decoding() -> None:
    """A word's share counts until it has been written; here 8 is, twice, and 9 never."""
    sizes = {"num_hints": 2, "lexicon_words": 5, "lexicon_width": 6, "lexicon_rank": 3}
    inverter = make_inverter(guidance=0.5, **sizes)
    words, counts = torch.tensor([7, 8, 9, 10, 11]), torch.tensor([9, 7, 5, 3, 1])
    assert inverter.aligner.hints is not None
    inverter.aligner.hints.lexicon.set_words(words, counts, 1)
    torch.nn.init.normal_(inverter.aligner.hints.lexicon.words.weight)
    prompt = SoftPrompt.build(inverter.aligner, inverter.llm, inverter.tokenizer)
    model = AlignmentModel(prompt, inverter.llm, guided=inverter.aligner)
    ids, labels = torch.tensor([[7, 8, 10, 8]]), torch.tensor([[7, 8, 10, 8, 9]])
    embeddings = torch.randn(1, 16, generator=torch.Generator().manual_seed(0))
    nats = favour(inverter.aligner, inverter.llm, embeddings)
    assert nats is not None and (nats[0, [7, 8, 9, 10]] != 0).all()
    inputs = torch.cat([prompt(embeddings), inverter.llm.get_input_embeddings()(ids)], dim=1)
    logits = inverter.llm(inputs_embeds=inputs).logits[0, prompt.length - 1 :]
    for position in range(5):
        left = nats[0].clone()
        for word in ids[0, :position].tolist():
            left[word] = left[word].clamp_max(0)
        logits[position] += left
    expected = F.cross_entropy(logits, labels[0])
    torch.testing.assert_close(model(embeddings, ids, labels)["loss"], expected)
    unguided = AlignmentModel(prompt, inverter.llm)(embeddings, ids, labels)["loss"]
    assert not torch.allclose(unguided, expected, atol=1e-3)


def seen_by_the_prompt(model: AlignmentModel, embeddings: torch.Tensor) -> torch.Tensor:
    """What the prompt is given for `embeddings`, in the model's present mode."""
    seen: list[torch.Tensor] = []
    hook = model.prompt.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    rows = len(embeddings)
    model(embeddings, torch.full((rows, 2), 7), torch.full((rows, 3), 7))
    hook.remove()
    return seen[0]


@pytest.mark.parametrize("perturbation", [{"noise": 0.5}, {"mix_share": 1.0}])
def test_embeddings_are_perturbed_in_training_alone(perturbation: dict[str, float]) -> None:
    model = make_model(**perturbation)
    embeddings = torch.randn(4, 16, generator=torch.Generator().manual_seed(0))
    assert not torch.equal(seen_by_the_prompt(model.train(), embeddings), embeddings)
    assert torch.equal(seen_by_the_prompt(model.eval(), embeddings), embeddings)
    assert torch.equal(seen_by_the_prompt(make_model().train(), embeddings), embeddings)


def test_noise_has_the_share_of_an_embeddings_length_that_was_asked_for() -> None:
    torch.manual_seed(0)
    embeddings = torch.randn(64, 16) * torch.logspace(-1, 1, 64)[:, None]
    noise = seen_by_the_prompt(make_model(noise=0.3).train(), embeddings) - embeddings
    share = noise.norm(dim=1) / embeddings.norm(dim=1)
    assert abs(share.mean() - 0.3) < 0.02


def test_the_share_of_rows_asked_for_is_mixed_with_the_nearest_neighbour() -> None:
    torch.manual_seed(0)
    base = torch.randn(200, 16)
    neighbour = base + 0.1 * torch.randn(200, 16)
    embeddings = torch.stack([base, neighbour], dim=1).reshape(400, 16)
    mixed = seen_by_the_prompt(make_model(mix_share=0.25).train(), embeddings)
    changed = (mixed != embeddings).any(dim=1)
    assert 0.15 < changed.float().mean() < 0.35
    partners = embeddings.reshape(200, 2, 16).flip(1).reshape(400, 16)
    towards = (partners - embeddings)[changed]
    moved = (mixed - embeddings)[changed]
    share = (moved * towards).sum(1) / towards.square().sum(1)
    torch.testing.assert_close(moved, share[:, None] * towards, atol=1e-5, rtol=1e-4)
    assert share.min() > 0 and 0.3 < share.max() < 0.4


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

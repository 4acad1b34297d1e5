from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from mixup_hf.inverter.projector import Projector


def make_projector(rms: float = 0.25) -> Projector:
    torch.manual_seed(0)
    return Projector(8, llm_dim=16, num_soft_tokens=3, width=12, embedding_rms=rms)


def test_an_embedding_becomes_k_soft_tokens() -> None:
    tokens = make_projector()(torch.randn(5, 8))
    assert tokens.shape == (5, 3, 16)
    assert tokens.dtype == torch.float32


@pytest.mark.parametrize("scale", [0.1, 1.0, 30.0])
def test_every_soft_token_has_the_size_of_the_llms_own_embeddings(scale: float) -> None:
    tokens = make_projector(0.25)(torch.randn(5, 8) * scale)
    rms = tokens.square().mean(-1).sqrt()
    assert torch.allclose(rms, torch.full_like(rms, 0.25), rtol=1e-3)


def test_the_gain_scales_each_soft_token() -> None:
    projector, embeddings = make_projector(), torch.randn(2, 8)
    plain = projector(embeddings)
    with torch.no_grad():
        projector.gain.copy_(torch.tensor([[1.0], [2.0], [0.5]]))
    assert torch.allclose(projector(embeddings), plain * torch.tensor([1, 2, 0.5]).view(3, 1))


def test_it_is_a_two_layer_mlp_with_a_norm() -> None:
    projector, embeddings = make_projector(0.25), torch.randn(4, 8)
    hidden = F.gelu(embeddings @ projector.up.weight.T + projector.up.bias)
    tokens = (hidden @ projector.down.weight.T + projector.down.bias).view(4, 3, 16)
    expected = tokens / tokens.square().mean(-1, keepdim=True).sqrt() * 0.25
    assert torch.allclose(projector(embeddings), expected, atol=1e-5)


def test_rows_do_not_see_one_another() -> None:
    projector, embeddings = make_projector(), torch.randn(6, 8)
    alone = torch.cat([projector(row[None]) for row in embeddings])
    assert torch.allclose(projector(embeddings), alone, atol=1e-6)


def test_everything_learns() -> None:
    projector = make_projector()
    projector(torch.randn(4, 8)).pow(3).sum().backward()
    for name, parameter in projector.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_half_precision_weights_still_give_float32_tokens() -> None:
    projector = make_projector().bfloat16()
    assert projector(torch.randn(2, 8).bfloat16()).dtype == torch.float32

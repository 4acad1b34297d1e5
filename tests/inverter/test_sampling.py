from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
import torch
from tiny import SPECIAL, make_llm
from torch import Tensor
from transformers import LlamaForCausalLM

from mixup_hf.inverter.engines import make_engine
from mixup_hf.inverter.engines.base import DecodeSettings, Engine
from mixup_hf.inverter.sampling import choose, decode

EOS = SPECIAL.index("<eos>")
# Many tokens end a sentence here, so that rows of a batch end at different steps.
ENDS = [EOS, *range(10, 20)]
GREEDY = DecodeSettings(max_new_tokens=12, temperature=0.0)
SAMPLED = DecodeSettings(max_new_tokens=12, temperature=1.5, top_p=0.9, top_k=20)


@pytest.fixture(scope="module")
def llm() -> LlamaForCausalLM:
    return make_llm()


@pytest.fixture(params=["transformers", "fast"])
def engine(request: pytest.FixtureRequest, llm: LlamaForCausalLM) -> Engine:
    return make_engine(llm, request.param, torch.float32)


def make_prompts(count: int = 16) -> Tensor:
    return torch.randn(count, 3, 32, generator=torch.Generator().manual_seed(0)) * 0.4


def make_uniforms(count: int = 16) -> np.ndarray:
    return np.random.default_rng(0).random((count, 12))


def reference_choice(logits: np.ndarray, settings: DecodeSettings, draw: float) -> int:
    """Top-k, then the nucleus, then the inverse of the distribution function; in float64."""
    if settings.temperature == 0:
        return int(logits.argmax())
    order = np.argsort(-logits)[: settings.top_k]
    shares = np.exp((logits[order] - logits[order[0]]) / settings.temperature)
    shares /= shares.sum()
    size = int(np.searchsorted(shares.cumsum(), settings.top_p)) + 1
    kept = shares[:size] / shares[:size].sum()
    return int(order[min(int(np.searchsorted(kept.cumsum(), draw, side="right")), size - 1)])


@torch.inference_mode()
def one_token_at_a_time(
    llm: LlamaForCausalLM, prompt: Tensor, settings: DecodeSettings, draws: np.ndarray
) -> list[int]:
    """One row, without a cache, the whole sequence again at each step."""
    tokens: list[int] = []
    inputs = prompt[None]
    for step in range(settings.max_new_tokens):
        logits = llm(inputs_embeds=inputs).logits[0, -1].double().numpy()
        if step == 0:
            logits[ENDS] = -np.inf
        token = reference_choice(logits, settings, draws[step])
        if token in ENDS:
            break
        tokens.append(token)
        inputs = torch.cat([inputs, llm.get_input_embeddings()(torch.tensor([[token]]))], dim=1)
    return tokens


@pytest.mark.parametrize("settings", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
def test_a_batch_decodes_token_for_token_like_each_row_alone(
    engine: Engine, settings: DecodeSettings
) -> None:
    prompts, uniforms = make_prompts(), make_uniforms()
    together = decode(engine, prompts, end_ids=ENDS, settings=settings, uniforms=uniforms)
    alone = [
        decode(
            engine,
            prompts[row : row + 1],
            end_ids=ENDS,
            settings=settings,
            uniforms=uniforms[row : row + 1],
        )[0]
        for row in range(len(prompts))
    ]
    assert together == alone
    assert len({len(row) for row in together}) > 2  # or ends at different steps are not tested


@pytest.mark.parametrize("settings", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
def test_decoding_is_what_the_model_says_without_cache_and_batch(
    llm: LlamaForCausalLM, engine: Engine, settings: DecodeSettings
) -> None:
    prompts, uniforms = make_prompts(), make_uniforms()
    expected = [
        one_token_at_a_time(llm, prompt, settings, draws)
        for prompt, draws in zip(prompts, uniforms, strict=True)
    ]
    assert decode(engine, prompts, end_ids=ENDS, settings=settings, uniforms=uniforms) == expected


@pytest.mark.parametrize("settings", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
def test_dropping_finished_rows_changes_no_sentence(
    llm: LlamaForCausalLM, settings: DecodeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: dict[float, list[int]] = {}
    results = []
    engine = make_engine(llm, "transformers")
    forward = llm.forward
    for share in (0.0, 0.85, 2.0):  # never, now and then, at every finished row
        seen = sizes.setdefault(share, [])

        @functools.wraps(forward)
        def spy(*args: Any, seen: list[int] = seen, **kwargs: Any) -> Any:
            seen.append(len(kwargs["inputs_embeds"]))
            return forward(*args, **kwargs)

        monkeypatch.setattr(llm, "forward", spy)
        monkeypatch.setattr("mixup_hf.inverter.engines.transformers._COMPACT_BELOW", share)
        results.append(
            decode(
                engine, make_prompts(), end_ids=ENDS, settings=settings, uniforms=make_uniforms()
            )
        )
    assert results[0] == results[1] == results[2]
    assert set(sizes[0.0]) == {16}
    assert sum(sizes[2.0]) <= sum(sizes[0.85]) < sum(sizes[0.0])


def test_rows_draw_from_their_own_numbers_wherever_they_stand(engine: Engine) -> None:
    prompts, uniforms = make_prompts(), make_uniforms()
    order = np.random.default_rng(1).permutation(16)
    plain = decode(engine, prompts, end_ids=ENDS, settings=SAMPLED, uniforms=uniforms)
    mixed = decode(engine, prompts[order], end_ids=ENDS, settings=SAMPLED, uniforms=uniforms[order])
    assert mixed == [plain[row] for row in order]


def test_no_sentence_is_empty_or_holds_an_end_token(llm: LlamaForCausalLM, engine: Engine) -> None:
    vocabulary = llm.config.vocab_size
    ends = [token for token in range(vocabulary) if token != 7]
    for settings in (GREEDY, SAMPLED):
        for row in decode(
            engine, make_prompts(), end_ids=ends, settings=settings, uniforms=make_uniforms()
        ):
            assert row
            assert set(row) == {7}


def test_no_sentence_is_longer_than_asked_for(engine: Engine) -> None:
    settings = DecodeSettings(max_new_tokens=3, temperature=0.0)
    rows = decode(engine, make_prompts(), end_ids=[EOS], settings=settings)
    assert max(map(len, rows)) == 3


def test_sampling_needs_its_numbers(engine: Engine) -> None:
    with pytest.raises(ValueError, match="`uniforms` must be given when `temperature` > 0"):
        decode(engine, make_prompts(), end_ids=ENDS, settings=SAMPLED)


def test_decoding_leaves_the_global_generator_alone(engine: Engine) -> None:
    before = torch.get_rng_state()
    decode(engine, make_prompts(), end_ids=ENDS, settings=SAMPLED, uniforms=make_uniforms())
    assert torch.equal(torch.get_rng_state(), before)


SETTINGS = [
    DecodeSettings(temperature=temperature, top_p=top_p, top_k=top_k)
    for temperature in (0.3, 1.0, 4.0)
    for top_p in (0.05, 0.7, 1.0)
    for top_k in (1, 5, 40, 1000)
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_choices_are_those_of_the_reference(settings: DecodeSettings) -> None:
    rng = np.random.default_rng(0)
    logits, draws = rng.standard_normal((200, 40)) * 2, rng.random(200)
    chosen = choose(torch.from_numpy(logits), settings, torch.from_numpy(draws))
    expected = [reference_choice(*row) for row in zip(logits, [settings] * 200, draws, strict=True)]
    assert chosen.tolist() == expected


@pytest.mark.parametrize("top_p", [0.5, 0.8, 1.0])
def test_frequencies_are_the_probabilities_of_the_nucleus(top_p: float) -> None:
    shares = torch.tensor([0.4, 0.3, 0.2, 0.1])
    settings = DecodeSettings(temperature=1.0, top_p=top_p, top_k=10)
    draws = (torch.arange(10_000, dtype=torch.float64) + 0.5) / 10_000
    chosen = choose(shares.log().expand(10_000, 4), settings, draws)
    kept = {0.5: 2, 0.8: 3, 1.0: 4}[top_p]
    expected = shares * (torch.arange(4) < kept) / shares[:kept].sum()
    assert torch.allclose(chosen.bincount(minlength=4) / 10_000, expected, atol=2e-4)


def test_a_draw_on_the_border_belongs_to_the_next_token() -> None:
    settings = DecodeSettings(temperature=1.0, top_p=1.0)
    below, border = choose(torch.zeros(2, 2), settings, torch.tensor([0.5 - 1e-6, 0.5])).tolist()
    assert below != border


def test_temperature_sharpens_and_flattens() -> None:
    shares = torch.tensor([0.7, 0.3])
    draws = (torch.arange(10_000, dtype=torch.float64) + 0.5) / 10_000
    for temperature in (0.5, 2.0):
        settings = DecodeSettings(temperature=temperature, top_p=1.0)
        expected = shares ** (1 / temperature) / (shares ** (1 / temperature)).sum()
        chosen = choose(shares.log().expand(10_000, 2), settings, draws)
        assert chosen.bincount() / 10_000 == pytest.approx(expected, abs=2e-4)


@pytest.mark.parametrize("draw", [0.0, 1 - 2**-53, 0.5])
@pytest.mark.parametrize("settings", SETTINGS[::3], ids=str)
def test_the_outermost_draws_stay_among_the_kept_tokens(
    settings: DecodeSettings, draw: float
) -> None:
    logits = torch.randn(50, 40, generator=torch.Generator().manual_seed(0)) * 3
    logits[:, 20:] = -torch.inf
    chosen = choose(logits, settings, torch.full((50,), draw, dtype=torch.float64))
    kept = logits.topk(min(settings.top_k, 20), dim=-1).indices
    assert (kept == chosen[:, None]).any(-1).all()
    if draw == 0.0:
        assert torch.equal(chosen, logits.argmax(-1))


def test_without_temperature_the_likeliest_token_is_taken() -> None:
    logits = torch.randn(5, 40)
    assert torch.equal(choose(logits, GREEDY, None), logits.argmax(-1))
    assert torch.equal(choose(logits, GREEDY, torch.rand(5)), logits.argmax(-1))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_new_tokens": 0}, "`max_new_tokens` must be at least 1"),
        ({"temperature": -0.1}, "`temperature` must be at least 0.0.*Use 0 for greedy"),
        ({"top_p": 0.0}, "`top_p` must be greater than 0"),
        ({"top_p": 1.1}, r"`top_p` must lie in \[0.0, 1.0\].*Use 1.0 to switch"),
        ({"top_k": 0}, "`top_k` must be at least 1"),
        ({"num_candidates": 0}, "`num_candidates` must be at least 1"),
        ({"corrections": -1}, "`corrections` must be at least 0"),
        ({"close_enough": 0.0}, "`close_enough` must be greater than 0"),
        ({"close_enough": 1.2}, r"`close_enough` must lie in \[0.0, 1.0\].*It is a cosine"),
        ({"num_candidates": 2, "temperature": 0.0}, "makes them all identical. Raise"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DecodeSettings(**settings)

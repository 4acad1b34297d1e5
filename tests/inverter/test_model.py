from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from tiny import make_inverter, make_rows
from torch import Tensor
from torch.nn import functional as F

from mixup_hf import Inverter, errors
from mixup_hf.inverter.loading import describe_aligner
from mixup_hf.inverter.lora import AlignerMismatchError

TEXTS, _ = make_rows(10)
HOT: dict[str, Any] = {"temperature": 1.5, "max_new_tokens": 8}


@pytest.fixture
def embeddings(tiny_inverter: Inverter) -> Tensor:
    return tiny_inverter.encode(TEXTS)


def test_every_embedding_becomes_one_sentence_that_is_not_empty(
    tiny_inverter: Inverter, embeddings: Tensor
) -> None:
    sentences = tiny_inverter.invert(embeddings, **HOT)
    assert len(sentences) == len(TEXTS)
    for sentence in sentences:
        assert sentence == " ".join(sentence.split()) != ""
        assert "<eos>" not in sentence
    assert len(set(sentences)) > 5


def test_no_embeddings_are_no_sentences(tiny_inverter: Inverter) -> None:
    assert tiny_inverter.invert(torch.empty(0, 16)) == []


def test_the_same_call_gives_the_same_sentences(
    tiny_inverter: Inverter, embeddings: Tensor
) -> None:
    sentences = tiny_inverter.invert(embeddings, seed=3, **HOT)
    assert tiny_inverter.invert(embeddings, seed=3, **HOT) == sentences
    assert make_inverter().invert(embeddings, seed=3, **HOT) == sentences


@pytest.mark.parametrize("seeds", [(0, 1), (1, (1, 0)), ((0, 1, 2), (0, 1, 3)), (0, 2**40)])
def test_another_seed_gives_other_sentences(
    tiny_inverter: Inverter, embeddings: Tensor, seeds: tuple[Any, Any]
) -> None:
    one, two = (tiny_inverter.invert(embeddings, seed=seed, **HOT) for seed in seeds)
    assert one != two


OUT_OF_MEMORY = {
    "cpu": "[enforce fail] DefaultCPUAllocator: can't allocate memory: 9 bytes",
    "cuda": "CUDA out of memory. Tried to allocate 2.00 GiB",
}


@pytest.mark.parametrize("where", OUT_OF_MEMORY)
def test_a_batch_too_large_for_the_memory_is_halved_until_it_fits(
    tiny_inverter: Inverter, embeddings: Tensor, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = tiny_inverter.invert(embeddings, seed=1, **HOT)
    small, sizes = tiny_inverter.prompts, []

    def decode(rows: Tensor) -> Tensor:
        sizes.append(len(rows))
        if len(rows) > 3:
            raise RuntimeError(OUT_OF_MEMORY[where])
        return small(rows)

    monkeypatch.setattr(tiny_inverter, "prompts", decode)
    with pytest.warns(UserWarning, match="Out of memory while decoding .* at once") as said:
        assert tiny_inverter.invert(embeddings, seed=1, **HOT) == expected
    assert sizes == [10, 5, 2, 2, 2, 2, 2]
    assert [str(each.message).split(":")[1].split(".")[0] for each in said] == [
        " continuing with 5",
        " continuing with 2",
    ]


@pytest.mark.parametrize("message", ["CUDA out of memory.", "a shape is wrong"])
def test_one_row_too_large_and_any_other_error_are_raised(
    tiny_inverter: Inverter, embeddings: Tensor, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def decode(rows: Tensor) -> Tensor:
        raise RuntimeError(message)

    monkeypatch.setattr(tiny_inverter, "prompts", decode)
    count = 1 if "memory" in message else 4
    with pytest.raises(RuntimeError, match=message):
        tiny_inverter.invert(embeddings[:count], **HOT)


def test_numpy_integers_are_seeds(tiny_inverter: Inverter, embeddings: Tensor) -> None:
    expected = tiny_inverter.invert(embeddings, seed=3, **HOT)
    assert tiny_inverter.invert(embeddings, seed=np.int64(3), **HOT) == expected


def test_equal_embeddings_in_one_batch_are_sampled_apart(
    tiny_inverter: Inverter, embeddings: Tensor
) -> None:
    same = embeddings[:1].repeat(8, 1)
    assert len(set(tiny_inverter.invert(same, **HOT))) > 1
    assert len(set(tiny_inverter.invert(same, temperature=0.0))) == 1


@pytest.mark.parametrize("settings", [{"temperature": 0.0}, HOT], ids=["greedy", "sampled"])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_the_batch_size_changes_no_sentence_in_float32(
    tiny_inverter: Inverter, embeddings: Tensor, settings: dict[str, Any], batch_size: int
) -> None:
    expected = tiny_inverter.invert(embeddings, **settings)
    assert tiny_inverter.invert(embeddings, batch_size=batch_size, **settings) == expected


def test_the_global_generators_are_neither_read_nor_changed(
    tiny_inverter: Inverter, embeddings: Tensor
) -> None:
    def states() -> tuple[Any, ...]:
        numpy_state = np.random.get_state()
        return torch.get_rng_state().tolist(), numpy_state[1].tolist(), numpy_state[2]

    torch.manual_seed(0)
    sentences = tiny_inverter.invert(embeddings, num_candidates=2, **HOT)
    torch.manual_seed(1)
    np.random.seed(1)
    random.seed(1)
    before, python = states(), random.getstate()
    assert tiny_inverter.invert(embeddings, num_candidates=2, **HOT) == sentences
    assert states() == before
    assert random.getstate() == python


def test_of_several_candidates_the_closest_round_trip_is_kept(
    tiny_inverter: Inverter, embeddings: Tensor
) -> None:
    def closeness(count: int) -> Tensor:
        sentences = tiny_inverter.invert(embeddings, num_candidates=count, **HOT)
        return F.cosine_similarity(tiny_inverter.encode(sentences), embeddings)

    one, two, six = closeness(1), closeness(2), closeness(6)
    # The candidates of a smaller number are among those of a larger one.
    assert (two >= one - 1e-6).all()
    assert (six >= two - 1e-6).all()
    assert (six > one + 1e-4).sum() > len(TEXTS) / 2


def test_the_ends_of_an_interpolation_are_the_two_texts(tiny_inverter: Inverter) -> None:
    first, second = TEXTS[:2]
    ends = tiny_inverter.invert(tiny_inverter.encode([first, second]), temperature=0.0)
    path = tiny_inverter.interpolate(first, second, [1.0, 0.5, 0.0])
    assert [path[0], path[2]] == ends


@pytest.mark.parametrize("lam", [-0.01, 1.5, float("nan"), "0.5"])
def test_a_ratio_out_of_range_is_refused(tiny_inverter: Inverter, lam: Any) -> None:
    with pytest.raises(ValueError, match=r"`lams` must lie in \[0\.0, 1\.0\].*1 is the first text"):
        tiny_inverter.interpolate(*TEXTS[:2], [0.5, lam])


def test_ratios_may_be_numpy_numbers(tiny_inverter: Inverter) -> None:
    expected = tiny_inverter.interpolate(*TEXTS[:2], [0.0, 0.5, 1.0])
    lams = np.linspace(0, 1, 3, dtype=np.float32)
    assert tiny_inverter.interpolate(*TEXTS[:2], lams) == expected


@pytest.mark.parametrize("shape", [(16,), (2, 15), (1, 2, 16), (0,)])
def test_embeddings_of_another_shape_are_refused(
    tiny_inverter: Inverter, shape: tuple[int, ...]
) -> None:
    with pytest.raises(ValueError, match=r"`embeddings` must be of shape \(N, 16\), but got \("):
        tiny_inverter.invert(torch.zeros(shape))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 0}, "`batch_size` must be at least 1"),
        ({"top_p": 2.0}, "`top_p` must lie in"),
        ({"seed": -1}, "`seed`"),
    ],
)
def test_settings_out_of_range_are_refused(
    tiny_inverter: Inverter, embeddings: Tensor, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        tiny_inverter.invert(embeddings, **settings)


def test_embeddings_may_be_of_half_precision(tiny_inverter: Inverter, embeddings: Tensor) -> None:
    rounded = embeddings.bfloat16()
    expected = tiny_inverter.invert(rounded.float(), temperature=0.0)
    assert tiny_inverter.invert(rounded, temperature=0.0) == expected


def test_prompt_texts_change_the_sentences(tiny_inverter: Inverter, embeddings: Tensor) -> None:
    prompted = make_inverter(prompt_prefix="what is", prompt_suffix="the market")
    plain = tiny_inverter.invert(embeddings, temperature=0.0)
    assert prompted.invert(embeddings, temperature=0.0) != plain


def test_nothing_of_the_inverter_can_be_trained(tiny_inverter: Inverter) -> None:
    assert not any(each.requires_grad for each in tiny_inverter.aligner.parameters())
    assert not tiny_inverter.aligner.training


def load(folder: Path, **settings: Any) -> Inverter:
    settings = {"device": "cpu", "dtype": torch.float32, "quantization": "none"} | settings
    return Inverter.from_pretrained(folder, **settings)


def rounded(inverter: Inverter) -> Inverter:
    """The inverter with the weights that bf16 files can hold."""
    for module in (inverter.aligner, inverter.llm):
        for parameter in module.parameters():
            parameter.data = parameter.data.bfloat16().float()
    return inverter


def test_a_loaded_aligner_decodes_as_before_it_was_saved(
    saved_aligner: Callable[..., Path], embeddings: Tensor
) -> None:
    loaded, original = load(saved_aligner()), rounded(make_inverter())
    assert torch.equal(loaded.encode(TEXTS), original.encode(TEXTS))
    for settings in ({"temperature": 0.0}, HOT):
        assert loaded.invert(embeddings, **settings) == original.invert(embeddings, **settings)


def test_loading_leaves_the_random_state_of_the_script(saved_aligner: Callable[..., Path]) -> None:
    """A Trainer that is seeded before the plugin is loaded would train otherwise."""
    folder = saved_aligner()
    torch.manual_seed(0)
    before = torch.get_rng_state()
    load(folder)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("engine", ["fast", "transformers"])
def test_a_compute_type_is_taken_by_its_name(
    saved_aligner: Callable[..., Path], engine: str, embeddings: Tensor
) -> None:
    named = load(saved_aligner(), dtype="bfloat16", engine=engine)
    given = load(saved_aligner(), dtype=torch.bfloat16, engine=engine)
    assert named.llm.dtype == given.llm.dtype
    greedy = {"temperature": 0.0}
    assert named.invert(embeddings, **greedy) == given.invert(embeddings, **greedy)


@pytest.mark.parametrize("dtype", ["bf16", torch.int8, ["float32"]])
def test_other_compute_types_are_refused(saved_aligner: Callable[..., Path], dtype: Any) -> None:
    with pytest.raises(errors.InvalidInput, match="`dtype` must be one of 'float32', 'bfloat16'"):
        load(saved_aligner(), dtype=dtype)


def test_pooling_and_normalisation_come_from_the_checkpoint(
    saved_aligner: Callable[..., Path],
) -> None:
    encoder = load(saved_aligner(pooling="cls", normalize=False)).encoder
    assert (encoder.pooling, encoder.normalize) == ("cls", False)


def test_the_fingerprint_is_that_of_the_weights(saved_aligner: Callable[..., Path]) -> None:
    folder = saved_aligner()
    first = load(folder)
    assert len(first.fingerprint) == 16
    assert load(folder).fingerprint == first.fingerprint
    first.aligner.config.guidance = 0.5  # decides the sentences too
    guided = load(first.save_pretrained(folder))
    assert guided.aligner.config.guidance == 0.5
    assert guided.fingerprint != first.fingerprint
    first.aligner.config.guidance = 0.0
    first.aligner.projector.gain.data *= 2
    assert load(first.save_pretrained(folder)).fingerprint != first.fingerprint


@pytest.mark.parametrize(
    ("engine", "kept"), [("transformers", torch.bfloat16), ("fast", torch.float32)]
)
def test_bfloat16_is_a_compute_type(
    saved_aligner: Callable[..., Path], embeddings: Tensor, engine: str, kept: torch.dtype
) -> None:
    """The fast engine packs a rounded copy, and keeps what it copied as it was."""
    inverter = load(saved_aligner(), dtype=torch.bfloat16, engine=engine)
    assert inverter.engine == f"{engine}:bfloat16"
    assert inverter.llm.dtype == kept
    assert len(inverter.invert(embeddings, **HOT)) == len(TEXTS)


def test_an_aligner_is_described_without_its_partners(saved_aligner: Callable[..., Path]) -> None:
    folder = saved_aligner(encoder="nowhere/encoder", llm="nowhere/llm")
    line = describe_aligner(str(folder))
    assert line == f"{folder}: nowhere/encoder -> 3 soft tokens -> nowhere/llm"


@pytest.fixture
def with_lora(saved_aligner: Callable[..., Path], tmp_path: Path) -> tuple[Inverter, Path]:
    """An inverter whose LLM carries a LoRA that does something, and its checkpoint."""
    plain = load(saved_aligner())
    torch.manual_seed(5)
    llm = get_peft_model(
        plain.llm, LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")
    )
    for name, parameter in llm.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    inverter = rounded(Inverter(plain.encoder, plain.aligner, llm.eval(), plain.tokenizer))
    return inverter, inverter.save_pretrained(tmp_path / "with-lora")


def test_a_lora_is_saved_beside_the_projector_and_loaded_again(
    with_lora: tuple[Inverter, Path], tiny_inverter: Inverter, embeddings: Tensor
) -> None:
    inverter, folder = with_lora
    files = {path.name for path in (folder / "lora").iterdir()}
    assert files == {"adapter_config.json", "adapter_model.safetensors"}
    sentences = inverter.invert(embeddings, temperature=0.0)
    assert load(folder).invert(embeddings, temperature=0.0) == sentences
    assert tiny_inverter.invert(embeddings, temperature=0.0) != sentences


def test_the_lora_counts_for_the_fingerprint(with_lora: tuple[Inverter, Path]) -> None:
    inverter, folder = with_lora
    before = load(folder).fingerprint
    for name, parameter in inverter.llm.named_parameters():
        if "lora_B" in name:
            parameter.data *= 2
    assert load(inverter.save_pretrained(folder)).fingerprint != before


def test_a_loaded_aligner_can_be_saved_again_with_its_lora(
    with_lora: tuple[Inverter, Path], embeddings: Tensor, tmp_path: Path
) -> None:
    _, folder = with_lora
    first = load(folder)
    second = load(first.save_pretrained(tmp_path / "again"))
    assert second.fingerprint == first.fingerprint
    assert second.invert(embeddings, **HOT) == first.invert(embeddings, **HOT)


def test_a_loaded_aligner_can_be_saved_over_itself(with_lora: tuple[Inverter, Path]) -> None:
    _, folder = with_lora
    first = load(folder)
    assert load(first.save_pretrained(folder)).fingerprint == first.fingerprint


def test_a_truncated_lora_is_refused_with_the_way_out(with_lora: tuple[Inverter, Path]) -> None:
    _, folder = with_lora
    weights = folder / "lora" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(AlignerMismatchError, match="LoRA in .*fetch the aligner again"):
        load(folder)


def test_a_pickled_lora_is_refused(with_lora: tuple[Inverter, Path]) -> None:
    from safetensors.torch import load_file

    _, folder = with_lora
    weights = folder / "lora" / "adapter_model.safetensors"
    torch.save(load_file(weights), weights.with_suffix(".bin"))
    weights.unlink()
    with pytest.raises(AlignerMismatchError, match="LoRA"):
        load(folder)


def test_a_saved_lora_says_nothing_of_the_machine_it_was_made_on(
    with_lora: tuple[Inverter, Path], tmp_path: Path
) -> None:
    _, folder = with_lora
    for again in (folder, load(folder).save_pretrained(tmp_path / "again")):
        assert str(tmp_path) not in (again / "lora" / "adapter_config.json").read_text()

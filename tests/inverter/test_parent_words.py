from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tiny import make_inverter, word_tokenizer
from torch import Tensor

from mixup_hf import Inverter
from mixup_hf.inverter.engines.base import DecodeSettings
from mixup_hf.inverter.guidance import favour
from mixup_hf.inverter.prompt import SoftPrompt
from mixup_hf.inverter.sampling import decode

HINTED = {"num_hints": 2, "lexicon_words": 5, "lexicon_width": 6, "lexicon_rank": 3}
NAMES = ("red", "market", "film", "old", "song")
COUNTS = torch.tensor([50, 3, 40, 2, 5])


def words() -> Tensor:
    return torch.tensor(word_tokenizer(classifier=False).convert_tokens_to_ids(list(NAMES)))


@pytest.fixture
def make() -> Callable[..., Inverter]:
    """An inverter with a lexicon of `NAMES`, of which "red" is too common to be a hint."""

    def build(**config: Any) -> Inverter:
        inverter = make_inverter(**(HINTED | config))
        assert inverter.aligner.hints is not None
        inverter.aligner.hints.lexicon.set_words(words(), COUNTS, 1)
        inverter.prompt = SoftPrompt.build(inverter.aligner, inverter.llm, inverter.tokenizer)
        return inverter

    return build


def test_a_word_is_preferred_by_the_shares_of_the_parents_it_is_in(
    make: Callable[..., Inverter],
) -> None:
    found = make().parent_words.preferred(
        [(("old film", 0.75), ("film song", 0.25)), (("market market", 1.5), ("old", -0.5))]
    )
    red, market, film, old, song = found[0].tolist()
    assert red == market == 0
    assert film > old > song > 0
    assert old == pytest.approx(3 * song)
    assert film == pytest.approx(old + song)
    # Beyond a parent: a share above one counts as one, a negative one as none.
    assert found[1].tolist() == pytest.approx([0, film, 0, 0, 0])


def test_common_words_are_hinted_only_if_they_ask(make: Callable[..., Inverter]) -> None:
    asking = make().parent_words
    assert asking.preferred([(("red song", 1.0),)])[0, 0] == 0
    inverter = make()
    assert inverter.aligner.hints is not None
    inverter.aligner.hints.lexicon.common.zero_()
    assert inverter.parent_words.preferred([(("red song", 1.0),)])[0, 0] > 0


def test_preferred_words_come_first_and_others_fill_the_list(make: Callable[..., Inverter]) -> None:
    inverter = make()
    assert inverter.aligner.hints is not None
    lexicon = inverter.aligner.hints.lexicon
    vectors = inverter.encode(["red market"])
    plain = lexicon.best(vectors, 4)[1][0].tolist()
    preferred = inverter.parent_words.preferred([((NAMES[plain[-1]], 1.0),)])
    values, moved = lexicon.best(vectors, 4, preferred)
    assert moved[0].tolist() == [plain[-1], *plain[:-1]]
    torch.testing.assert_close(values, lexicon(vectors).gather(-1, moved))  # the lexicon's own


def test_parents_change_what_is_decoded_and_must_be_as_many_as_the_mixes(
    make: Callable[..., Inverter],
) -> None:
    inverter = make()
    vectors = inverter.encode(["red market", "old song"])
    near = [(("film", 1.0),), (("old film", 1.0),)]
    prompts = inverter.prompts(vectors)
    hinted = inverter.prompts(vectors, inverter.parent_words.preferred(near))
    assert not torch.equal(prompts[:, :2], hinted[:, :2])
    assert torch.equal(prompts[:, 2:], hinted[:, 2:])
    assert len(inverter.invert(vectors, parents=near)) == 2
    with pytest.raises(ValueError, match="`parents` must be those of 2 mixes, but got 1"):
        inverter.invert(vectors, parents=near[:1])
    mixes = inverter.interpolate("old film", "red song", [0.0, 1.0], hints="parents")
    assert len(mixes) == 2
    with pytest.raises(ValueError, match="`hints`"):
        inverter.interpolate("old film", "red song", [0.5], hints="words")  # type: ignore[arg-type]


def test_an_aligner_without_hints_cannot_take_the_parents_words() -> None:
    inverter = make_inverter()
    with pytest.raises(ValueError, match="`hints` must be 'embedding' with an aligner"):
        inverter.invert(torch.randn(1, 16), parents=[(("old film", 1.0),)])


def test_guidance_favours_what_the_embedding_makes_likelier(make: Callable[..., Inverter]) -> None:
    plain, guided = make(), make(guidance=0.5)
    vectors = plain.encode(["red market", "old song"])
    assert favour(plain.aligner, plain.llm, vectors) is None
    found = favour(guided.aligner, guided.llm, vectors)
    assert found is not None and guided.aligner.hints is not None
    lexicon = guided.aligner.hints.lexicon
    ratio = (lexicon(vectors) - lexicon.words.bias.log_softmax(-1)).clamp(-3, 8)
    torch.testing.assert_close(found[:, words()], 0.5 * ratio)
    assert int((found != 0).sum()) <= 2 * len(NAMES)
    preferred = torch.zeros(2, 5)
    preferred[:, 3] = 2.0
    more = favour(guided.aligner, guided.llm, vectors, preferred)
    assert more is not None
    torch.testing.assert_close((more - found)[:, words()[3]], torch.ones(2))


def test_a_favoured_token_is_written_once() -> None:
    class Even:
        """An engine that finds all tokens equally likely, but for a preference for the last."""

        def size_for(self, alive: int, size: int) -> int:
            return size

        def decoding(self, num_rows: int, length: int) -> Even:
            return self

        def start(self, prompts: Tensor) -> Tensor:
            return torch.tensor([[0.0, 0.0, 0.0, 0.1]] * len(prompts))

        def step(self, tokens: Tensor) -> Tensor:
            return self.start(tokens)

    nats = torch.tensor([[0.0, 2.0, 1.0, 0.0], [0.0, -1.0, 0.0, -1.0]])
    found = decode(
        Even(),  # type: ignore[arg-type]
        torch.zeros(2, 1, 2),
        end_ids=[0],
        settings=DecodeSettings(max_new_tokens=3, temperature=0.0),
        favour=nats,
    )
    assert found[0] == [1, 2, 3]  # what has been written is no longer favoured
    assert found[1] == [2]  # what is disfavoured stays so; then the end comes first
    assert nats[0, 1] == 2.0  # the caller's tensor is not touched


def test_a_row_that_is_decoded_again_keeps_its_parents_length_and_random_numbers(
    make: Callable[..., Inverter], monkeypatch: pytest.MonkeyPatch
) -> None:
    inverter = make()
    texts, vectors = ["old film", "red song", "market"], torch.eye(3, 16)
    asked: list[list[str]] = []
    written: list[tuple[Any, ...]] = []
    preferred, write = inverter.parent_words.preferred, inverter.writer.write

    def spied(parents: Any) -> Tensor:
        asked.append([text for ((text, _),) in parents])
        return preferred(parents)

    def spy(prompts: Tensor, settings: Any, streams: Any, **given: Any) -> list[str]:
        written.append((len(prompts), streams, given["lengths"]))
        return write(prompts, settings, streams, **given)

    # The first attempts at rows 0 and 2 come back exactly, the one at row 1 does not.
    monkeypatch.setattr(inverter, "encode", lambda found: vectors[[0, 0, 2]][: len(found)])
    monkeypatch.setattr(inverter.parent_words, "preferred", spied)
    monkeypatch.setattr(inverter.writer, "write", spy)
    near = [((text, 1.0),) for text in texts]
    settings: dict[str, Any] = {"corrections": 1, "close_enough": 0.9, "seed": 7}
    inverter.invert(vectors, parents=near, lengths=[4, 5, 6], **settings)
    assert asked == [texts, ["red song"]]
    assert written == [
        (3, [(7, 0, 0), (7, 0, 1), (7, 0, 2)], [4, 5, 6]),
        (1, [(7, 1, 1)], [5]),
    ]

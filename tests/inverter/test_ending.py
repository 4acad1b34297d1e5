"""Wanted lengths: sentences end near them, where an end is likely, on every engine."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from tiny import SPECIAL, make_inverter, make_llm
from torch import Tensor

from mixup_hf.errors import InvalidInput
from mixup_hf.inverter.ending import EndSearch, EndTokens
from mixup_hf.inverter.engines import make_engine
from mixup_hf.inverter.engines.base import DecodeSettings, Engine
from mixup_hf.inverter.sampling import decode

EOS = SPECIAL.index("<eos>")
END, STOP, DIGIT, WORD = 0, 1, 2, 3  # a vocabulary of four tokens
TOKENS = EndTokens(
    *(torch.tensor(ids, dtype=torch.long) for ids in ([END], [STOP], [DIGIT], [], []))
)
NONE = torch.tensor([], dtype=torch.long)
SAMPLED = DecodeSettings(max_new_tokens=16, temperature=1.0, top_k=20)


def searched(
    wanted: int, ends: Sequence[float], stops: Sequence[float] = (), last: int = WORD
) -> list[int]:
    """What is kept of a sentence of words where an end after i tokens has probability `ends[i]`."""
    search = EndSearch(torch.tensor([wanted]), TOKENS)
    row, alive = torch.tensor([0]), torch.tensor([True])
    for step, end in enumerate(ends):
        stop = stops[step] if stops else 1e-9
        shares = torch.tensor([[end, stop, 1e-9, 1 - end - stop]])
        search.look(shares.log(), row, step, torch.tensor([last]) if step else None, alive)
        if bool(search.over(row, step)):
            break
    return search.cut(0, [last] * len(ends))


def test_a_sentence_is_cut_where_an_end_is_likeliest_near_its_length() -> None:
    rare = 1e-6
    assert len(searched(5, [0, *[rare] * 5, 0.3, rare, rare])) == 6
    assert len(searched(5, [0, *[rare] * 3, 0.3, *[rare] * 6])) == 4
    assert len(searched(5, [0, *[0.01] * 12])) == 5  # all the same: the length decides
    assert len(searched(5, [0, *[rare] * 18, 0.9])) < 19  # too far away


def test_a_closing_mark_stands_for_an_end_but_not_after_a_digit() -> None:
    rare = 1e-6
    ends, stops = [0, *[rare] * 6], [0, *[rare] * 3, 0.5, rare, rare]
    assert searched(4, ends, stops) == [WORD] * 4 + [STOP]
    assert STOP not in searched(4, ends, stops, last=DIGIT)


def test_no_token_is_decoded_once_no_later_end_can_be_better() -> None:
    search = EndSearch(torch.tensor([3, 3]), TOKENS)
    rows, alive = torch.tensor([0, 1]), torch.tensor([True, True])
    shares = torch.tensor([[0.9, 1e-9, 1e-9, 0.1], [1e-6, 1e-9, 1e-9, 1.0]])
    search.look(shares.log(), rows, 3, torch.tensor([WORD, WORD]), alive)
    assert search.over(rows, 3).tolist() == [True, False]


def test_an_early_end_is_held_back_and_a_late_one_is_not() -> None:
    for step, held in ((1, True), (4, False), (6, False)):
        search = EndSearch(torch.tensor([4]), TOKENS)
        logits = torch.zeros(1, 4)
        search.look(logits, torch.tensor([0]), step, torch.tensor([WORD]), torch.tensor([True]))
        assert bool(logits[0, END] < 0) is held
        assert logits[0, WORD] == 0


def test_a_finished_sentence_is_not_rated_any_more() -> None:
    search = EndSearch(torch.tensor([4]), TOKENS)
    row, good = torch.tensor([0]), torch.tensor([[0.9, 1e-9, 1e-9, 0.1]])
    search.look((good * 0.1).log(), row, 3, torch.tensor([WORD]), torch.tensor([True]))
    search.look(good.log(), row, 4, torch.tensor([WORD]), torch.tensor([False]))
    assert len(search.cut(0, [WORD] * 8)) == 3


def test_ends_are_found_among_the_tokens_of_a_tokenizer() -> None:
    class Tokens:
        texts = (".", " .", '?"', "...", "7", " J", "end", " Where", "whereas", "!")

        def __len__(self) -> int:
            return len(self.texts)

        def batch_decode(self, sequences: list[list[int]]) -> list[str]:
            return [self.texts[token] for (token,) in sequences]

    found = EndTokens.of(Tokens(), [6])
    assert found.ends.tolist() == [6]
    assert found.closing.tolist() == [0, 2, 9]
    assert found.unclosed.tolist() == [4, 5]
    assert found.asking.tolist() == [2]
    assert found.questions.tolist() == [7]


@pytest.fixture(params=["transformers", "fast"])
def engine(request: pytest.FixtureRequest) -> Engine:
    return make_engine(make_llm(), request.param, torch.float32)


def decoded(
    engine: Engine, prompts: Tensor, rows: Sequence[int], **barred: Sequence[int]
) -> list[list[int]]:
    """Rows of a batch decoded together; row r has the wanted length r % 8 + 1."""
    wanted = torch.tensor([row % 8 + 1 for row in rows])
    ends = torch.tensor([EOS])
    return decode(
        engine,
        prompts[list(rows)],
        end_ids=[EOS],
        settings=SAMPLED,
        uniforms=np.random.default_rng(0).random((16, 16))[list(rows)],
        search=EndSearch(wanted, EndTokens(ends, NONE, NONE, NONE, NONE)),
        **barred,
    )


def test_every_engine_ends_sentences_near_their_lengths(engine: Engine) -> None:
    prompts = torch.randn(16, 3, 32, generator=torch.Generator().manual_seed(0)) * 0.4
    found = decoded(engine, prompts, range(16))
    away = [len(tokens) - (row % 8 + 1) for row, tokens in enumerate(found)]
    assert max(map(abs, away)) <= 4
    assert abs(sum(away)) / 16 <= 1.5
    assert all(found)
    alone = [decoded(engine, prompts, [row])[0] for row in range(16)]
    assert found == alone


def test_tokens_that_may_not_begin_a_sentence_begin_none(engine: Engine) -> None:
    prompts = torch.randn(16, 3, 32, generator=torch.Generator().manual_seed(0)) * 0.4
    first = sorted({tokens[0] for tokens in decoded(engine, prompts, range(16))})
    never = first[: math.ceil(len(first) / 2)]
    begun = {tokens[0] for tokens in decoded(engine, prompts, range(16), never_first=never)}
    assert begun
    assert not begun & set(never)
    without = decoded(engine, prompts, range(16), never=never)
    assert not {token for tokens in without for token in tokens} & set(never)


def test_wanted_lengths_are_one_for_each_embedding() -> None:
    inverter = make_inverter()
    embeddings = torch.randn(3, 16)
    short, long = (
        inverter.invert(embeddings, lengths=[count] * 3, max_new_tokens=20) for count in (1, 12)
    )
    assert sum(map(len, short)) < sum(map(len, long))
    with pytest.raises(InvalidInput, match="`lengths` must give one for each of 3"):
        inverter.invert(embeddings, lengths=[4])
    with pytest.raises(InvalidInput, match="`lengths` must be at least 1"):
        inverter.invert(embeddings, lengths=[4, 0, 4])

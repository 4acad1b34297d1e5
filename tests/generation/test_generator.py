from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from tiny import make_producer
from torch import Tensor

from mixup_hf import MixedExample, runtime
from mixup_hf.mixing.interpolation import linear


def test_parents_are_embedded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    producer = make_producer()
    calls: list[int] = []
    encode = producer.encoder.encode

    def counting(texts: Sequence[str]) -> Tensor:
        calls.append(len(texts))
        return encode(texts)

    monkeypatch.setattr(producer.encoder, "encode", counting)
    producer.produce(0, 8)
    producer.produce(1, 8)
    assert calls == [24]


def test_a_chunk_is_decoded_as_one_batch_of_mixes_in_the_order_of_the_plan() -> None:
    producer = make_producer(chunk_size=4)
    decoded: list[Tensor] = []

    def invert(mixes: Tensor, seed: Sequence[int]) -> list[str]:
        decoded.append(mixes)
        return [f"{len(decoded)}-{row}" for row in range(len(mixes))]

    producer.invert = invert
    rows = producer.produce(0, 10)
    assert [len(mixes) for mixes in decoded] == [4, 4, 2]
    assert [row.text for row in rows][3:6] == ["1-3", "2-0", "2-1"]
    first, second = (
        producer.embeddings()[torch.tensor([row.parents[side] for row in rows])] for side in (0, 1)
    )
    lams = torch.tensor([row.lam for row in rows])
    assert torch.allclose(torch.cat(decoded), linear(first, second, lams), atol=1e-6)


def test_every_chunk_and_epoch_has_a_seed_of_its_own() -> None:
    seeds: list[tuple[int, ...]] = []

    def invert(mixes: Tensor, seed: Sequence[int]) -> list[str]:
        seeds.append(tuple(seed))
        return ["x"] * len(mixes)

    for run in (0, 1):
        producer = make_producer(seed=run)
        producer.invert = invert
        for epoch in (0, 1):
            producer.produce(epoch, 12)
    assert len(set(seeds)) == len(seeds) == 2 * 2 * 3


@pytest.mark.parametrize("world", [2, 3, 8])
def test_processes_share_the_chunks_and_all_get_the_rows_of_one(
    monkeypatch: pytest.MonkeyPatch, world: int
) -> None:
    alone = make_producer().produce(0, 22)
    parts: list[dict[int, list[MixedExample]]] = []
    monkeypatch.setattr(runtime, "world_size", lambda: world)
    monkeypatch.setattr(runtime, "merge", lambda part: parts.append(part) or part)
    for rank in range(world):
        monkeypatch.setattr(runtime, "rank", lambda rank=rank: rank)
        make_producer().produce(0, 22)
    chunks = [chunk for part in parts for chunk in part]
    assert sorted(chunks) == list(range(6))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    union = {chunk: rows for part in parts for chunk, rows in part.items()}
    monkeypatch.setattr(runtime, "merge", lambda part: union)
    assert make_producer().produce(0, 22) == alone


@pytest.mark.parametrize("count", [0, -3])
def test_nothing_cannot_be_produced(count: int) -> None:
    with pytest.raises(ValueError, match="`num_rows` must be at least 1"):
        make_producer().produce(0, count)


def test_embeddings_are_mixed_by_the_weights_that_give_the_ratio() -> None:
    plain, curved = make_producer(), make_producer()
    curved.mix_weights = torch.square
    decoded: dict[str, Tensor] = {}
    for name, producer in (("plain", plain), ("curved", curved)):

        def invert(mixes: Tensor, seed: Sequence[int], name: str = name) -> list[str]:
            decoded[name] = mixes
            return ["x"] * len(mixes)

        producer.invert = invert
    row, same = plain.produce(0, 1)[0], curved.produce(0, 1)[0]
    assert row == same  # ratio and label are those asked for
    first, second = plain.embeddings()[list(row.parents)]
    expected = row.lam**2 * first + (1 - row.lam**2) * second
    torch.testing.assert_close(decoded["curved"][0], expected)
    assert not torch.allclose(decoded["plain"], decoded["curved"])


def test_the_inverter_is_told_the_parents_only_if_their_words_are_hinted() -> None:
    told: list[list[list[tuple[str, float]]]] = []

    def invert(
        mixes: Tensor, seed: Sequence[int], **near: list[list[tuple[str, float]]]
    ) -> list[str]:
        told.append(near.get("parents", []))
        return ["x"] * len(mixes)

    producer = make_producer()
    producer.invert = invert
    assert producer.produce(0, 2)[0].hints == "embedding"
    producer.hints = "parents"
    rows = producer.produce(0, 2)
    assert [row.hints for row in rows] == ["parents", "parents"]
    assert told[0] == []
    for row, near in zip(rows, told[1], strict=True):
        texts = [producer.texts[parent] for parent in row.parents]
        assert near == list(zip(texts, row.shares, strict=True))

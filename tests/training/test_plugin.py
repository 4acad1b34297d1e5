from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import make_inverter, make_rows, word_tokenizer

from mixup_hf import InversedMixup, Inverter, MixupCallback, MixupCollator, MixupConfig
from mixup_hf.training import inversed as plugin_module
from mixup_hf.training.loss import soft_cross_entropy
from mixup_hf.training.weight_average import WeightAverage

TEXTS, LABELS = make_rows(12)
SETTINGS: dict[str, Any] = {"max_new_tokens": 6, "chunk_size": 4}


@pytest.fixture(scope="module")
def inverter() -> Inverter:
    return make_inverter()


@pytest.fixture
def make(inverter: Inverter) -> Callable[..., InversedMixup]:
    def build(
        texts: Any = TEXTS,
        labels: Any = LABELS,
        names: Any = None,
        num: Any = None,
        config: dict[str, Any] | None = None,
        **settings: Any,
    ) -> InversedMixup:
        mixing = MixupConfig(**(SETTINGS | settings | (config or {})))
        return InversedMixup(
            inverter, texts, labels, num_labels=num, label_names=names, config=mixing
        )

    return build


@pytest.mark.parametrize("count", [1, 3, 4, 5, 12, 29])
def test_exactly_as_many_rows_are_made_as_asked_for(
    make: Callable[..., InversedMixup], count: int
) -> None:
    rows = make().generate(count)
    assert len(rows) == count
    assert [row.index for row in rows] == list(range(count))


@pytest.mark.parametrize("count", [1, 4, 9])
def test_a_stream_is_the_same_rows_a_chunk_at_a_time(
    make: Callable[..., InversedMixup], count: int
) -> None:
    chunks = list(make().stream(count))
    assert [row for chunk in chunks for row in chunk] == make().generate(count)
    assert max(len(chunk) for chunk in chunks) <= 4


def test_a_row_says_where_it_came_from(make: Callable[..., InversedMixup]) -> None:
    mixup = make(pairing="cross_class", seed=5, config={"label_source": "parents"})
    for row in mixup.generate(12, epoch=2):
        first, second = row.parents
        assert (row.seed, row.epoch, row.aligner_fingerprint) == (5, 2, "f00d")
        assert 0 <= row.lam <= 1
        expected = [0.0] * 3
        expected[LABELS[first]] += row.lam
        expected[LABELS[second]] += 1 - row.lam
        assert row.label == pytest.approx(expected, abs=1e-6)
        assert sum(row.label) == pytest.approx(1, abs=1e-6)
        assert row.text.strip() == row.text != ""


def test_a_row_is_the_decoded_mix_of_its_parents(
    make: Callable[..., InversedMixup], inverter: Inverter
) -> None:
    plain = {"form": "free", "length": "free", "temperature": 0.0}
    rows = make(weights="fixed:0.3", pairing="random", config=plain).generate(4)
    ends = inverter.encode(TEXTS)
    mixes = [0.3 * ends[row.parents[0]] + 0.7 * ends[row.parents[1]] for row in rows]
    expected = inverter.invert(torch.stack(mixes), temperature=0.0, max_new_tokens=6)
    assert [row.text for row in rows] == expected


def test_the_same_call_gives_the_same_rows(make: Callable[..., InversedMixup]) -> None:
    mixup = make()
    rows = mixup.generate(9)
    assert mixup.generate(9) == rows
    assert make().generate(9) == rows


def test_the_global_generators_neither_matter_nor_move(
    make: Callable[..., InversedMixup],
) -> None:
    torch.manual_seed(1)
    rows = make().generate(4)
    torch.manual_seed(2)
    before = torch.get_rng_state()
    assert make().generate(4) == rows
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("other", [{"seed": 1}, {"epoch": 1}])
def test_another_seed_or_epoch_gives_other_pairs_and_sentences(
    make: Callable[..., InversedMixup], other: dict[str, int]
) -> None:
    one = make().generate(12)
    two = make(seed=other.get("seed", 0)).generate(12, epoch=other.get("epoch", 0))
    assert [row.parents for row in one] != [row.parents for row in two]
    assert [row.text for row in one] != [row.text for row in two]


def test_no_seed_is_seed_zero(make: Callable[..., InversedMixup]) -> None:
    assert make(seed=None).generate(4) == make(seed=0).generate(4)


def test_a_chunk_is_the_same_alone_as_among_the_others(
    make: Callable[..., InversedMixup],
) -> None:
    rows = make().generate(10)
    for chunk in (2, 0, 1):
        alone = make().producer.chunk(0, chunk, 10)
        assert alone == rows[4 * chunk : 4 * chunk + 4]


def test_the_first_full_chunks_do_not_depend_on_how_many_rows_follow(
    make: Callable[..., InversedMixup],
) -> None:
    assert make().generate(20)[:8] == make().generate(8)


def test_chunks_draw_from_streams_of_their_own(make: Callable[..., InversedMixup]) -> None:
    mixup = make(texts=["the bank"] * 12, temperature=1.5)  # all mixes are the same embedding
    texts = [row.text for row in mixup.generate(8)]
    assert texts[:4] != texts[4:]
    assert texts[:4] != [row.text for row in mixup.generate(4, epoch=1)]


def test_each_chunk_is_reported(make: Callable[..., InversedMixup]) -> None:
    sizes: list[int] = []
    make().generate(10, on_chunk=sizes.append)
    assert sizes == [4, 4, 2]


def test_every_text_is_a_first_parent_once_in_a_round(make: Callable[..., InversedMixup]) -> None:
    rows = make().generate(12)
    assert Counter(row.parents[0] for row in rows) == dict.fromkeys(range(12), 1)


def test_names_and_indices_of_the_same_classes_give_the_same_rows(
    make: Callable[..., InversedMixup],
) -> None:
    named = make(labels=["abc"[label] for label in LABELS])
    assert named.label_names == ["a", "b", "c"]
    assert make().label_names == ["0", "1", "2"]
    assert named.generate(6) == make().generate(6)


def test_label_names_give_the_order_of_the_classes(make: Callable[..., InversedMixup]) -> None:
    names = ["abc"[label] for label in LABELS]
    mixup = make(labels=names, names=["c", "a", "b"], config={"label_source": "parents"})
    for row in mixup.generate(6):  # of one class, so it has all of the label
        assert row.label["cab".index(names[row.parents[0]])] == 1


def test_classes_without_rows_still_have_a_place_in_the_labels(
    make: Callable[..., InversedMixup],
) -> None:
    mixup = make(num=5)
    assert mixup.num_labels == 5
    assert {len(row.label) for row in mixup.generate(4)} == {5}


@pytest.mark.parametrize("tensor", [False, True])
def test_labels_may_be_a_tensor_and_texts_a_tuple(
    make: Callable[..., InversedMixup], tensor: bool
) -> None:
    labels = torch.tensor(LABELS) if tensor else tuple(LABELS)
    assert make(texts=tuple(TEXTS), labels=labels).generate(4) == make().generate(4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"texts": []}, "`texts` must hold at least one text"),
        ({"texts": ["", *TEXTS[1:]]}, r"whitespace-only text, but 1 of 12 are \(rows 0\)"),
        ({"texts": TEXTS[:-1]}, "same length, but got 11 and 12"),
        ({"labels": [1] * 12}, "at least two classes, but only '1' occurs"),
        ({"labels": ["x"] * 12}, "at least two classes, but only 'x' occurs"),
        ({"num": 13}, r"fewer rows \(12\) than classes \(13\)"),
        ({"num": 2}, r"`labels` must lie in 0\.\.1 .*\[2\]"),
        ({"labels": [-1, *LABELS[1:]]}, r"`labels` must lie in 0\.\."),
        ({"names": ["a", "b"]}, "`label_names` must hold 3 names"),
    ],
)
def test_a_training_set_that_cannot_be_mixed_is_refused(
    make: Callable[..., InversedMixup], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        make(**changes)


@pytest.mark.parametrize("argument", ["texts", "labels"])
def test_one_string_is_not_taken_for_a_list_of_letters(
    make: Callable[..., InversedMixup], argument: str
) -> None:
    good = {"texts": ["p", "q", "r"], "labels": ["x", "y", "x"]}
    make(**good)
    with pytest.raises(TypeError, match=f"`{argument}` must be a list"):
        make(**(good | {argument: "xy"}))


def test_a_text_that_is_no_string_is_named(make: Callable[..., InversedMixup]) -> None:
    with pytest.raises(
        TypeError, match=r"`texts\[3\]` must be a string, or a pair of strings, but got NoneType"
    ):
        make(texts=[*TEXTS[:3], None, *TEXTS[4:]])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weights": "fixed:1.5"}, r"lie in \[0\.0, 1\.0\], but got 1\.5"),
        ({"weights": "beta:-1"}, "`weights.alpha` must be greater than 0"),
        ({"pairing": "nearest"}, "`pairing` must be one of"),
        ({"mix_ratio": 2.0}, "`mix_ratio` must lie in"),
        ({"temperature": -1.0}, "`temperature` must be at least 0"),
        ({"num_candidates": 3, "temperature": 0.0}, "`num_candidates` = 3 .*`temperature` = 0"),
    ],
)
def test_settings_out_of_range_are_refused(
    make: Callable[..., InversedMixup], settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        make(**settings)


@pytest.mark.parametrize("count", [0, -1])
def test_no_rows_cannot_be_asked_for(make: Callable[..., InversedMixup], count: int) -> None:
    with pytest.raises(ValueError, match="must be at least 1"):
        make().generate(count)


def refuse(*args: Any, **kwargs: Any) -> Inverter:
    raise AssertionError("the aligner was loaded")


@pytest.mark.parametrize(
    ("arguments", "settings", "message"),
    [
        ((TEXTS, LABELS), {"alpha": 0.4}, "`alpha` is no known key. Known here: .*weights"),
        ((TEXTS, LABELS), {"weights": "fixed:7"}, r"lie in \[0\.0, 1\.0\]"),
        ((TEXTS, LABELS), {"quantization": "8bit"}, "`quantization` must be one of"),
        (([""], [0]), {}, "whitespace-only"),
        ((TEXTS, LABELS[1:]), {}, "same length"),
        ((TEXTS, [1] * 12), {}, "at least two classes"),
        ((TEXTS, LABELS), {"temperature": -1.0}, "`temperature` must be at least 0"),
    ],
)
def test_what_is_wrong_is_said_before_an_aligner_is_loaded(
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[Any, Any],
    settings: dict[str, Any],
    message: str,
) -> None:
    monkeypatch.setattr(plugin_module.Inverter, "from_pretrained", refuse)
    with pytest.raises(ValueError, match=message):
        InversedMixup.from_pretrained("embedded", *arguments, **settings)


def test_from_pretrained_is_the_constructor_with_a_loaded_aligner(
    saved_aligner: Callable[..., Path],
) -> None:
    folder = str(saved_aligner())
    mixup = InversedMixup.from_pretrained(
        folder, TEXTS, LABELS, num_labels=3, device="cpu", dtype=torch.float32, seed=3, **SETTINGS
    )
    by_hand = InversedMixup(
        Inverter.from_pretrained(folder, device="cpu", dtype=torch.float32),
        TEXTS,
        LABELS,
        config=MixupConfig(seed=3, **SETTINGS),
    )
    assert mixup.generate(5) == by_hand.generate(5)
    assert mixup.config.aligner == folder


def test_the_trainer_gets_a_collator_and_a_callback_that_belong_together(
    make: Callable[..., InversedMixup],
) -> None:
    mixup = make(mix_ratio=0.25, mixed_weight=0.5)
    kwargs = mixup.trainer_kwargs(word_tokenizer(classifier=True), max_length=9)
    assert set(kwargs) == {"data_collator", "callbacks"}
    collator, (callback, *others) = kwargs["data_collator"], kwargs["callbacks"]
    assert isinstance(collator, MixupCollator)
    assert isinstance(callback, MixupCallback)
    assert callback.collator is collator
    (average,) = others
    assert isinstance(average, WeightAverage)
    assert (average.share, average.optional) == (0.75, True)
    assert (collator.mix_ratio, collator.mixed_weight) == (0.25, 0.5)
    assert collator.preprocess.max_length == 9
    assert (collator.num_labels, collator.label_format) == (3, "soft_labels")


def test_an_explicit_loss_comes_with_the_collator_that_feeds_it(
    make: Callable[..., InversedMixup],
) -> None:
    kwargs = make().trainer_kwargs(word_tokenizer(classifier=True), explicit_loss=True)
    assert kwargs["compute_loss_func"] is soft_cross_entropy
    assert kwargs["data_collator"].label_format == "labels"


def test_switched_off_it_mixes_nothing(make: Callable[..., InversedMixup]) -> None:
    kwargs = make(enabled=False).trainer_kwargs(word_tokenizer(classifier=True))
    assert kwargs["data_collator"].mix_ratio == 0


def test_weights_beyond_the_parents_and_another_interpolation(inverter: Inverter) -> None:
    config = MixupConfig(weights="epbeta:eps=0.5", interpolation="slerp", **SETTINGS)
    mixup = InversedMixup(inverter, TEXTS, LABELS, config=config)
    assert mixup.producer.interpolation == "slerp"
    rows = mixup.generate(20)
    assert len(rows) == 20
    assert any(not 0 <= row.lam <= 1 for row in rows)
    for row in rows:
        assert sum(row.label) == pytest.approx(1)
        assert all(0 <= share <= 1 for share in row.label)
    with pytest.raises(ValueError, match="`interpolation` must be one of"):
        MixupConfig(interpolation="cubic")

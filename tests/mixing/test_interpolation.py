from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from mixup_hf.data.targets import class_indices
from mixup_hf.mixing.interpolation import (
    INTERPOLATIONS,
    linear,
    linear_renorm,
    mix,
    mix_targets,
    slerp,
)


def soft_labels(
    first: torch.Tensor, second: torch.Tensor, lams: torch.Tensor, num_labels: int
) -> torch.Tensor:
    targets = F.one_hot(torch.stack([first, second], dim=1), num_labels).float()
    return mix_targets(targets, torch.stack([lams, 1 - lams], dim=1))


def test_lam_is_the_weight_of_the_first_parent() -> None:
    first, second = torch.tensor([[1.0, 0.0]] * 3), torch.tensor([[0.0, 10.0]] * 3)
    mixes = linear(first, second, torch.tensor([1.0, 0.25, 0.0]))
    assert torch.equal(mixes, torch.tensor([[1.0, 0.0], [0.25, 7.5], [0.0, 10.0]]))


def test_mixes_keep_the_type_of_the_embeddings() -> None:
    rows = torch.ones(2, 3)
    assert linear(rows, rows, torch.tensor([0.3, 0.7], dtype=torch.float64)).dtype == torch.float32


def test_labels_are_mixed_like_embeddings() -> None:
    first, second = torch.tensor([0, 2, 1]), torch.tensor([1, 2, 0])
    labels = soft_labels(first, second, torch.tensor([0.75, 0.5, 0.0]), 3)
    expected = torch.tensor([[0.75, 0.25, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
    assert torch.equal(labels, expected)
    assert labels.dtype == torch.float32


@given(st.data(), st.integers(2, 6))
def test_soft_labels_are_distributions_over_the_parents_classes(
    data: st.DataObject, num_labels: int
) -> None:
    classes = st.integers(0, num_labels - 1)
    rows = data.draw(st.lists(st.tuples(classes, classes, st.floats(0, 1)), min_size=1, max_size=8))
    first, second, lams = (torch.tensor(column) for column in zip(*rows, strict=True))
    labels = soft_labels(first, second, lams.double(), num_labels)
    assert labels.shape == (len(rows), num_labels)
    assert torch.allclose(labels.sum(-1), torch.ones(len(rows)), atol=1e-6)
    assert (labels >= 0).all()
    for row, (one, other, lam) in enumerate(rows):
        assert labels[row, one] == pytest.approx(1.0 if one == other else lam, abs=1e-6)
        assert set(labels[row].nonzero()[:, 0].tolist()) <= {one, other}


def test_class_names_are_numbered_in_sorted_order() -> None:
    assert class_indices(["b", "a", "b"], None, None) == ([1, 0, 1], ["a", "b"])


def test_given_names_decide_the_order_and_may_name_classes_without_rows() -> None:
    indices, names = class_indices(["b", "a", "b"], None, ["c", "b", "a"])
    assert (indices, names) == ([1, 2, 1], ["c", "b", "a"])


@pytest.mark.parametrize(
    "labels",
    [
        [0, 2, 1],
        np.array([0, 2, 1]).tolist(),
        list(np.array([0, 2, 1], dtype=np.int32)),
        list(torch.tensor([0, 2, 1])),
    ],
)
def test_integers_of_any_kind_are_class_indices(labels: list[Any]) -> None:
    indices, names = class_indices(labels, None, None)
    assert (indices, names) == ([0, 2, 1], ["0", "1", "2"])
    assert all(type(index) is int for index in indices)


def test_num_labels_may_exceed_the_classes_that_occur() -> None:
    assert class_indices([0, 1, 0], 3, None) == ([0, 1, 0], ["0", "1", "2"])


def test_indices_take_the_names_that_are_given() -> None:
    assert class_indices([0, 1, 0], None, ["x", "y"]) == ([0, 1, 0], ["x", "y"])


@pytest.mark.parametrize(
    ("labels", "num_labels", "names", "message"),
    [
        ([0, 3, 1], 3, None, r"`labels` must lie in 0\.\.2 .*got \[3\]"),
        ([0, -1, 1], None, None, r"`labels` must lie in 0\.\..*\[-1\]"),
        (["a", "b", "c"], None, ["a", "b"], r"be among label_names.*\['c'\]"),
        (["a", "b", "a"], 3, None, "`num_labels` must equal the number of classes"),
        ([0, 1, 1], 2, ["only"], "`label_names` must hold 2 names"),
        ([1, 1, 1], 2, None, "at least two classes, but only '1' occurs in 3 rows"),
        (["a", "a"], None, None, "at least two classes, but only 'a' occurs"),
        ([0, 2], None, None, r"fewer rows \(2\) than classes \(3\)"),
        ([0, 10**12], None, None, r"fewer rows \(2\) than classes \(more than 1000000000\)"),
        ([0, 10**400], None, None, "class indices count from 0"),
        (["a", "b"], None, ["a", "b", "c"], r"fewer rows \(2\) than classes \(3\)"),
    ],
)
def test_labels_that_cannot_be_trained_on_are_refused(
    labels: list[Any], num_labels: int | None, names: list[str] | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        class_indices(labels, num_labels, names)


@pytest.mark.parametrize("odd", [1.0, True, None, [0, 1], "b", {"a": 1}])
def test_a_label_of_another_kind_is_named_by_its_row(odd: Any) -> None:
    with pytest.raises(TypeError, match=r"`labels\[2\]` must be a class index.*, but got"):
        class_indices([0, 1, odd, 1], None, None)


@pytest.mark.parametrize("odd", [torch.tensor(0.5), np.array([0, 1]), torch.tensor([0, 1])])
def test_tensors_that_are_no_integers_are_no_class_indices(odd: Any) -> None:
    with pytest.raises(TypeError, match=r"`labels\[1\]` must be a class index"):
        class_indices([0, odd, 1], None, None)


def test_a_class_name_given_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="label_names"):
        class_indices(["a", "b", "a"], None, ["a", "b", "a"])


def vectors(unit: bool = True) -> tuple[torch.Tensor, torch.Tensor]:
    first, second = torch.randn(2, 6, 8, generator=torch.Generator().manual_seed(0))
    if not unit:
        return first, second
    return tuple(v / v.norm(dim=-1, keepdim=True) for v in (first, second))  # type: ignore[return-value]


@pytest.mark.parametrize("name", INTERPOLATIONS)
@pytest.mark.parametrize("unit", [True, False])
def test_the_ends_of_every_interpolation_are_the_parents(name: str, unit: bool) -> None:
    first, second = vectors(unit)
    torch.testing.assert_close(INTERPOLATIONS[name](first, second, torch.ones(6)), first)
    torch.testing.assert_close(INTERPOLATIONS[name](first, second, torch.zeros(6)), second)


@given(st.floats(-0.3, 1.3))
def test_mixes_of_unit_vectors_stay_unit_vectors(lam: float) -> None:
    first, second = vectors()
    for interpolate in (linear_renorm, slerp):
        lengths = interpolate(first, second, torch.full((6,), lam)).norm(dim=-1)
        torch.testing.assert_close(lengths, torch.ones(6), rtol=1e-4, atol=1e-4)


def test_linear_mixes_are_shorter_and_renorm_keeps_their_direction() -> None:
    first, second = torch.eye(8)[:1], torch.eye(8)[1:2]
    half = torch.tensor([0.5])
    assert float(linear(first, second, half).norm()) == pytest.approx(0.5**0.5)
    direction = torch.nn.functional.cosine_similarity(
        linear(first, second, half), linear_renorm(first, second, half)
    )
    assert float(direction) == pytest.approx(1)


def test_slerp_goes_in_equal_angles() -> None:
    first, second = torch.eye(8)[:1], torch.eye(8)[1:2]
    third = slerp(first, second, torch.tensor([1 / 3]))
    assert float((third @ first.T).acos()) == pytest.approx(np.pi / 3, abs=1e-4)
    # and beyond the first parent, on the same circle
    beyond = slerp(first, second, torch.tensor([4 / 3]))
    assert float((beyond @ second.T).acos()) == pytest.approx(2 * np.pi / 3, abs=1e-4)


def test_slerp_of_parents_on_one_line_is_linear_renorm() -> None:
    first = torch.randn(3, 8)
    lams = torch.tensor([0.2, 0.5, 0.9])
    for second in (2 * first, -first):
        torch.testing.assert_close(slerp(first, second, lams), linear_renorm(first, second, lams))
        assert torch.isfinite(slerp(first, second, lams)).all()


def test_a_weight_beyond_a_parent_gives_that_parents_label() -> None:
    first, second = torch.tensor([0, 0]), torch.tensor([1, 1])
    found = soft_labels(first, second, torch.tensor([1.2, -0.1]), 3)
    torch.testing.assert_close(found, torch.tensor([[1.0, 0, 0], [0, 1, 0]]))


def three_parents() -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    shares = torch.rand(4, 3, generator=draw)
    return torch.randn(4, 3, 5, generator=draw), shares / shares.sum(1, keepdim=True)


def test_m_parents_are_summed_by_their_weights() -> None:
    parents, shares = three_parents()
    expected = torch.stack([shares[row] @ parents[row] for row in range(4)])
    torch.testing.assert_close(mix(parents, shares), expected)
    renormed = mix(parents, shares, "linear_renorm")
    torch.testing.assert_close(F.normalize(renormed, dim=-1), F.normalize(expected, dim=-1))
    lengths = (shares * parents.norm(dim=-1)).sum(1)
    torch.testing.assert_close(renormed.norm(dim=-1), lengths)


@pytest.mark.parametrize("name", INTERPOLATIONS)
def test_two_of_m_parents_are_the_two_of_a_pair(name: str) -> None:
    parents, _ = three_parents()
    lams = torch.tensor([0.0, 0.3, 0.5, 1.0])
    shares = torch.stack([lams, 1 - lams], dim=1)
    pair = INTERPOLATIONS[name](parents[:, 0], parents[:, 1], lams)
    assert torch.equal(mix(parents[:, :2], shares, name), pair)


def test_more_than_two_parents_have_no_slerp() -> None:
    with pytest.raises(ValueError, match="'slerp' mixes two parents, but `weights` draws 3"):
        mix(*three_parents(), "slerp")


def test_real_targets_go_on_beyond_the_parents_and_labels_do_not() -> None:
    targets = torch.tensor([[[1.0], [3.0]], [[1.0], [3.0]]])
    shares = torch.tensor([[1.25, -0.25], [0.5, 0.5]])
    assert mix_targets(targets, shares, bounded=False).tolist() == [[0.5], [2.0]]
    assert mix_targets(targets, shares).tolist() == [[1.0], [2.0]]


def test_labels_of_m_parents_sum_to_one() -> None:
    _, shares = three_parents()
    labels = torch.eye(3)[torch.tensor([[0, 1, 1], [2, 2, 2], [0, 1, 2], [1, 0, 0]])]
    mixed = mix_targets(labels, shares)
    torch.testing.assert_close(mixed.sum(1), torch.ones(4))
    torch.testing.assert_close(
        mixed[0], torch.stack([shares[0, 0], shares[0, 1:].sum(), torch.tensor(0.0)])
    )

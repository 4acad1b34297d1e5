"""Labels of rows that may have several."""

from __future__ import annotations

import numbers
from typing import Any

import torch
from torch import Tensor

from mixup_hf import errors


def multi_hot(rows: list[list[Any]]) -> Tensor:
    """Labels of one 0 or 1 per class as a tensor (N, C), float32.

    Raises:
        InvalidInput: Rows differ in length, or hold something else.
    """
    widths = {len(row) for row in rows}
    if len(widths) > 1:
        raise errors.InvalidInput(
            f"`labels` are lists of {min(widths)} to {max(widths)} values. Multi-label rows need "
            "one 0 or 1 per class; labels of single tokens cannot be mixed."
        )
    for value in (value for row in rows for value in row):
        if not isinstance(value, (numbers.Real, Tensor)):
            raise errors.bad("labels", "hold class names, or 0 and 1, in lists", value)
    values = torch.tensor([[float(value) for value in row] for row in rows])
    if not ((values == 0) | (values == 1)).all():
        raise errors.bad("labels", "hold only 0 and 1 in lists", "other values")
    return values

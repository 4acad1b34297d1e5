"""Unlabelled texts as a user gives them: checked, and freed of what must not be trained on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mixup_hf import errors, runtime
from mixup_hf.data.text_pairs import are_pairs, join_sides
from mixup_hf.judging.leaks import LeakError, LeakGuard, repeated_texts, shared_texts


def checked_unlabeled(
    given: Sequence[Any], texts: Sequence[str], eval_texts: Sequence[str], leaks: str
) -> list[str]:
    """The unlabelled texts that may be trained on, each once.

    Left out, with a count in the log: texts that occur among the training texts or earlier among
    the unlabelled ones, and near-duplicates of evaluation texts.

    Args:
        given: What the user gave: texts, or pairs of texts where the training texts are pairs.
        texts: The training texts (N).
        eval_texts: The texts the model is evaluated on.
        leaks: What happens to near-duplicates of evaluation texts: `drop`, `fail` or `off`.

    Raises:
        LeakError: With `fail`, an unlabelled text nearly equals an evaluation text.
        InvalidInput: An empty text; pairs where the training texts are none, or the other way
            round; or no text is left.
    """
    if not len(given):
        return []
    joined = join_sides("unlabeled_texts", list(given))
    errors.texts("unlabeled_texts", joined)
    if are_pairs(joined) != are_pairs(texts):
        kind = "pairs of texts" if are_pairs(texts) else "texts"
        raise errors.bad("unlabeled_texts", f"hold {kind}, as the training set does", given[0])
    known = {*shared_texts(joined, texts), *repeated_texts(joined)}
    kept = [text for row, text in enumerate(joined) if row not in known]
    safe = kept if leaks == "off" else _without_leaks(kept, eval_texts, fail=leaks == "fail")
    if len(safe) < len(joined):
        runtime.log(
            f"{len(joined) - len(safe)} of {len(joined)} unlabelled texts are left out: "
            f"{len(known)} repeat a training text or one another, {len(kept) - len(safe)} nearly "
            "equal evaluation texts"
        )
    if not safe:
        raise errors.InvalidInput(
            f"None of the {len(joined)} unlabelled texts is left: all are training texts, or "
            "nearly equal evaluation texts. Give other texts, or leave `unlabeled_texts` out."
        )
    return safe


def _without_leaks(texts: Sequence[str], eval_texts: Sequence[str], *, fail: bool) -> list[str]:
    if not eval_texts:
        return list(texts)
    guard = LeakGuard(eval_texts)
    kept: list[str] = []
    for text in texts:
        near = guard.near(text)
        if near is None:
            kept.append(text)
        elif fail:
            raise LeakError(
                f"An unlabelled text is a near-duplicate of an evaluation text: {text!r} and "
                f"{near!r}. Set `leaks: drop` to leave such texts out."
            )
    return kept

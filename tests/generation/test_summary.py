from __future__ import annotations

from dataclasses import replace

from tiny import make_producer

from mixup_hf.generation.summary import summarize


def test_rows_are_counted_by_what_was_done_about_them() -> None:
    plain = replace(make_producer().produce(0, 1)[0], text="one two", label=(0.2, 0.8, 0.0))
    doubtful = replace(plain, events=("intrusion",), attempts=3)
    rows = [
        plain,
        replace(doubtful, mitigation="redrawn:pair", text="three four five six"),
        replace(doubtful, mitigation="parent", label=(1.0, 0.0, 0.0)),
        replace(doubtful, mitigation="relabelled", attempts=1),
    ]
    found = summarize(rows)
    assert (found.rows, found.doubtful, found.redrawn) == (4, 3, 2)
    assert (found.relabelled, found.copies, found.downweighted) == (1, 1, 0)
    assert found.by_class == {1: 3, 0: 1}
    assert found.distinct == 0.5
    assert found.mean_words == 2.5
    assert "1 copied from a training row" in str(found)
    assert found.figures()["copied_share"] == 0.25
    assert summarize([]).figures()["generated_rows"] == 0

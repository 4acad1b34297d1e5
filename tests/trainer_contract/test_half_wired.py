"""The collator without its callback, or the callback without it, does not go unnoticed."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from attaching import CLASSES, TEXTS, TOKENIZER, make_mixup, plain_trainer, tokenized
from torch.utils.data import DataLoader
from transformers import EarlyStoppingCallback

from mixup_hf.errors import MixupError

WARNING = "This MixupCollator has no MixupCallback"


@pytest.fixture(autouse=True)
def warnings_only(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)


def test_the_collator_alone_warns_once_with_the_line_that_helps(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """`data_collator=kw["data_collator"], callbacks=[EarlyStopping...]`."""
    kwargs = make_mixup(TEXTS, CLASSES).trainer_kwargs(TOKENIZER)
    trainer = plain_trainer(
        tmp_path,
        data_collator=kwargs["data_collator"],
        callbacks=[EarlyStoppingCallback(1)],
        eval_dataset=tokenized(["a new film", "the old bank"], [0, 1]),
        arguments={
            "eval_strategy": "epoch",
            "save_strategy": "epoch",
            "load_best_model_at_end": True,
            "metric_for_best_model": "loss",
        },
    )
    trainer.train()
    assert caplog.text.count(WARNING) == 1
    assert "mixup.attach(trainer)" in caplog.text
    assert "mixup.batches(loader" in caplog.text


def test_so_it_does_in_a_loop_without_a_trainer(caplog: pytest.LogCaptureFixture) -> None:
    collator = make_mixup(TEXTS, CLASSES).trainer_kwargs(TOKENIZER)["data_collator"]
    data = tokenized().remove_columns("text")
    for _ in DataLoader(data, batch_size=4, collate_fn=collator):
        pass
    assert caplog.text.count(WARNING) == 1


def test_the_callback_alone_is_refused(tmp_path: Path) -> None:
    kwargs = make_mixup(TEXTS, CLASSES).trainer_kwargs(TOKENIZER)
    trainer = plain_trainer(tmp_path, callbacks=kwargs["callbacks"])
    with pytest.raises(MixupError, match="another collator"):
        trainer.train()


@pytest.mark.parametrize("way", ["attach", "keywords", "switched off"])
def test_both_together_do_not_warn_not_even_when_evaluated_first(
    way: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = tokenized(["a new film", "the old bank"], [0, 1])
    mixup = make_mixup(TEXTS, CLASSES, enabled=way != "switched off")
    kwargs = {} if way == "attach" else mixup.trainer_kwargs(TOKENIZER)
    if way == "switched off":
        del kwargs["callbacks"]
    trainer = plain_trainer(tmp_path, eval_dataset=data, **kwargs)
    if way == "attach":
        mixup.attach(trainer)
    trainer.evaluate()
    trainer.train()
    assert WARNING not in caplog.text

"""Fixtures that several tests share."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import settings
from threadpoolctl import threadpool_limits
from tiny import make_inverter, with_random_lora, word_tokenizer
from transformers import PreTrainedTokenizerFast

from mixup_hf import Inverter

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# The same examples on every run, however slow the machine; nothing is written to disk.
settings.register_profile("steady", deadline=None, derandomize=True, database=None)
settings.load_profile("steady")


def pytest_configure(config: pytest.Config) -> None:
    """Give each of several workers one core: threads that wait for each other cost most of it."""
    if hasattr(config, "workerinput"):
        os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the processes that tests start
        threadpool_limits(1)
        torch.set_num_threads(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest test, so that no worker is left alone with it at the end."""
    items.sort(key=lambda item: item.name != "test_the_commands_run_in_their_order")


@pytest.fixture(autouse=True)
def no_sentences_from_earlier_tests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "mixup_hf.training.mix_settings.default_cache_dir", lambda: tmp_path / "cache"
    )


# Where just that is tested.
_WHOLE_FITS = {"judging", "test_contrastive_start.py", "test_ticking.py"}


@pytest.fixture(autouse=True)
def committees_that_are_fitted_quickly(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tenth of the steps, and one strength of regularization."""
    if not _WHOLE_FITS & {*request.path.parts}:
        monkeypatch.setattr("mixup_hf.judging.labels.contrastive._TURNS", 3)
        monkeypatch.setattr("mixup_hf.judging.labels.heads.STRENGTHS", (1.0,))


@pytest.fixture(autouse=True)
def no_logging_from_earlier_tests() -> Iterator[None]:
    """The command line shows INFO; a script that configures no logging does not."""
    loggers = [logging.getLogger(name) for name in (None, "mixup_hf")]
    before = [(each, each.level, list(each.handlers)) for each in loggers]
    yield
    for each, level, handlers in before:
        each.setLevel(level)
        each.handlers = handlers


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerFast:
    return word_tokenizer(classifier=True)


@pytest.fixture(scope="session")
def tiny_inverter() -> Inverter:
    return make_inverter()


@pytest.fixture
def saved_aligner(tmp_path: Path) -> Callable[..., Path]:
    """Writes a tiny aligner with its partners to disk and returns the aligner's folder."""

    def save(*, lora: bool = False, **config: Any) -> Path:
        inverter = make_inverter()
        encoder, llm = tmp_path / "encoder", tmp_path / "llm"
        inverter.encoder.model.save_pretrained(encoder)
        inverter.encoder.tokenizer.save_pretrained(encoder)
        inverter.llm.save_pretrained(llm)
        inverter.tokenizer.save_pretrained(llm)
        if lora:
            inverter.llm = with_random_lora(inverter.llm)
        inverter.aligner.config.update({"encoder": str(encoder), "llm": str(llm), **config})
        return inverter.save_pretrained(tmp_path / "aligner")

    return save

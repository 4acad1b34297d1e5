"""Methods by name: what each sets, and that all of it can be overridden."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from typer.testing import CliRunner

from mixup_hf import MixupConfig, registry
from mixup_hf.cli.main import app


@pytest.mark.parametrize(
    ("method", "weights", "pairing"),
    [
        ("inversed-mixup", "beta:0.4", "same_class"),
        ("smotext", "uniform", "smote"),
        ("structure-preserving", "epbeta:eps=0.3", "same_class"),
    ],
)
def test_a_method_sets_its_parts(method: str, weights: str, pairing: str) -> None:
    config = MixupConfig(method=method).mixing
    assert (config.weights, config.pairing) == (weights, pairing)
    assert (config.interpolation, config.source) == ("linear", "frozen")


@pytest.mark.parametrize(
    "given",
    [
        {"weights": "fixed:0.3"},
        {"pairing": "random"},
        {"interpolation": "slerp"},
        {"source": "task"},
    ],
)
@pytest.mark.parametrize("method", registry.names("method"))
def test_every_part_can_be_overridden(method: str, given: dict[str, Any]) -> None:
    plain = MixupConfig(method=method).mixing
    config = MixupConfig(method=method, **given).mixing
    for name in ("weights", "pairing", "interpolation", "source"):
        assert getattr(config, name) == given.get(name, getattr(plain, name))


def test_an_unknown_method_is_refused() -> None:
    with pytest.raises(ValueError, match="`method` must be one of 'inversed-mixup', 'smotext'"):
        MixupConfig(method="cutmix")


def test_env_prints_what_a_method_means() -> None:
    printed = CliRunner().invoke(app, ["env", "--method", "structure-preserving"]).output
    for part in (
        "epbeta:eps=0.3",
        "same_class",
        "linear",
        "100.0%",
        "2503.02645",
        "frozen",
        "prompt",
    ):
        assert part in printed


def test_another_method_replaces_what_the_first_would_have_set() -> None:
    assert replace(MixupConfig(), method="inversed-mixup") == MixupConfig(method="inversed-mixup")
    explicit = replace(MixupConfig(weights="uniform"), method="inversed-mixup")
    assert (explicit.mixing.weights, explicit.mixing.pairing) == ("uniform", "same_class")

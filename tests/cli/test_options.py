"""Every option of every command: spelled one way, explained, accepted wherever it stands."""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from mixup_hf import registry
from mixup_hf.cli.main import app
from mixup_hf.cli.options import Command, takes_settings
from mixup_hf.config import AlignConfig, FinetuneConfig
from mixup_hf.config.load import load_config
from mixup_hf.errors import InvalidInput
from mixup_hf.evaluation.experiment.config import ExperimentConfig

COMMANDS = registry.names("command")
GIVEN: list[Any] = []


@takes_settings(FinetuneConfig)
def finetune_like(overrides: Sequence[str], config: str | None = typer.Argument(None)) -> None:
    GIVEN.append((config, load_config(FinetuneConfig, None, overrides)))


@takes_settings(ExperimentConfig)
def experiment_like(overrides: Sequence[str]) -> None:
    GIVEN.append(load_config(ExperimentConfig, None, overrides))


def call(function: Any, *words: str) -> Any:
    toy = typer.Typer()
    toy.command(cls=Command)(function)
    result = CliRunner().invoke(toy, list(words))
    if result.exit_code:
        raise result.exception or AssertionError(result.output)
    return GIVEN.pop()


def options_of(name: str) -> dict[str, str | None]:
    """The spellings of a command's options, with their help."""
    (command,) = (
        each for each in typer.main.get_command(app).commands.values() if each.name == name
    )  # type: ignore[attr-defined]
    return {
        spelling: getattr(each, "help", None)
        for each in command.params
        for spelling in each.opts
        if each.param_type_name == "option"
    }


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_every_command_has_help(name: str, flag: str) -> None:
    result = CliRunner().invoke(app, [name, flag])
    assert result.exit_code == 0
    assert name in result.output


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_kebab_case_and_has_help(name: str) -> None:
    for option, text in options_of(name).items():
        assert re.fullmatch(r"--[a-z0-9]+([.-][a-z0-9]+)*|-h", option)
        assert text or option in ("--help", "-h")


def test_no_two_commands_spell_an_option_differently() -> None:
    spellings: dict[str, set[str]] = {}
    two_settings = "lorar"  # an aligner's `lora_r`; `r`, as in peft, in a model's section `lora`
    for name in COMMANDS:
        for option in options_of(name):
            spellings.setdefault(re.sub(r"[._-]", "", option), set()).add(option)
    found = {key for key, options in spellings.items() if len(options) > 1}
    assert found == {two_settings}


@pytest.mark.parametrize("name", COMMANDS)
def test_help_names_no_file_that_an_installed_package_lacks(name: str) -> None:
    entry = registry.get("command", name)
    assert "recipes/" not in (inspect.getdoc(entry) or "")


@pytest.mark.parametrize(
    "words", [("--seed", "--model", "x"), ("--model", "x", "--data.shots", "--seed=3")]
)
def test_an_option_is_not_taken_for_the_value_of_the_one_before(words: tuple[str, ...]) -> None:
    option = "--seed" if words[0] == "--seed" else "--data.shots"
    with pytest.raises(InvalidInput, match=f"`{option}` needs a value"):
        call(finetune_like, *words)


def test_an_option_written_with_an_equals_sign_may_have_the_name_of_another_as_its_value() -> None:
    needed = ("--data.dataset", "x", "--output-dir=o")
    assert call(finetune_like, *needed, "--model=--seed")[1].model == "--seed"


@pytest.mark.parametrize("words", [("c.yaml", "--seed", "3"), ("--seed", "3", "c.yaml")])
def test_options_come_before_or_after_the_file(words: tuple[str, ...]) -> None:
    needed = ("--data.dataset", "x", "--output-dir=o", "--training.max_steps", "5")
    for order in ((*words, *needed), (*needed, *words)):
        config, settings = call(finetune_like, *order)
        assert (config, settings.seed, settings.training) == ("c.yaml", 3, {"max_steps": 5})


@pytest.mark.parametrize(
    "words",
    [
        ("--data.text-column", "b"),
        ("--data.text_column", "b"),
        ("--data.text_column=b",),
        ("--text-column", "b"),
        ("--text_column=b",),
    ],
)
def test_underscores_and_hyphens_are_the_same(words: tuple[str, ...]) -> None:
    _, settings = call(finetune_like, "--data.dataset=x", "--output_dir", "o", *words)
    assert settings.data.text_column == "b"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--compare",), True),
        (("--compare", "--seed", "3"), True),
        (("--compare", "c.yaml"), True),
        (("--compare", "false"), False),
        (("--compare=false",), False),
        (("--save_model", "no", "--compare"), True),
    ],
)
def test_a_switch_needs_no_value(words: tuple[str, ...], expected: bool) -> None:
    _, settings = call(finetune_like, "--data.dataset=x", "--output-dir", "o", *words)
    assert settings.compare is expected


@pytest.mark.parametrize("option", ["--training.learning-rate", "--training.learning_rate"])
def test_training_arguments_are_options(option: str) -> None:
    needed = ("--data.dataset=x", "--output-dir", "o", "--training", "{optim: sgd}")
    _, settings = call(finetune_like, *needed, option, "1e-3", "--training.max-steps=-1")
    expected = {"optim": "sgd", "learning_rate": 1e-3, "max_steps": -1}
    assert settings.training == expected


def test_names_of_the_users_choice_keep_their_hyphens() -> None:
    words = ("--sets.my-set.train-file", "a.csv", "--sets.my-set.test_file=b.csv")
    settings = call(experiment_like, *words, "--output-dir=o", "--variants.my-arm.mix-ratio", "0.2")
    assert list(settings.sets) == ["my-set"]
    assert settings.sets["my-set"].train_file == "a.csv"
    assert settings.variants == {"my-arm": {"mix_ratio": 0.2}}
    same = [*words, "--output_dir", "o", "--variants.my-arm.mix_ratio=0.2"]
    assert load_config(ExperimentConfig, None, same) == settings


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (("finetune", "--sed", "3"), "--seed"),
        (("finetune", "--trainin.lr", "3"), "--training"),
        (("finetune", "--mixup.mix-ration=1"), "--mixup.mix-ratio"),
        (("augment", "--num-sample", "3"), "--num-samples"),
        (("align", "--max_minuts", "3"), "--max-minutes"),
    ],
)
def test_an_unknown_option_suggests_the_nearest(words: tuple[str, ...], meant: str) -> None:
    result = CliRunner().invoke(app, list(words), terminal_width=200)
    assert result.exit_code == 2
    assert meant in result.output


@pytest.mark.parametrize(
    ("name", "kind", "words"),
    [
        ("finetune", FinetuneConfig, ()),
        ("align", AlignConfig, ()),
        ("evaluate", ExperimentConfig, ()),
        ("augment", None, ()),
        ("align", None, ("--evaluate", "embedded")),
    ],
)
def test_keys_shows_type_default_and_help(
    name: str, kind: Any, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "240")
    result = CliRunner().invoke(app, [name, "--keys", *words])
    assert result.exit_code == 0
    for shown in ("type", "default", "whole number", "--"):
        assert shown in result.output
    if kind is FinetuneConfig:
        assert "--mixup.mix-ratio" in result.output
        assert "0.5" in result.output

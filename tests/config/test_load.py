from __future__ import annotations

from collections.abc import Callable
from dataclasses import FrozenInstanceError, fields
from pathlib import Path
from typing import Any

import pytest
import yaml

from mixup_hf import AlignConfig, FinetuneConfig, MixupConfig, load_config
from mixup_hf.config import build, describe

MINIMAL = {"data": {"dataset": "bbc_headlines"}, "output_dir": "runs/x"}
ALIGN = {"data": "sentences.txt", "output_dir": "runs/x"}


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def to_file(content: Any = MINIMAL) -> Path:
        path = tmp_path / "config.yaml"
        path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
        return path

    return to_file


def finetune(*overrides: str, path: Path | None = None) -> FinetuneConfig:
    needed = ["--data.dataset", "x", "--output_dir", "o"] if path is None else []
    return load_config(FinetuneConfig, path, [*needed, *overrides])


def test_the_file_gives_defaults_and_the_command_line_wins(write: Callable[..., Path]) -> None:
    path = write(MINIMAL | {"seed": 3, "model": "bert", "mixup": {"mix_ratio": 0.2}})
    config = finetune("--seed", "4", "--mixup.pairing", "random", path=path)
    assert (config.seed, config.model, config.output_dir) == (4, "bert", "runs/x")
    assert config.mixup == MixupConfig(mix_ratio=0.2, pairing="random")
    assert config.data.dataset == "bbc_headlines"


def test_the_last_of_two_options_wins() -> None:
    assert finetune("--seed", "4", "--seed=5").seed == 5


def test_without_a_file_the_command_line_is_the_config() -> None:
    config = finetune("--data.shots=5", "--mixup.enabled", "false", "--mixup.seed", "7")
    assert config.data.shots == 5
    assert (config.mixup.enabled, config.mixup.seed) == (False, 7)


@pytest.mark.parametrize("option", ["--output-dir", "--output_dir"])
def test_keys_may_be_spelled_with_hyphens(option: str) -> None:
    assert finetune(option, "elsewhere").output_dir == "elsewhere"


def test_off_is_a_word_where_words_are_wanted() -> None:
    config = finetune("--mixup.intrusion", "off", "--mixup.leaks", "off")
    assert (config.mixup.intrusion, config.mixup.leaks) == ("off", "off")
    assert finetune("--mixup.enabled", "off").mixup.enabled is False
    assert finetune("--mixup.background", "on").mixup.background is True
    assert finetune("--training.bf16", "off").training == {"bf16": False}


def test_the_test_split_decides_nothing() -> None:
    with pytest.raises(ValueError, match="would let the test split decide when mixing stops"):
        finetune("--mixup.auto_off", "true")


def test_values_are_read_as_yaml() -> None:
    config = finetune("--data.shots", "null", "--training", "{bf16: false, report_to: [a, b]}")
    assert config.data.shots is None
    assert config.training == {"bf16": False, "report_to": ["a", "b"]}


@pytest.mark.parametrize("word", ["2024", "1e3", "2024-11-24", "on", "007"])
def test_a_number_is_a_text_where_a_text_is_meant(word: str) -> None:
    config = finetune("--output-dir", word, "--model-revision", word, "--training.max-steps", "3")
    assert config.output_dir == config.model_revision == word
    assert config.training == {"max_steps": 3}
    assert finetune("--model_revision", "null").model_revision is None
    with pytest.raises(ValueError, match="`output_dir` must be text"):  # in a file it has quotes
        build(FinetuneConfig, MINIMAL | {"output_dir": 2024})


@pytest.mark.parametrize("word", ["runs/exp #2", "a: b", "[x]", "it's", "*here", "{1}", "~/runs"])
def test_a_text_is_taken_as_it_stands(word: str) -> None:
    assert finetune("--output-dir", word).output_dir == word
    assert finetune("--output-dir", '"runs"').output_dir == "runs"


def test_negative_numbers_are_values_not_options() -> None:
    assert finetune("--training.max_steps", "-1").training == {"max_steps": -1}


def test_training_arguments_are_passed_on_as_they_are() -> None:
    config = finetune("--training.num_train_epochs=2", "--training.optim", "sgd")
    assert config.training == {"num_train_epochs": 2, "optim": "sgd"}


def test_scientific_notation_is_a_number_where_a_number_is_expected(
    write: Callable[..., Path],
) -> None:
    # YAML 1.1 reads 1e-3, which has no point, as a string.
    path = write("data: d\noutput_dir: o\nnum_hints: 0\nstages:\n- {name: a, projector_lr: 1e-3}\n")
    assert load_config(AlignConfig, path).stages[0].projector_lr == 1e-3
    assert load_config(AlignConfig, path, ["--max_grad_norm", "1e-2"]).max_grad_norm == 1e-2
    assert finetune("--mixup.temperature", "5e-1").mixup.temperature == 0.5


@pytest.mark.parametrize("spelling", ["1e-3", "1.0e-3", "1E-3", "1.e-3", "0.001"])
def test_scientific_notation_is_a_number_among_the_training_arguments_too(
    write: Callable[..., Path], spelling: str
) -> None:
    path = write(
        f"data: {{dataset: x}}\noutput_dir: o\ntraining:\n  learning_rate: {spelling}\n"
        f"  optim_args: eps=1e-3\n  run_name: e3\n"
    )
    expected = {"learning_rate": 1e-3, "optim_args": "eps=1e-3", "run_name": "e3"}
    assert load_config(FinetuneConfig, path).training == expected
    assert finetune("--training.learning_rate", spelling).training["learning_rate"] == 1e-3


def test_an_unknown_key_is_an_error_that_lists_the_known_ones(write: Callable[..., Path]) -> None:
    with pytest.raises(ValueError, match="`seeed` is no known key") as caught:
        finetune(path=write(MINIMAL | {"seeed": 1}))
    assert "output_dir, save_model, seed, training" in str(caught.value)


def test_an_unknown_nested_key_lists_the_keys_beside_it() -> None:
    with pytest.raises(ValueError, match=r"`mixup\.wieghts` is no known key") as caught:
        finetune("--mixup.wieghts", "uniform")
    assert "mixup.weights" in str(caught.value)
    assert "output_dir" not in str(caught.value)


def test_an_unknown_key_of_a_stage_lists_the_keys_of_a_stage() -> None:
    content = ALIGN | {"stages": [{"name": "a"}, {"name": "b", "minute": 3}]}
    with pytest.raises(ValueError, match=r"`stages\.1\.minute` is no known key") as caught:
        build(AlignConfig, content)
    assert "minutes" in str(caught.value)


def test_all_faults_are_named_at_once() -> None:
    with pytest.raises(ValueError) as caught:
        finetune("--bogus", "1", "--seed", "many", "--mixup.mix_ratio", "3", "--data.shots", "x")
    message = str(caught.value)
    assert message.startswith("These settings cannot be used:")
    assert message.count("\n- ") == 4
    assert "`seed`" in message
    assert "'many'" in message
    assert "`mixup.mix_ratio` must lie in [0, 1)" in message


def test_missing_keys_are_named_with_what_they_mean() -> None:
    with pytest.raises(ValueError, match="`data` is missing") as caught:
        load_config(FinetuneConfig, None)
    (key,) = (each for each in describe(FinetuneConfig) if each.name == "output_dir")
    assert f"`output_dir` is missing. {key.help}" in str(caught.value)


def test_a_missing_key_of_a_stage_is_named() -> None:
    with pytest.raises(ValueError, match=r"`stages\.0\.name` is missing"):
        build(AlignConfig, ALIGN | {"stages": [{"minutes": 3}]})


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("mixup.pairing", "best", "`mixup.pairing` must be one of"),
        ("mixup.weights", "gauss", "`mixup.weights` must be one of"),
        ("mixup.weights", "fixed:2", r"must lie in \[0.0, 1.0\]"),
        ("mixup.mix_ratio", "1.0", "`mixup.mix_ratio` must"),
        ("mixup.mix_ratio", "half", r"`mixup\.mix_ratio`.*number.*'half'"),
        ("mixup.quantization", "8bit", "`mixup.quantization` must be one of"),
        ("mixup.chunk_size", "0", "`mixup.chunk_size` must be at least 1"),
        ("mixup.refill_every", "-1", "`mixup.refill_every` must be at least 0"),
        ("mixup.seed", "-1", "seed` must be at least 0"),
        ("mixup.enabled", "maybe", "`mixup.enabled` must be true or false, but got 'maybe'"),
        ("mixup.mixed_weight", "0", "mixed_weight` must be greater than 0"),
        ("mixup.rows_per_refill", "0", "rows_per_refill` must be at least 1"),
        ("mixup.temperature", "-1", "temperature` must be at least 0"),
        ("mixup.top_p", "1.5", "top_p` must lie in"),
        ("mixup.top_k", "0", "top_k` must be at least 1"),
        ("mixup.num_candidates", "0", "num_candidates` must be at least 1"),
        ("mixup.corrections", "-1", "corrections` must be at least 0"),
        ("mixup.close_enough", "1.5", "close_enough` must lie in"),
        ("mixup.max_new_tokens", "0", "max_new_tokens` must be at least 1"),
        ("mixup", "off", "`mixup` must be a group of settings"),
        ("data.shots", "0", "`data.shots` must be at least 1"),
        ("data.max_length", "3", "`data.max_length` must be at least 4"),
        ("data.train_file", "a.csv", "either `dataset`, or both"),
        ("seed", "1.5", "`seed` must be a whole number"),
        ("seed", "-1", "seed` must be at least 0"),
        ("training.seed", "1", "Set `seed` at the top"),
        ("training.output_dir", "o", "Set `output_dir` at the top"),
    ],
)
def test_a_value_that_breaks_its_rule_is_refused_before_anything_is_loaded(
    option: str, value: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        finetune(f"--{option}={value}")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"holdout": 10, "max_sentences": 10}, "`holdout` must be below max_sentences"),
        ({"max_words": 2, "min_words": 3}, "`max_words` must be at least 3"),
        ({"lora_r": 0}, "`lora_r` must be at least 1"),
        ({"max_minutes": 0}, "`max_minutes` must be greater than 0"),
        ({"stages": []}, "`stages` must name at least one"),
        ({"stages": [{"name": "a/b"}]}, "plain folder name"),
        ({"stages": [{"name": "a", "train_projector": False}]}, "'a' trains nothing"),
        ({"stages": [{"name": "a", "minutes": 0}]}, "`stages.0.minutes` must be greater"),
        ({"stages": [{"name": "a", "decay_share": 2}]}, "`stages.0.decay_share` must lie"),
        ({"stages": [{"name": "a"}, {"name": "a"}]}, "stages"),
        ({"stages": [{"name": "a"}]}, "`num_hints` = 16 needs a lexicon"),
        ({"stages": [{"name": "a", "train_lexicon": True}]}, "a separate stage"),
        ({"num_hints": 0}, "`num_hints` = 0 never uses it"),
        ({"lexicon_words": 70}, "`lexicon_words` must be at least 76"),
        ({"task": {"file": "train.csv"}}, "`task` refines an existing aligner"),
        (
            {"start_from": "embedded", "task": {"file": "t.csv", "unlabelled_share": 1}},
            "`task.unlabelled_share` must lie",
        ),
        ({"lora_layers": 0}, "`lora_layers` must lie in \\(0, 1"),
        ({"mix_share": 1.5}, "`mix_share` must lie"),
        ({"quantization": "8bit"}, "`quantization`"),
        ({"pooling": "max"}, "`pooling` must be one of"),
        ({"base_grid": "int8"}, "`base_grid` must be one of"),
        ({"num_soft_tokens": 0}, "`num_soft_tokens` must be at least 1"),
    ],
)
def test_an_alignment_that_cannot_work_is_refused_before_anything_is_loaded(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        build(AlignConfig, ALIGN | changes)


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"train_file": "a.csv"},
        {"test_file": "a.csv"},
        {"dataset": "x", "train_file": "a.csv", "test_file": "b.csv"},
    ],
)
def test_data_is_either_a_data_set_or_two_files(data: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="either `dataset`, or both `train_file` and `test_file`"):
        build(FinetuneConfig, {"data": data, "output_dir": "o"})
    files = {"train_file": "a.csv", "test_file": "b.csv"}
    assert build(FinetuneConfig, MINIMAL | {"data": files}).data.dataset is None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["seed", "1"], "Expected `--key value`, but got 'seed'"),
        (["--seed"], "`--seed` needs a value"),
        (["--seed", "--model", "x"], "`--seed` needs a value"),
        (["--output_dir.x", "1"], "`output_dir` is 'o', not a group of keys"),
        (["--training", "a: [b"], "`?--training`?.*YAML"),
    ],
)
def test_a_malformed_command_line_says_what_is_wrong(words: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        finetune(*words)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("- a\n- b\n", "must hold `key: value` lines, but holds list"),
        ("just words", "but holds str"),
        ("", "must hold `key: value` lines"),
        ("a: [1", "is not a YAML file"),
    ],
)
def test_a_file_that_is_no_config_is_named(
    write: Callable[..., Path], content: str, message: str
) -> None:
    path = write(content)
    with pytest.raises(ValueError, match=message) as caught:
        finetune(path=path)
    assert str(path) in str(caught.value)


def test_a_binary_file_is_no_config(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(ValueError, match="is not a YAML file"):
        finetune(path=path)


def test_a_file_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no config file '.*nowhere\.yaml'"):
        finetune(path=tmp_path / "nowhere.yaml")


@pytest.mark.parametrize("kind", [FinetuneConfig, AlignConfig, MixupConfig])
def test_every_key_has_a_help(kind: type) -> None:
    keys = {key.name: key.help for key in describe(kind)}
    assert all(text.strip().endswith(".") for text in keys.values())
    assert {item.name for item in fields(kind)} <= {key.split(".")[0] for key in keys}


def test_nested_keys_are_listed_with_dots() -> None:
    keys = {key.name for key in describe(FinetuneConfig)}
    assert {"seed", "data.shots", "mixup.weights", "training"} <= set(keys)
    assert not {"data", "mixup", "shots"} & set(keys)


def test_a_config_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        finetune().seed = 1  # type: ignore[misc]


def test_the_minutes_of_all_stages_are_scaled_to_fit() -> None:
    stages = [{"name": "a", "minutes": 10}, {"name": "b", "minutes": 30, "train_lora": True}]
    config = build(AlignConfig, ALIGN | {"num_hints": 0, "stages": stages, "max_minutes": 20})
    assert [config.stage_minutes(stage) for stage in config.stages] == [5, 15]
    free = build(AlignConfig, ALIGN | {"num_hints": 0, "stages": stages})
    assert [free.stage_minutes(stage) for stage in free.stages] == [10, 30]

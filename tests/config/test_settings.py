"""Settings: bounds, defaults and help stand once; bad values are one error."""

from __future__ import annotations

from dataclasses import asdict, fields, replace
from typing import Any

import numpy as np
import pytest

from mixup_hf import AlignConfig, FinetuneConfig, MixupConfig
from mixup_hf.config import DataConfig, FidelityConfig, describe
from mixup_hf.errors import InvalidInput

DATA = DataConfig(dataset="x")


def test_all_bad_values_are_one_error_in_our_words() -> None:
    with pytest.raises(InvalidInput) as caught:
        MixupConfig(mix_ratio=2, temperature="fast", pairing="smoot", temprature=1)  # type: ignore[call-arg,arg-type]
    message = str(caught.value)
    assert "- `mix_ratio` must lie in [0, 1), but got 2." in message
    assert "- `temperature` must be a number, but got 'fast'." in message
    assert "- `pairing` must be one of" in message
    assert "Did you mean 'smote'?" in message
    assert "`temprature` is no known key. Did you mean 'temperature'?" in message
    assert "pydantic" not in message
    assert caught.value.__cause__ is None


def test_a_key_of_another_group_is_found() -> None:
    with pytest.raises(InvalidInput, match=r"`mix_ratio` is no known key. .*'mixup.mix_ratio'"):
        FinetuneConfig(data=DATA, output_dir="o", mix_ratio=0.3)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"temperature": True}, "`temperature` must be a number, but got True"),
        ({"temperature": float("nan")}, "`temperature` must be a number, but got nan"),
        ({"top_k": 2.5}, "`top_k` must be a whole number, but got 2.5"),
        ({"judges": ()}, "`judges` must name at least one"),
        ({"class_weights": [1, -1]}, "`class_weights` must be balanced, or list of number"),
        ({"class_weights": "heavy"}, "`class_weights` must be balanced, or list of number"),
        ({"sampling_strategy": "most"}, "`sampling_strategy` must be auto | minority"),
        ({"engine": "vllm"}, "vllm:http"),
        ({"on_unreadable": "stop"}, "`on_unreadable` must be one of 'warn', 'fail' or 'off'"),
        ({"cache_megabytes": 0}, "`cache_megabytes` must be at least 1"),
    ],
)
def test_a_bad_value_names_its_rule(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        MixupConfig(**changes)
    assert message in str(caught.value)


def test_values_are_read_as_people_write_them() -> None:
    config = MixupConfig(temperature=1, top_k=np.int64(3), intrusion=False, class_weights=[1, 2])  # type: ignore[arg-type]
    assert (config.temperature, config.top_k, config.intrusion) == (1.0, 3, "off")
    assert config.class_weights == (1.0, 2.0)


def test_settings_are_dataclasses() -> None:
    config = MixupConfig(mix_ratio=0.25)
    assert replace(config, seed=1) == MixupConfig(mix_ratio=0.25, seed=1)
    assert asdict(config)["mix_ratio"] == 0.25
    with pytest.raises(InvalidInput, match="`mix_ratio` must lie in"):
        replace(config, mix_ratio=1)


def test_one_validation_set_at_most() -> None:
    assert DataConfig(dataset="x", validation_share=0.1).has_validation
    with pytest.raises(InvalidInput, match="at most one of validation_file"):
        DataConfig(dataset="x", validation_share=0.1, validation_split="dev")
    with pytest.raises(InvalidInput, match="`validation_split` must be used with `dataset`"):
        DataConfig(train_file="a.csv", test_file="b.csv", validation_split="dev")


def test_only_validation_rows_may_turn_mixing_off() -> None:
    mixup = MixupConfig(auto_off=True)
    with pytest.raises(InvalidInput, match="test split decide"):
        FinetuneConfig(data=DATA, output_dir="o", mixup=mixup)
    data = replace(DATA, validation_share=0.2)
    assert FinetuneConfig(data=data, output_dir="o", mixup=mixup).mixup.auto_off


@pytest.mark.parametrize(
    "kind", [MixupConfig, FinetuneConfig, AlignConfig, DataConfig, FidelityConfig]
)
def test_help_documents_every_field(kind: type) -> None:
    keys = {key.name: key for key in describe(kind)}
    for field in fields(kind):
        assert f"\n    {field.name}: " in str(kind.__doc__)
    for key in keys.values():
        assert key.type and key.help.endswith(".")


def test_a_key_is_described_by_type_bounds_and_default() -> None:
    keys = {key.name: key for key in describe(FinetuneConfig)}
    ratio = keys["mixup.mix_ratio"]
    assert (ratio.type, ratio.bounds, ratio.default) == ("number", "in [0, 1)", "0.5")
    assert (keys["output_dir"].default, keys["data.shots"].default) == (None, "null")
    assert keys["data.shots"].type == "whole number, or null"
    assert keys["mixup.judges"].default == "[knn]"
    stages = {key.name: key for key in describe(AlignConfig)}
    assert stages["stages"].default == "[0-lexicon, 1b-lora]"
    assert stages["stages[].minutes"].bounds == "greater than 0"

"""What was trained with other settings is not used again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from aligning import make_config, save_partners

from mixup_hf.align.settings import claim, digest, stage_settings
from mixup_hf.align.train import align
from mixup_hf.config import AlignConfig, StageConfig

STAGES = (StageConfig(name="a", max_steps=2, warmup_steps=0),)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"noise": 0.5}, "noise: 0.0, now 0.5"),
        ({"seed": 9}, "seed: 0, now 9"),
        ({"stages": (StageConfig(name="a", max_steps=3, warmup_steps=0),)}, "stages.a.max_steps"),
    ],
)
def test_a_finished_stage_of_other_settings_is_refused(
    tmp_path: Path, changes: dict[str, Any], named: str
) -> None:
    partners = save_partners(tmp_path)
    settings = {"stages": STAGES, "num_hints": 0}
    align(make_config(partners, tmp_path / "run", **settings))
    with pytest.raises(ValueError, match=f"was trained with settings that differ .*{named}"):
        align(make_config(partners, tmp_path / "run", **settings | changes))


def test_other_sentences_in_the_same_file_are_refused(tmp_path: Path) -> None:
    partners = save_partners(tmp_path)
    config = make_config(partners, tmp_path / "run", stages=STAGES, num_hints=0)
    align(config)
    data = Path(partners["data"])
    data.write_text("".join(reversed(data.read_text().splitlines(keepends=True))))
    with pytest.raises(ValueError, match=r"fingerprints\.sentences"):
        align(config)


def test_what_the_weights_do_not_depend_on_may_change(tmp_path: Path) -> None:
    partners = save_partners(tmp_path)
    settings = {"stages": STAGES, "num_hints": 0}
    align(make_config(partners, tmp_path / "run", **settings))
    more = (*STAGES, StageConfig(name="b", max_steps=1, warmup_steps=0))
    changes = {"log_steps": 2, "eval_sentences": 3, "cache_dir": str(tmp_path / "cache")}
    align(make_config(partners, tmp_path / "run", **settings | changes | {"stages": more}))
    assert (tmp_path / "run" / "b" / "finished.json").is_file()


def test_a_folder_is_claimed_once_something_was_saved(tmp_path: Path) -> None:
    claim(tmp_path, {"a": 1})
    claim(tmp_path, {"a": 2})  # nothing was saved yet
    (tmp_path / "checkpoint-3").mkdir()
    claim(tmp_path, {"a": 2})
    with pytest.raises(ValueError, match="a: 2, now 3"):
        claim(tmp_path, {"a": 3})
    (tmp_path / "settings.json").unlink()
    with pytest.raises(ValueError, match="older version"):
        claim(tmp_path, {"a": 2})


def test_the_digest_depends_on_texts_and_their_order() -> None:
    assert len({digest(["a", "b"]), digest(["b", "a"]), digest(["ab"]), digest(["a\nb"])}) == 4


def test_guidance_is_one_of_the_weights_settings_where_it_is_part_of_the_loss() -> None:
    settings = {"data": "x", "output_dir": "y", "num_hints": 0, "stages": STAGES, "guidance": 0.5}
    plain, guided = (
        stage_settings(AlignConfig(**settings, guided_training=each), STAGES[0], {})
        for each in (False, True)
    )
    assert "guidance" not in plain
    assert guided["guidance"] == 0.5

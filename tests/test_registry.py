"""One registry: a toy of every kind, one file each, appears everywhere without another edit."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from mixup_hf import MixupConfig, parse_weights, registry
from mixup_hf.cli import main as cli
from mixup_hf.config import build, describe
from mixup_hf.errors import InvalidInput
from mixup_hf.evaluation.experiment.config import ExperimentConfig

TOYS = {
    "pairing": """
        from mixup_hf.mixing.pairings import Pairing

        @register("pairing", "toy", help="the row before")
        class Toy(Pairing):
            def draw(self, rows, rng):
                return rows - 1
    """,
    "weights": """
        from mixup_hf.mixing.weights import TwoParents

        @register("weights", "toy", help="a constant", usage="toy:SHARE")
        class Toy(TwoParents):
            def __init__(self, share: float = 0.25, times: int = 1):
                self.share, self.times = share, times
    """,
    "method": """
        from mixup_hf.mixing.methods import Method

        register("method", "toy", help="a toy")(Method("no paper", "fixed:0.2", "random"))
    """,
    "judge": """
        @register("judge", "toy", help="always agrees")
        class Toy:
            pass
    """,
    "engine": """
        from mixup_hf.inverter.engines.base import EngineChoice

        @register("engine", "toy", help="decodes nothing")
        class Toy(EngineChoice):
            def writer(self, argument, parts):
                return None
    """,
    "curriculum": """
        @register("curriculum", "toy", help="never", usage="toy:SHARE")
        class Toy:
            def __init__(self, share: float = 0.0):
                self.share = share
    """,
    "arm": """
        @register("arm", "toy", help="every row in capitals")
        def toy(task):
            return None
    """,
    "command": """
        @register("command", "toy", help="prints a word")
        def toy():
            print("a word of the toy")
    """,
}
# The settings in which a kind is chosen.
CHOSEN_IN: dict[str, tuple[type, str, Any]] = {
    "pairing": (MixupConfig, "pairing", "toy"),
    "weights": (MixupConfig, "weights", "toy"),
    "method": (MixupConfig, "method", "toy"),
    "judge": (MixupConfig, "judges", ("toy",)),
    "engine": (MixupConfig, "engine", "toy"),
    "curriculum": (MixupConfig, "curriculum", "toy:0.5"),
    "arm": (ExperimentConfig, "arms", ("toy",)),
}
NEEDED: dict[type, dict[str, Any]] = {
    MixupConfig: {},
    ExperimentConfig: {"sets": {"x": {"dataset": "x"}}, "output_dir": "o"},
}


@pytest.fixture(params=TOYS)
def kind(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """A kind whose folder holds one more file."""
    kind: str = request.param
    lines = [line[8:] for line in TOYS[kind].splitlines()]
    head = ["from __future__ import annotations", "from mixup_hf.registry import register"]
    (tmp_path / "a_toy.py").write_text("\n".join([*head, *lines]))
    folder = import_module(registry.HOMES[kind])
    monkeypatch.setattr(folder, "__path__", [*folder.__path__, str(tmp_path)])
    registry._discover.cache_clear()
    yield kind
    registry.unregister(kind, "toy")
    sys.modules.pop(f"{registry.HOMES[kind]}.a_toy", None)
    registry._discover.cache_clear()


def test_one_file_is_all_it_takes(kind: str) -> None:
    entry = next(entry for entry in registry.entries(kind) if entry.name == "toy")
    assert f"| `{entry.usage}` | {entry.help} |" in registry.table(kind)

    if kind == "command":  # chosen by its name
        runner, app = CliRunner(), cli._build()
        assert "Prints a word" in runner.invoke(app, ["--help"]).output
        assert runner.invoke(app, ["toy"]).output.strip() == "a word of the toy"
        return
    config, field, value = CHOSEN_IN[kind]
    assert getattr(build(config, NEEDED[config] | {field: value}), field) == value
    key = next(key for key in describe(config) if key.name == field)
    assert f"{entry.usage} ({entry.help})" in key.help
    words = " ".join(str(config.__doc__).split())
    assert f"{entry.usage} ({entry.help})" in words


def test_without_the_file_the_name_is_refused() -> None:
    assert "toy" not in registry.names("command")
    for config, field, value in CHOSEN_IN.values():
        with pytest.raises(InvalidInput, match=f"`{field}` must be one of .*, but got"):
            build(config, NEEDED[config] | {field: value})


def test_another_package_adds_entries_through_an_entry_point(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Plugin:
        @staticmethod
        def load() -> None:
            registry.register("judge", "toy", help="from elsewhere")(Plugin)

    def plugins(group: str) -> list[Any]:
        return [Plugin] if group == "mixup_hf.judge" else []

    monkeypatch.setattr(registry, "entry_points", plugins)
    registry._discover.cache_clear()
    try:
        assert MixupConfig(judges=("toy",)).judges == ("toy",)
    finally:
        registry.unregister("judge", "toy")
        registry._discover.cache_clear()


def test_a_name_belongs_to_one_thing() -> None:
    with pytest.raises(InvalidInput, match="`knn` must be registered once as judge"):
        registry.names("judge")
        registry.register("judge", "knn", help="another")(object())


def test_values_of_a_specification_are_read_from_what_is_registered() -> None:
    assert parse_weights("dirichlet:2,m=4") == registry.get("weights", "dirichlet")(2.0, 4)
    with pytest.raises(InvalidInput, match="give m as a whole number, but got 'dirichlet:1,2.5'"):
        parse_weights("dirichlet:1,2.5")


@pytest.mark.parametrize("kind", [kind for kind in registry.HOMES if kind != "command"])
def test_looking_up_names_loads_no_heavy_package(kind: str) -> None:
    script = f"import sys; from mixup_hf import registry; registry.entries({kind!r})\n" + LOADED
    assert _printed(script) == "[]"


def test_settings_load_no_heavy_package() -> None:
    script = "import sys; from mixup_hf import MixupConfig; MixupConfig(); MixupConfig.__doc__\n"
    assert _printed(script + LOADED) == "[]"


LOADED = "print([m for m in ('torch', 'transformers', 'sklearn', 'datasets') if m in sys.modules])"


def _printed(script: str) -> str:
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return run.stdout.strip()

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import mixup_hf

ROOT = Path(__file__).parents[1]
HEAVY = ("torch", "numpy", "transformers", "datasets", "accelerate", "peft", "bitsandbytes")
INHERITED = ("PATH", "HOME", "TMPDIR", "LANG", "LD_LIBRARY_PATH", "OMP_NUM_THREADS", "SYSTEMROOT")

# Everything the package builds on is imported first: what changes after that is our own doing.
SIDE_EFFECTS = """
import importlib, json, logging, os, pkgutil, random, signal, sys, warnings
import accelerate, datasets, filelock, gzip, pydantic, rich.console, sacrebleu, scipy.stats
import evaluate, imblearn.over_sampling
import requests, sklearn.metrics, sklearn.model_selection, typer, numpy, torch, transformers
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification
from transformers import BertModel, DataCollatorWithPadding, DynamicCache, PreTrainedModel, Trainer
from transformers import trainer_pt_utils, trainer_utils

def state():
    loggers = {None: logging.getLogger()} | {
        name: logger
        for name, logger in logging.Logger.manager.loggerDict.items()
        if isinstance(logger, logging.Logger)
    }
    return {
        "environment": dict(os.environ),
        "logging": {
            str(name): [logger.level, logger.propagate, [repr(each) for each in logger.handlers]]
            for name, logger in loggers.items()
            if logger.level or logger.handlers or not logger.propagate
        },
        "warnings": [repr(each) for each in warnings.filters],
        "threads": torch.get_num_threads(),
        "dtype": str(torch.get_default_dtype()),
        "torch_rng": torch.get_rng_state().tolist()[:64],
        "numpy_rng": [int(each) for each in numpy.random.get_state()[1][:8]],
        "python_rng": str(random.getstate())[:200],
        "gradients": torch.is_grad_enabled(),
        "cuda": torch.cuda.is_initialized(),
        "accelerate": accelerate.PartialState._shared_state != {},
        "folder": os.getcwd(),
        "files": sorted(os.listdir()),
        "interrupt": repr(signal.getsignal(signal.SIGINT)),
    }

before = state()
import mixup_hf

names = [
    each.name
    for each in pkgutil.walk_packages(mixup_hf.__path__, "mixup_hf.")
    if not each.name.endswith("__main__")
]
for name in names:
    importlib.import_module(name)
after = state()
changed = {key: [before[key], after[key]] for key in before if before[key] != after[key]}
print("RESULT" + json.dumps({"modules": names, "changed": changed}))
"""


def run(code: str, folder: Path) -> tuple[Any, subprocess.CompletedProcess[str]]:
    # Not all of our own: importing the package may have changed it already.
    kept = {name: os.environ[name] for name in INHERITED if name in os.environ}
    environment = kept | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=folder, env=environment
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.split("RESULT")[1]), done


def test_the_public_names_are_sorted_and_there_are_about_a_dozen() -> None:
    assert mixup_hf.__all__ == sorted(mixup_hf.__all__)
    assert len(set(mixup_hf.__all__)) == len(mixup_hf.__all__)
    assert 8 <= len(mixup_hf.__all__) <= 18


@pytest.mark.parametrize("name", mixup_hf.__all__)
def test_every_public_name_resolves_and_says_what_it_is(name: str) -> None:
    value = getattr(mixup_hf, name)
    assert value.__name__ == name
    assert value.__module__.startswith("mixup_hf.")
    assert value.__doc__
    assert name in dir(mixup_hf)


def test_the_integration_by_hand_is_public_too() -> None:
    needed = {"MixupCollator", "MixupCallback", "soft_cross_entropy", "InversedMixup"}
    assert needed <= set(mixup_hf.__all__)


def test_another_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'mixup_hf' has no attribute 'MixUp'"):
        _ = mixup_hf.MixUp


def test_the_version_is_that_of_the_distribution() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f'version = "{mixup_hf.__version__}"' in text


def test_importing_the_package_loads_nothing_heavy(tmp_path: Path) -> None:
    code = f"import json, sys, mixup_hf\nfound = [n for n in {HEAVY} if n in sys.modules]"
    loaded, done = run(f"{code}\nprint('RESULT' + json.dumps(found))", tmp_path)
    assert loaded == []
    assert done.stderr == ""


def test_the_one_line_path_imports_little_beyond_the_trainer(tmp_path: Path) -> None:
    """Measured: 1.05 to 1.10 times the CPU time of `from transformers import Trainer`."""
    code = (
        "import json, sys\nfrom transformers import Trainer\nbefore = set(sys.modules)\n"
        "import mixup_hf; mixup_hf.InversedMixup\n"
        "added = {name.split('.')[0] for name in set(sys.modules) - before}\n"
        "print('RESULT' + json.dumps(sorted(added - set(sys.stdlib_module_names))))"
    )
    added, _ = run(code, tmp_path)
    allowed = {"mixup_hf", "pydantic", "pydantic_core", "annotated_types", "typing_inspection"}
    assert {name for name in added if not name.startswith("_")} <= allowed


def test_importing_any_module_changes_nothing_outside_of_it(tmp_path: Path) -> None:
    result, done = run(SIDE_EFFECTS, tmp_path)
    assert {"mixup_hf.training.inversed", "mixup_hf.inverter.model", "mixup_hf.cli.main"} <= set(
        result["modules"]
    )
    assert result["changed"] == {}
    assert done.stdout.startswith("RESULT")  # nothing was printed

"""A plain installation: the one-line path runs without any package of the extras."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# The distributions of the extras, as they are imported.
MODULES = {
    "faiss-cpu": "faiss",
    "imbalanced-learn": "imblearn",
    "rouge-score": "rouge_score",
}
# torch needs jinja2 itself; datasets needs requests itself.
ALWAYS_THERE = {"jinja2", "requests"}

BLOCK = """
import sys
class Without:
    '''Finds nothing of the blocked packages, as if they were not installed.'''
    def __init__(self, finder, blocked): self.finder, self.blocked = finder, blocked
    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] not in self.blocked:
            return self.finder.find_spec(name, path, target)
    def __getattr__(self, name): return getattr(self.finder, name)
sys.meta_path[:] = [Without(each, {blocked!r}) for each in sys.meta_path]
"""

ONE_LINE = """
import torch
from datasets import Dataset
from tiny import make_classifier, make_rows, word_tokenizer
from transformers import DataCollatorWithPadding, Trainer, TrainingArguments
from mixup_hf import InversedMixup

texts, labels = make_rows(12)
tokenizer = word_tokenizer(classifier=True)
rows = {{'text': texts, 'label': labels, **tokenizer(texts)}}
train = Dataset.from_dict(rows)
evaluation = train.select(range(2)).map(lambda row: {{'text': row['text'] + ' city'}})
args = TrainingArguments({output!r}, max_steps=2, per_device_train_batch_size=4, use_cpu=True,
                         report_to=[], save_strategy='no')
trainer = Trainer(make_classifier(), args, train_dataset=train, eval_dataset=evaluation,
                  processing_class=tokenizer, data_collator=DataCollatorWithPadding(tokenizer))
InversedMixup.from_pretrained({aligner!r}, max_new_tokens=4).attach(trainer)
trainer.train()
print('trained', sorted({blocked!r} & set(sys.modules)))
"""


def optional_modules() -> set[str]:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    used = {
        name for extra, names in extras.items() if extra not in ("all", "dev") for name in names
    }
    plain = {name.partition(">")[0] for name in used}
    return {MODULES.get(name, name) for name in plain} - ALWAYS_THERE


def test_the_one_line_path_needs_no_extra(
    saved_aligner: Callable[..., Path], tmp_path: Path
) -> None:
    blocked = optional_modules()
    assert {"typer", "sacrebleu", "gguf", "matplotlib"} <= blocked
    script = BLOCK.format(blocked=blocked) + ONE_LINE.format(
        blocked=blocked, aligner=str(saved_aligner(lora=True)), output=str(tmp_path / "out")
    )
    result = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"},
    )
    assert result.returncode == 0, result.stderr[-3000:]
    assert result.stdout.splitlines()[-1] == "trained []"


@pytest.mark.parametrize(
    ("package", "call"),
    [
        ("gguf", "EMBEDDED['smollm2-135m-instruct'].unpack(None, None)"),
        ("sacrebleu", "bleu(['a text'], ['a text'])"),
        ("requests", "_open_session(1)"),
    ],
)
def test_a_missing_extra_is_named_with_the_command(package: str, call: str) -> None:
    script = BLOCK.format(blocked={package}) + (
        "import numpy\n"
        "from mixup_hf import PairPlan\n"
        "from mixup_hf.data.embedded import EMBEDDED\n"
        "from mixup_hf.evaluation.text_scores import bleu\n"
        "from mixup_hf.inverter.engines._vllm_server import _open_session\n"
        "from mixup_hf.mixing.weights.beta import Beta\n"
        f"{call}\n"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert f"needs {package}, which is not installed: `pip install 'mixup_hf[" in result.stderr


NO_NETWORK = """
import importlib, pkgutil, sys

def watch(event, arguments):
    if event in ('socket.connect', 'socket.getaddrinfo', 'socket.gethostbyname', 'socket.sendto'):
        raise AssertionError(f'{event} {arguments[1:]}')

sys.addaudithook(watch)
import mixup_hf
for name in mixup_hf.__all__:
    getattr(mixup_hf, name)
names = [each.name for each in pkgutil.walk_packages(mixup_hf.__path__, 'mixup_hf.')]
for name in names:
    if not name.startswith('mixup_hf.evaluation.metrics.') and not name.endswith('__main__'):
        importlib.import_module(name)
print('imported', len(names))
"""


def test_importing_any_module_asks_no_network() -> None:
    result = subprocess.run([sys.executable, "-c", NO_NETWORK], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-3000:]
    assert int(result.stdout.split()[-1]) > 150

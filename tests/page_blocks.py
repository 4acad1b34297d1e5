"""Code blocks of Markdown pages, and how tests run them for a reader."""

from __future__ import annotations

import gc
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from typer.testing import CliRunner

from mixup_hf.cli.main import app

ROOT = Path(__file__).parents[1]
SCRIPTS = Path(sys.executable).parent
_BLOCK = re.compile(r"(?:^<!-- (file|not run): ([^\n]+) -->\n)?^```(\w+)\n(.*?)^```$", re.M | re.S)

_PLACES = ["London", "Paris", "Rome", "Madrid", "Berlin", "Vienna", "Lisbon"]
_PLACES += ["Dublin", "Athens", "Oslo", "Prague", "Warsaw", "Zagreb", "Bern"]


@dataclass(frozen=True)
class Block:
    """A fenced block of a page.

    Attributes:
        language: As the fence says.
        code: Its lines.
        file: The file that a reader writes it to; empty for commands and code.
        not_run: Why no test runs it; empty where one does.
    """

    language: str
    code: str
    file: str = ""
    not_run: str = ""


def read_blocks(page: str) -> list[Block]:
    """The fenced blocks of a page, in their order."""
    return [
        Block(language, code, **({kind.replace(" ", "_"): text} if kind else {}))
        for kind, text, language, code in _BLOCK.findall(page)
    ]


def write_files_of_a_reader(folder: Path, places: int = 5) -> Path:
    """What a reader has: the recipes, labelled rows (three per place to train on), sentences."""
    shutil.copytree(ROOT / "recipes", folder / "recipes")
    themes = {
        "business": ["Dollar slides ahead of {}", "Bank holds rates in {}", "Oil price up in {}"],
        "sport": ["Henman wins in {}", "Arsenal held at {}", "Record jump thrills {}"],
    }
    rows = [
        {"text": text.format(place), "label": label}
        for label, texts in themes.items()
        for text in texts
        for place in _PLACES[:places]
    ]
    for name, part in (("train", rows[::2]), ("dev", rows[1::2])):
        lines = [json.dumps(row) + "\n" for row in part]
        (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    sentences = [f"{row['text']} on day {day}." for row in rows for day in range(4)]
    (folder / "sentences.txt").write_text("\n".join(sentences) + "\n")
    (folder / "heldout.txt").write_text("\n".join(sentences[:40]) + "\n")
    subprocess.run(["gzip", "-k", "heldout.txt"], cwd=folder, check=True)
    return folder


def run(command: str, folder: Path, **environment: str) -> str:
    """Run a command in a shell, with the scripts of this very environment; return its output."""
    path = f"{SCRIPTS}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env=os.environ | {"PATH": path, "CUDA_VISIBLE_DEVICES": ""} | environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout


def run_here(command: str) -> str:
    """Run a `mixup-hf` command in this process, which has imported torch and transformers."""
    _, *words = shlex.split(command)
    gc.collect()  # the models of the command before
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, f"{command}\n{result.output[-4000:]}\n{result.exception!r}"
    return result.output

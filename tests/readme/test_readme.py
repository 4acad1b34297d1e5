"""Every command and Python block of the README runs; long ones are shortened, never left out."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path

import pytest
import torch
from hub_stub import HubStub
from page_blocks import ROOT, run, run_here, write_files_of_a_reader

from mixup_hf import registry
from mixup_hf.inverter.quantization import bf16_is_fast

README = (ROOT / "README.md").read_text(encoding="utf-8")
# What `.ci/run` runs word for word, because it sets up an environment.
OF_THE_GATE = ("first command", "test command")
# A committee that costs little, and texts that are not decoded to see whether they can be.
CHEAP = "--committee '[encoder, knn]' --on-unreadable off"
SHORT_RUN = (
    "--training.max-steps 2 --training.per-device-train-batch-size 4 --mixup.rows-per-refill 6 "
    + CHEAP.replace("--", "--mixup.")
)
SHORT_TRAINING = (
    "--encoder all-minilm-l6-v2 --llm smollm2-135m-instruct --pooling mean --max-sentences 80 "
    "--holdout 8 --max-minutes 0.1 --eval-sentences 4 --ratio-pairs 0 --use-cpu true "
    "--lexicon-from embedded --stages "
    "'[{name: 1b-lora, train_lora: true, max_steps: 2, minutes: 1}]'"
)
# A CPU without instructions for bf16 takes minutes for six sentences.
_DTYPE = "bfloat16" if bf16_is_fast(torch.device("cpu")) else "float32"
_CHEAP = "committee=('encoder', 'knn'), on_unreadable='off'"
SHORTER_SCRIPT = {
    'from_pretrained("embedded")': f'from_pretrained("embedded", rows_per_refill=6, {_CHEAP})',
    "num_train_epochs=8": "num_train_epochs=2",
    "range(100)": "range(20)",
    'eval_dataset=splits["test"]': 'eval_dataset=splits["test"].select(range(40))',
}
SHORTER_BLOCKS = {
    "num_samples=4, seed=0": f"num_samples=4, seed=0, {_CHEAP}",
    "TextSMOTE(random_state=0": "TextSMOTE(random_state=0, settings={'on_unreadable': 'off'}",
}
IN_A_SHELL = ("mixup-hf preview", "mixup-hf push")
# (beginning of a command, text in it and what takes its place, options added to it)
SHORTENED: list[tuple[str, dict[str, str], str]] = [
    (
        "mixup-hf evaluate recipes/",
        {},
        f"--arms '[oversample, smotext]' --seeds '[0]' --shots '[2]' --rows 8 {SHORT_RUN}",
    ),
    ("mixup-hf preview", {}, ""),
    (
        "mixup-hf align --evaluate embedded",
        {"300": "6", "bfloat16": _DTYPE},
        "--num-pairs 2 --num-mixes 6",
    ),
    (
        "mixup-hf align --evaluate runs/",
        {},
        f"--max-sentences 6 --num-pairs 2 --num-mixes 6 --dtype {_DTYPE}",
    ),
    ("mixup-hf finetune --data.train-file", {}, SHORT_RUN),
    ("mixup-hf augment", {"200": "6"}, CHEAP),
    ("mixup-hf explore", {}, "--port 0"),
    ("mixup-hf report", {}, ""),
    ("mixup-hf push", {}, ""),
    (
        "accelerate launch --config_file recipes/accelerate_configs/cpu_two_processes.yaml",
        {},
        f"--data.shots 3 {SHORT_RUN}",
    ),
    (
        "accelerate launch --config_file recipes/accelerate_configs/single_gpu.yaml",
        {"single_gpu": "cpu"},
        SHORT_TRAINING,
    ),
]


def blocks(language: str) -> list[tuple[str, str]]:
    """The name in the comment above each code block, or "", and its content."""
    pattern = rf"(?:<!-- ([\w ]+) -->\n)?```{language}\n(.*?)```"
    return re.findall(pattern, README, re.DOTALL)


def commands() -> list[str]:
    return [
        line
        for name, block in blocks("bash")
        if name not in OF_THE_GATE
        for line in block.splitlines()
        if line
    ]


def shortened(command: str) -> str:
    (found,) = [each for each in SHORTENED if command.startswith(each[0])]
    for old, new in found[1].items():
        assert old in command
        command = command.replace(old, new)
    return f"{command} {found[2]}"


def test_every_command_is_run_here_or_by_the_gate() -> None:
    for command in commands():
        assert sum(command.startswith(start) for start, *_ in SHORTENED) == 1, command
    gate = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    for name in OF_THE_GATE:
        assert f"<!-- {name} -->" in README
        assert f"run_block '{name}'" in gate


def test_tables_are_those_of_the_registry() -> None:
    render = runpy.run_path(str(ROOT / "recipes" / "render_tables.py"))["render"]
    assert set(re.findall(r"<!-- table: (\w+) -->", README)) == set(registry.HOMES)
    assert render(README) == README, "run: python recipes/render_tables.py README.md"


def test_links_lead_somewhere() -> None:
    targets = re.findall(r"\]\(([^)#]+)\)", README)
    for target in targets:
        assert target.startswith("https://") or (ROOT / target).exists(), target
    anchors = {
        re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-")
        for heading in re.findall(r"^#+ (.*)$", README, re.MULTILINE)
    }
    assert set(re.findall(r"\]\(#([^)]+)\)", README)) <= anchors


@pytest.fixture
def workplace(tmp_path: Path) -> Path:
    """What a reader of the README has: the recipes, and files of their own."""
    return write_files_of_a_reader(tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_commands_run_in_their_order(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workplace)
    monkeypatch.setattr("mixup_hf.explorer.server.wait", lambda: None)  # for Ctrl-C
    with HubStub() as hub:
        # Only the push goes to a hub; the rest must do without one.
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.url)
        hub_variables = {"HF_ENDPOINT": hub.url, "HF_TOKEN": "dummy"}
        for command in commands():
            # A preview and the push start as installed; other commands need no start of their own.
            if command.startswith("mixup-hf") and not command.startswith(IN_A_SHELL):
                run_here(shortened(command))
            else:
                run(shortened(command), workplace, HF_HUB_DISABLE_XET="1", **hub_variables)
        assert list(hub.repos) == ["you/bge-small-smollm2-360m"]
    assert (workplace / "runs" / "mine" / "metrics.json").is_file()
    assert (workplace / "more.csv").is_file()
    together = json.loads((workplace / "runs" / "bbc-mixup" / "metrics.json").read_text())
    assert together["processes"] == 2


@pytest.mark.slow
@pytest.mark.parametrize("code", [code for _, code in blocks("python")])
def test_python_blocks_run(
    code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (shorter,) = [(old, new) for old, new in SHORTER_BLOCKS.items() if old in code]
    (tmp_path / "block.py").write_text(code.replace(*shorter))
    runpy.run_path("block.py", run_name="__main__")
    assert capsys.readouterr().out.strip()


@pytest.mark.slow
def test_the_script_that_the_page_shows_prints_a_baseline_beside_its_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    script = (ROOT / "recipes" / "minimal.py").read_text(encoding="utf-8")
    for old, new in SHORTER_SCRIPT.items():
        assert script.count(old) == 1
        script = script.replace(old, new)
    (tmp_path / "minimal.py").write_text(script)
    runpy.run_path("minimal.py", run_name="__main__")
    line = capsys.readouterr().out.strip().splitlines()[-1]
    assert re.fullmatch(r"test accuracy: plain 0\.\d{3}, with mixup 0\.\d{3} \(one seed\)", line)
    assert line.split(":")[0] in README

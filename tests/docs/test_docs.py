"""The documentation: every command and Python block of its pages runs, shortened."""

from __future__ import annotations

import re
import runpy
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from page_blocks import ROOT, Block, read_blocks, run_here, write_files_of_a_reader

import mixup_hf
from mixup_hf import Inverter, MixupConfig, registry

DOCS = ROOT / "recipes" / "docs"
PAGES = {
    path.relative_to(DOCS / "pages").as_posix(): path.read_text(encoding="utf-8")
    for path in sorted((DOCS / "pages").rglob("*.md"))
}
RUN = ("bash", "python")
SHOWN = ("diff", "text")  # what a reader looks at, unless it is a file
MOST_NOT_RUN = 4
# Pages that take a minute or more: an alignment, two audits, an experiment.
LONG = ("how-to/encoder-and-llm.md", "how-to/experiments.md", "how-to/privacy.md")

_STEPS = "--training.max-steps 2 --training.per-device-train-batch-size 4"
# A committee that costs little, and texts that are not decoded to see whether they can be.
_MIX = "--committee '[encoder, knn]' --on-unreadable off"
_FINETUNE = f"{_STEPS} --mixup.rows-per-refill 6 {_MIX.replace('--', '--mixup.')}"
# Thirty rows in the place of two thousand headlines.
_OWN_ROWS = (
    "--data.shots 3 --data.dataset null --data.train-file train.jsonl --data.test-file dev.jsonl"
)
_EXPERIMENT = (
    f"{_STEPS} --shots '[2]' --seeds '[0]' --rows 4 --test-rows 10 {_MIX.replace('--', '--mixup.')}"
)
# What a command gets as further options: (page, beginning of the command, options).
SHORTER = [
    ("tutorial.md", "mixup-hf finetune", f"{_FINETUNE} {_OWN_ROWS}"),
    ("how-to/imbalance.md", "mixup-hf evaluate", f"{_EXPERIMENT} --imbalance 2"),
    ("how-to/unlabelled-texts.md", "mixup-hf finetune", f"{_FINETUNE} {_OWN_ROWS}"),
    ("how-to/encoder-and-llm.md", "mixup-hf align align.yaml", ""),
    ("how-to/encoder-and-llm.md", "mixup-hf align --evaluate", "--max-sentences 6 --num-pairs 2"),
    ("how-to/several-gpus.md", "mixup-hf augment", f"--num-samples 6 {_MIX}"),
    ("how-to/several-gpus.md", "mixup-hf finetune", _STEPS),
    ("how-to/report.md", "mixup-hf finetune", _FINETUNE),
    ("how-to/report.md", "mixup-hf report", ""),
    ("how-to/privacy.md", "mixup-hf augment", f"--num-samples 20 {_MIX}"),
    ("how-to/privacy.md", "mixup-hf audit --data train.jsonl --rows", ""),
    (
        "how-to/privacy.md",
        "mixup-hf audit --data train.jsonl --num-samples",
        "--num-samples 20 --canaries 2",
    ),
    ("how-to/experiments.md", "mixup-hf evaluate mine.yaml", _EXPERIMENT),
    ("how-to/experiments.md", "mixup-hf compare", ""),
    ("how-to/experiments.md", "mixup-hf evaluate --structure", "--num-rows 12 --generations 1"),
]
# What takes the place of code or settings that would take long: (page, text, what takes its place).
_CHEAP = 'committee=("encoder", "knn"), on_unreadable="off", rows_per_refill=6'
_QUIET = 'settings={"on_unreadable": "off"}'
_FEW_ROWS = 'from_pretrained("embedded"', f'from_pretrained("embedded", {_CHEAP}'
REPLACED = [
    ("tutorial.md", "range(100)", "range(20)"),
    ("tutorial.md", "num_train_epochs=8", "max_steps=2"),
    ("tutorial.md", 'test = splits["test"]', 'test = splits["test"].select(range(20))'),
    ("tutorial.md", *_FEW_ROWS),
    ("how-to/imbalance.md", "num_train_epochs=8", "max_steps=2"),
    ("how-to/imbalance.md", *_FEW_ROWS),
    ("how-to/imbalance.md", "minority, default]", "minority, label_smoothing]"),
    ("how-to/imbalance.md", "TextSMOTE(random_state=0", f"TextSMOTE({_QUIET}, random_state=0"),
    ("how-to/plain-loop.md", "label_names=names)", f"label_names=names, {_CHEAP})"),
    ("how-to/unlabelled-texts.md", "texts=unlabelled)", f"texts=unlabelled, {_CHEAP})"),
    ("how-to/pandas.md", "num_samples=6, seed=0", f"num_samples=4, seed=0, {_CHEAP}"),
    ("how-to/encoder-and-llm.md", "minutes: 15,", "minutes: 0.02, max_steps: 3,"),
    ("how-to/encoder-and-llm.md", "minutes: 68,", "minutes: 0.05, max_steps: 2,"),
    (
        "how-to/encoder-and-llm.md",
        "llm: smollm2-135m-instruct\n",
        "llm: smollm2-135m-instruct\nmax_sentences: 60\nholdout: 8\nlexicon_sentences: 60\n"
        "eval_sentences: 4\nratio_pairs: 0\nuse_cpu: true\n",
    ),
]


def runs(page: str) -> list[Block]:
    """What a reader types in, in its order."""
    return [each for each in read_blocks(PAGES[page]) if each.file or each.language in RUN]


def lines(block: Block) -> list[str]:
    return [line for line in block.code.splitlines() if line]


def options_of(page: str, command: str) -> list[str]:
    return [more for name, start, more in SHORTER if name == page and command.startswith(start)]


def test_every_block_is_run_or_says_why_not() -> None:
    blocks = [(page, each) for page in PAGES for each in read_blocks(PAGES[page])]
    fences = sum(len(re.findall(r"^```\w", content, re.M)) for content in PAGES.values())
    assert len(blocks) == fences > 20
    for page, each in blocks:
        known = each.language in (*RUN, *SHOWN) or bool(each.file)
        assert known, f"{page}: a reader cannot tell what to do with {each.code!r}"
        assert not each.not_run or each.language in RUN, page
        if each.language != "bash" or each.not_run:
            continue
        for command in lines(each):
            assert len(options_of(page, command)) == 1, f"{page}: {command}"
    reasons = [each.not_run for _, each in blocks if each.not_run]
    assert len(reasons) <= MOST_NOT_RUN and min(map(len, reasons)) > 15


def test_what_is_shortened_is_on_the_pages() -> None:
    for page, old, _ in REPLACED:
        assert old in PAGES[page], f"{page}: {old}"
    for page, start, _ in SHORTER:
        assert f"\n{start}" in PAGES[page], f"{page}: {start}"


def test_links_lead_somewhere_in_the_repository_too() -> None:
    """The site's own links are checked when it is built; pages are also read as they are."""
    for page, content in PAGES.items():
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", content):
            place = (DOCS / "pages" / page).parent / target
            assert target.startswith("https://") or place.exists(), f"{page}: {target}"


@cache
def hooks() -> SimpleNamespace:
    return SimpleNamespace(**runpy.run_path(str(DOCS / "hooks.py")))


def test_settings_choices_and_commands_are_those_of_the_package() -> None:
    settings = hooks().render(PAGES["reference/settings.md"])
    for name in MixupConfig.__dataclass_fields__:
        assert settings.count(f'id="mixupconfig-{name}"') == 1, name
    assert "Share of mixed rows in a batch" in settings
    assert "number, in &#91;0, 1); default: <code>0.5</code>" in settings
    choices = hooks().render(PAGES["reference/choices.md"])
    kinds = set(re.findall(r"<!-- table: (\w+) -->", PAGES["reference/choices.md"]))
    assert kinds == set(registry.HOMES) - {"command"}
    for kind in kinds:
        assert registry.table(kind) in choices
    commands = hooks().render(PAGES["reference/commands.md"])
    for name in registry.names("command"):
        assert f"\n### {name}\n" in commands, name
    assert "| `--holdout VALUE` |" in commands
    api = hooks().render(PAGES["reference/api.md"])
    for name in mixup_hf.__all__:
        assert api.count(f"::: mixup_hf.{name}\n") == 1, name


def test_nothing_is_loaded_from_elsewhere() -> None:
    check = hooks().on_post_page
    page = SimpleNamespace(file=SimpleNamespace(src_uri="index.md"))
    assert check('<a href="https://arxiv.org/abs/1"><img src="a.svg">', page=page)
    for loaded in ('<script src="https://a.b/c.js">', '<link rel="stylesheet" href="//a.b/c.css">'):
        with pytest.raises(ValueError, match="another host"):
            check(loaded, page=page)


def test_the_figure_is_what_its_script_draws() -> None:
    figure = runpy.run_path(str(DOCS / "figure.py"))
    drawn = figure["FILE"].read_text(encoding="utf-8")
    assert figure["draw"]() == drawn, "run: python recipes/docs/figure.py"
    assert ", ".join(MixupConfig().committee) in drawn


@cache
def embedded() -> Inverter:
    return _load("embedded")


_load: Any = Inverter.from_pretrained


def load(aligner: str, **settings: Any) -> Inverter:
    """The embedded aligner, loaded once for all pages."""
    return embedded() if aligner == "embedded" else _load(aligner, **settings)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=[pytest.mark.long] if page in LONG else [])
        for page in PAGES
        if any(not block.not_run for block in runs(page))
    ],
)
def test_what_a_page_says_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places = 14 if page == "how-to/privacy.md" else 5  # an audit needs twenty texts or more
    monkeypatch.chdir(write_files_of_a_reader(tmp_path, places))
    monkeypatch.setattr(Inverter, "from_pretrained", load)
    names: dict[str, Any] = {"__name__": "__main__"}
    for block in runs(page):
        code = block.code
        for at, old, new in REPLACED:
            code = code.replace(old, new) if at == page else code
        if block.not_run:
            continue
        if block.file:
            Path(block.file).write_text(code, encoding="utf-8")
        elif block.language == "bash":
            for command in lines(block):
                run_here(f"{command} {options_of(page, command)[0]}")
        else:
            exec(compile(code, f"{page}: python block", "exec"), names)

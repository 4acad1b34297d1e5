"""A leak that was planted is found; rows that know nothing of the texts pass."""

from __future__ import annotations

import json
import random
import re
import zlib
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import WORDS
from torch import Tensor
from typer.testing import CliRunner

from mixup_hf.cli import main as cli
from mixup_hf.data.row_files import mixed_json
from mixup_hf.errors import InvalidInput, MissingFile
from mixup_hf.evaluation.privacy import audit, plant
from mixup_hf.training.inversed import InversedMixup
from mixup_hf.types import MixedExample


@cache
def vector(word: str) -> Tensor:
    return torch.randn(32, generator=torch.Generator().manual_seed(zlib.crc32(word.encode())))


class WordEncoder:
    """Embeds a text as the sum of its words' vectors, at unit length."""

    def encode(self, texts: Sequence[str]) -> Tensor:
        rows = [torch.stack([*map(vector, text.split())]).sum(0) for text in texts]
        return torch.nn.functional.normalize(torch.stack(rows), dim=-1)


def sentences(count: int, seed: int) -> list[str]:
    rng = random.Random(seed)
    found: dict[str, None] = {}
    while len(found) < count:
        found[" ".join(rng.choices(WORDS, k=8))] = None
    return list(found)


TEXTS = sentences(400, 0)
INSIDE, OUTSIDE = TEXTS[:200], TEXTS[200:]


def altered(text: str, rng: random.Random, words: int) -> str:
    """The text with so many words replaced."""
    kept = text.split()
    for at in rng.sample(range(len(kept)), words):
        kept[at] = rng.choice(WORDS)
    return " ".join(kept)


@pytest.mark.parametrize("seed", range(5))
def test_rows_that_know_nothing_pass(seed: int) -> None:
    found = audit(sentences(150, 100 + seed), INSIDE, OUTSIDE, WordEncoder(), seed=seed)
    assert found.findings == []
    assert found.verdict.startswith("The rows show nothing")
    assert "stronger attack" in found.verdict
    assert found.nearer.low < 0.5 < found.nearer.high
    assert found.auc.low < 0.5 < found.auc.high
    assert (found.rows, found.texts) == (150, 200)


def test_copied_rows_are_found() -> None:
    rows = [*sentences(130, 7), *INSIDE[:20]]
    found = audit(rows, INSIDE, OUTSIDE, WordEncoder())
    assert found.copies.count == 20
    assert found.chance_copies.count == 0
    assert "20 of" not in found.verdict and "13.3%" in found.verdict
    assert found.true_positives is not None
    assert found.true_positives.value == pytest.approx(0.1, abs=0.03)


def test_copies_are_looked_for_among_all_training_texts() -> None:
    rows = [*sentences(100, 7), *INSIDE[:40]]
    found = audit(rows, INSIDE, OUTSIDE[:40], WordEncoder())
    assert (found.copies.count, found.texts) == (40, 40)
    assert "near copies" in found.verdict


def test_rows_near_the_training_texts_give_membership_away() -> None:
    rng = random.Random(0)
    rows = [altered(text, rng, 2) for text in INSIDE]
    found = audit(rows, INSIDE, OUTSIDE, WordEncoder())
    assert found.nearer.low > 0.8
    assert found.auc.low > 0.8
    assert found.copies.count == 0
    assert "better than by chance" in found.verdict


def test_by_lam_tells_where_the_danger_is() -> None:
    rng = random.Random(0)
    rows = [altered(INSIDE[at], rng, 1 if at % 2 else 7) for at in range(120)]
    lams = [0.95 if at % 2 else 0.55 for at in range(120)]
    found = audit(rows, INSIDE, OUTSIDE, WordEncoder(), lams=lams)
    assert list(found.nearer_by_lam) == ["0.5-0.6", "0.9-1.0"]
    assert found.nearer_by_lam["0.9-1.0"].low > 0.9 > found.nearer_by_lam["0.5-0.6"].high


def test_the_larger_side_is_cut_to_the_smaller() -> None:
    rows = sentences(60, 9)
    found = audit(rows, INSIDE, OUTSIDE[:50], WordEncoder())
    assert found.texts == 50
    assert found.true_positives is None  # 1 % of 50 is nobody
    assert found.findings == []


def test_planted_secrets_are_counted_where_they_come_out() -> None:
    texts, labels, secrets = plant(INSIDE, list(range(200)), 5, seed=3)
    assert texts[:200] == INSIDE and len(texts) == len(labels) == 205
    for text, label, secret in zip(texts[200:], labels[200:], secrets, strict=True):
        host = INSIDE[int(str(label))]
        assert text == " ".join([*host.split()[:4], secret])
    rows = [*sentences(50, 5), f"so it is {secrets[2]} then"]
    found = audit(rows, texts, OUTSIDE, WordEncoder(), secrets=secrets)
    assert found.canaries is not None and (found.canaries.count, found.canaries.of) == (1, 5)
    assert "1 of 5 planted secrets" in found.verdict
    assert plant(INSIDE, list(range(200)), 5, seed=3)[2] == secrets


def test_what_cannot_be_audited_is_refused() -> None:
    encoder, rows = WordEncoder(), sentences(30, 2)
    with pytest.raises(ValueError, match="`holdout` must hold at least 20 texts, but got 3"):
        audit(rows, INSIDE, OUTSIDE[:3], encoder)
    with pytest.raises(ValueError, match="`holdout` must hold no training text.* 1 stand on both"):
        audit(rows, INSIDE, [*OUTSIDE, INSIDE[4]], encoder)
    with pytest.raises(ValueError, match="`lams` must be one for each of 30 rows"):
        audit(rows, INSIDE, OUTSIDE, encoder, lams=[0.5])
    with pytest.raises(ValueError, match="`canaries` must be at most 200"):
        plant(INSIDE, INSIDE, 201)


def write(path: Path, texts: Sequence[str]) -> Path:
    lines = [json.dumps({"text": text, "label": at % 2}) for at, text in enumerate(texts)]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_the_command_audits_a_file_or_a_run(
    tmp_path: Path, saved_aligner: Callable[..., Path]
) -> None:
    def run(*words: object) -> str:
        result = CliRunner().invoke(cli.app, ["audit", *map(str, words)])
        if result.exception is not None:
            raise result.exception
        return result.output

    inside, outside = write(tmp_path / "in.jsonl", INSIDE), write(tmp_path / "out.jsonl", OUTSIDE)
    rows, aligner = tmp_path / "rows.jsonl", saved_aligner()
    made_rows = [
        MixedExample(
            text=text,
            label=(1.0, 0.0),
            lam=0.7,
            parents=(0, 1),
            shares=(0.7, 0.3),
            seed=0,
            epoch=0,
            index=index,
            aligner_fingerprint="",
        )
        for index, text in enumerate(INSIDE[:40])
    ]
    lines = [json.dumps(mixed_json(row, INSIDE, ["0", "1"])) for row in made_rows]
    rows.write_text("\n".join(lines) + "\n")
    figures = tmp_path / "audit.json"
    printed = run(
        *("--data", inside, "--rows", rows, "--holdout", outside, "--aligner", aligner),
        *("--output", figures),
    )
    assert "anyone who reads the rows reads those texts" in " ".join(printed.split())
    found = json.loads(figures.read_text())
    assert found["copies"]["count"] == 40 and found["verdict"] and list(found["copies_by_lam"])
    made = run("--data", inside, "--aligner", aligner, "--num-samples", 24, "--canaries", 3)
    assert "planted secrets, word for word" in made
    with pytest.raises(ValueError, match="belong together"):
        run("--data", inside, "--rows", rows)


@pytest.mark.parametrize(
    ("content", "said"),
    [('{"text": "a", "label": "x"}', "line 1, .*"), ("text,label\na,x\n", "line 1, .*JSON")],
)
def test_rows_that_augment_did_not_write_are_refused(
    tmp_path: Path, content: str, said: str
) -> None:
    inside, outside = write(tmp_path / "in.jsonl", INSIDE), write(tmp_path / "out.jsonl", OUTSIDE)
    rows = tmp_path / "rows.jsonl"
    words = ["audit", "--data", inside, "--rows", rows, "--holdout", outside]
    missing = CliRunner().invoke(cli.app, list(map(str, words))).exception
    assert isinstance(missing, MissingFile) and "no file" in str(missing)
    rows.write_text(content)
    refused = CliRunner().invoke(cli.app, list(map(str, words))).exception
    assert isinstance(refused, InvalidInput) and re.search(said, str(refused))


def test_the_audit_of_a_method_uses_its_ratios(
    tmp_path: Path, saved_aligner: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    generate = InversedMixup.generate

    def noted(self: InversedMixup, *given: Any, **more: Any) -> list[MixedExample]:
        asked.append((self.config.mixing.weights, self.config.own_texts))
        return generate(self, *given, **more)

    monkeypatch.setattr(InversedMixup, "generate", noted)
    inside = write(tmp_path / "in.jsonl", INSIDE)
    words = ["audit", "--data", inside, "--aligner", saved_aligner(), "--num-samples", 24]
    for more in ([], ["--weights", "fixed:0.5", "--own-texts", "off"]):
        every = [*words, "--canaries", 3, "--method", "inversed-mixup", *more]
        result = CliRunner().invoke(cli.app, list(map(str, every)))
        assert result.exception is None, result.exception
    assert asked == [("beta:0.4", "auto"), ("fixed:0.5", "off")]

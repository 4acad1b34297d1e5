"""What each choice in an aligner's design is worth: one change at a time, the same time for each.

    python recipes/benchmarks/align_ablation.py --data sentences.txt --heldout heldout.txt \
        --output_dir runs/ablation --minutes 2.5

Every arm differs from `default` in the keys its line names. An arm that has finished is not run
again, so a stopped run goes on. Hints come from the embedded aligner's lexicon, so that minutes are
spent on what the arms differ in. Prints a Markdown table and writes ablation.json.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

from mixup_hf import AlignConfig, Inverter, load_config
from mixup_hf.align import align, measure_fidelity, read_sentences
from mixup_hf.inverter.lexicon import HintTokens

TOGETHER = [{"name": "1b-lora", "train_lora": True, "warmup_steps": 10}]
IN_TURN = [
    {"name": "1a-projector", "warmup_steps": 10},
    {"name": "1b-lora", "train_lora": True, "train_projector": False, "warmup_steps": 10},
]
ARMS: dict[str, dict[str, Any]] = {
    "default": {},
    "no hints": {"num_hints": 0},
    "projector, then LoRA": {"stages": IN_TURN},
    "projector only": {"stages": [{"name": "1a-projector", "warmup_steps": 10}]},
    "K = 1": {"num_soft_tokens": 1},
    "K = 8": {"num_soft_tokens": 8},
    "LoRA in the upper half": {"lora_layers": 0.5},
    "bf16 base": {"base_grid": None},
    "raw embeddings": {"normalize": False},
    "chat prompt": {"prompt_chat": True, "prompt_prefix": "Write one sentence about: "},
    "projector width 256": {"projector_width": 256},
    "8 hints": {"num_hints": 8},
    "merged hints": {},
    "batches of 2,400": {"batch_tokens": 2400},
    "rates doubled": {
        "stages": [dict(TOGETHER[0], projector_lr=2e-3, lora_lr=1e-3)],
    },
    "hints for the upper half": {},
    "Muon": {},
    "Muon, rates doubled": {"stages": [dict(TOGETHER[0], projector_lr=2e-3, lora_lr=1e-3)]},
    "Muon, batches of 2,400": {"batch_tokens": 2400},
    "joined sentences 0.35": {"joined_share": 0.35},
    "neighbour mixes 0.3": {"mix_share": 0.3},
    "noise 0.3": {"noise": 0.3},
    "no hints; projector, then LoRA": {"num_hints": 0, "stages": IN_TURN},
    "no hints; raw embeddings": {"num_hints": 0, "normalize": False},
}


def main() -> None:
    """Run the arms that are left, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--heldout", required=True)
    parser.add_argument("--output_dir", required=True, type=Path)
    parser.add_argument("--minutes", type=float, default=2.5, help="of training, for each arm")
    parser.add_argument("--sentences", type=int, default=6_000)
    parser.add_argument("--measured", type=int, default=96, help="held-out sentences")
    parser.add_argument("--arms", nargs="*", default=list(ARMS), choices=list(ARMS))
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    options.output_dir.mkdir(parents=True, exist_ok=True)
    results = options.output_dir / "ablation.json"
    rows: dict[str, Any] = json.loads(results.read_text()) if results.is_file() else {}
    for name in options.arms:
        if name not in rows:
            with trial(name):
                rows[name] = run(name, options)
            results.write_text(json.dumps(rows, indent=2) + "\n")
    print(table(rows))


def run(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Train one arm and measure it."""
    changes = dict(ARMS[name])
    folder = options.output_dir / "".join(c if c.isalnum() else "-" for c in name)
    stages = changes.pop("stages", TOGETHER)
    timed = [{**stage, "minutes": options.minutes / len(stages)} for stage in stages]
    content: dict[str, Any] = {
        "data": options.data,
        "output_dir": str(folder),
        "cache_dir": str(options.output_dir / "cache"),
        "max_sentences": options.sentences,
        "lexicon_from": "embedded" if changes.get("num_hints", 1) else None,
        "ratio_pairs": 0,  # arms are compared as they are, without the curve
        "eval_steps": 1_000_000,
        "save_steps": 1_000_000,
        "eval_sentences": options.measured,
        "stages": timed,
    }
    words = [word for key, value in (content | changes).items() for word in as_words(key, value)]
    aligner = align(load_config(AlignConfig, None, words))
    finished = json.loads((folder / timed[-1]["name"] / "finished.json").read_text())
    heldout = read_sentences(
        options.heldout, text_column="text", min_words=4, max_words=20, limit=options.measured
    )
    above = name == "hints for the upper half"  # a trial that the fast engine lacks, too
    inverter = Inverter.from_pretrained(aligner, engine="transformers" if above else "auto")
    if above:
        inverter.llm.set_attn_implementation("eager")  # with a mask to be changed
    found = measure_fidelity(inverter, heldout, num_pairs=24, num_mixes=1)
    return {
        "steps": finished["steps"],
        "loss": finished["loss"],
        **{key: found.overall[key].value for key in ("cosine", "token_f1", "bleu")},
        **{key: found.control[key].value for key in ("spearman", "slope", "mix_cosine")},
    }


# Trials of what the package lacks.


def trial(name: str) -> Any:
    """What an arm changes in the code, if its settings do not say it all."""
    if name == "merged hints":
        return merged(2)
    if name == "hints for the upper half":
        return hints_above(15, count=16)
    return muon() if name.startswith("Muon") else nullcontext()


@contextmanager
def merged(count: int) -> Iterator[None]:
    """Hints side by side are averaged, `count` to a position."""
    plain = HintTokens.forward

    def forward(self: HintTokens, *args: Any) -> Tensor:
        hints = plain(self, *args)
        return hints.unflatten(1, (-1, count)).mean(2)

    with patch.object(HintTokens, "forward", forward):
        yield


@contextmanager
def hints_above(layer: int, *, count: int) -> Iterator[None]:
    """The layers below `layer` run without the first `count` positions, which hold the hints.

    In decoding, where all layers have keys of as many positions, they are hidden there instead.
    """
    plain = LlamaDecoderLayer.forward

    def forward(self: Any, states: Tensor, **given: Any) -> Tensor:
        cached = any(given.get(name) is not None for name in ("cache", "past_key_values"))
        if self.self_attn.layer_idx >= layer or not (cached or states.shape[1] > count):
            return plain(self, states, **given)
        if cached:
            mask = given["attention_mask"].clone()
            mask[..., :count] = torch.finfo(mask.dtype).min
            made = plain(self, states, **given | {"attention_mask": mask})
            kept = count if states.shape[1] > count else 0
            return torch.cat([states[:, :kept], made[:, kept:]], dim=1)
        if given.get("attention_mask") is not None:
            given["attention_mask"] = given["attention_mask"][..., count:, count:]
        cosine, sine = given.pop("position_embeddings")
        given["position_embeddings"] = cosine[:, count:], sine[:, count:]
        given["position_ids"] = None
        return torch.cat([states[:, :count], plain(self, states[:, count:], **given)], dim=1)

    with patch.object(LlamaDecoderLayer, "forward", forward):
        yield


@contextmanager
def muon() -> Iterator[None]:
    """Matrices are trained by Muon (Jordan et al. 2024), at AdamW's step size; vectors by AdamW."""
    with patch("mixup_hf.align.stages.AdamW", MuonAndAdamW):
        yield


class MuonAndAdamW(torch.optim.AdamW):
    """Muon for the matrices, at AdamW's step size (Liu et al. 2025), and AdamW for the rest."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One step: matrices first, whose gradients AdamW then does not see."""
        for group in self.param_groups:
            for each in group["params"]:
                if each.ndim == 2 and each.grad is not None:
                    momentum = self.state[each].setdefault("muon", torch.zeros_like(each))
                    momentum.lerp_(each.grad, 0.05)
                    update = orthogonal(each.grad.lerp(momentum, 0.95))
                    each.sub_(update, alpha=0.2 * max(each.shape) ** 0.5 * group["lr"])
                    each.grad = None
        return super().step(closure)


def orthogonal(update: Tensor) -> Tensor:
    """The nearest matrix with singular values near 1, by five steps of Newton and Schulz."""
    wide = update if update.shape[0] <= update.shape[1] else update.T
    wide = wide / (wide.norm() + 1e-7)
    for _ in range(5):
        square = wide @ wide.T
        wide = 3.4445 * wide + (-4.7750 * square + 2.0315 * square @ square) @ wide
    return wide if update.shape[0] <= update.shape[1] else wide.T


def as_words(key: str, value: Any) -> tuple[str, str]:
    """A key and a value as they would stand on the command line."""
    return f"--{key}", json.dumps(value)


def table(rows: dict[str, dict[str, Any]]) -> str:
    """The rows as Markdown."""
    columns = list(next(iter(rows.values())))
    lines = ["| arm | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for name, row in rows.items():
        cells = [f"{row[key]:.4g}" if key in row else "" for key in columns]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()

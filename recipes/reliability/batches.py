"""Training batches under many loaders: no generated row in evaluation, the loss as by hand.

Every trial forks one or two processes (gloo) that train with a learning rate of 0, so that the loss
of any step can be computed afterwards, row by row, from the training texts and the parents of the
generated rows. The text behind every row is looked up; the loss is computed for a share of the
steps, and for the first one always. Kinds that begin with `many` train for a thousand batches or
more.
"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import sys
import traceback
from pathlib import Path
from typing import Any

import torch
import transformers.trainer  # noqa: F401
from trials import Fault, Trial

HANG = 600
CHECKED, CHECKED_OF_MANY = 0.2, 0.02  # share of the steps whose loss is computed by hand


def draw(rng: random.Random, *, many: bool, two: bool, workers: int) -> dict[str, Any]:
    """A way to train."""
    ways = {
        "rows": rng.randint(300, 700) if many else rng.randint(4, 40),
        "num_train_epochs": rng.randint(4, 8) if many else rng.randint(1, 3),
        "per_device_train_batch_size": rng.randint(1, 5),
        "gradient_accumulation_steps": rng.randint(1, 3),
        "dataloader_num_workers": workers,
        "dataloader_persistent_workers": workers > 0 and rng.random() < 0.5,
        "train_sampling_strategy": rng.choice(["sequential", "random"]),
        "collator": {"mix_ratio": rng.choice([0.25, 0.5, 0.8])},
        "callback": {
            "refill_every": rng.choice([0, 1, 2]),
            "background": rng.random() < 0.5,
        },
        "learning_rate": 0.0,
        "eval_strategy": "epoch",
        "per_device_eval_batch_size": rng.randint(1, 5),
        "seed": rng.randrange(1000),
    }
    if two:
        ways["ddp_backend"] = "gloo"
    return ways


def train(ways: dict[str, Any], folder: Path, rank: int) -> None:
    """Train, and write what the batches should have cost and did cost."""
    from tiny import make_dataset, make_producer, make_rows
    from trainer_runs import LABELS, loss_by_hand, make_run, tokens

    texts, labels = make_rows(7, LABELS)
    others = {"eval_dataset": make_dataset([f"{text} city" for text in texts], labels)}
    producer = make_producer(ways["rows"], LABELS, seed=ways["seed"])
    share = ways.pop("checked")
    run = make_run(folder, producer=producer, trainer=others, **ways).train()
    for batch in run.batches.evaluation:
        if "mixup_rows" in batch and int(batch["mixup_rows"].max()) >= 0:
            raise Fault("a generated row was evaluated")
    evaluated = sum(len(batch["labels"]) for batch in run.batches.evaluation)
    trained = run.batches.training
    per_epoch = len(trained) // ways["num_train_epochs"]
    every = ways["callback"]["refill_every"]
    texts = {tuple(tokens(text)): at for at, text in enumerate(run.producer.texts)}
    steps = step_numbers(len(trained), per_epoch, ways["gradient_accumulation_steps"])
    sums, made, held = [], None, -1
    for number, batch in enumerate(trained):
        epoch = number // per_epoch
        refill = epoch // every if every else 0
        if refill != held:
            made, held = run.callback.pool.rows(refill), refill
        rows = by_hand(run, batch, texts, made, refill)
        loss = None
        if is_checked(ways["seed"], steps[number], share):
            loss = float(loss_by_hand(run.initial.eval(), rows).detach()) * len(rows)
        mixed = int((batch["mixup_rows"] >= 0).sum())
        sums.append((epoch, loss, len(rows), mixed))
    found = {"sums": sums, "logged": run.logged("loss"), "evaluated": evaluated}
    (folder / f"rank-{rank}.json").write_text(json.dumps(found))


def step_numbers(batches: int, per_epoch: int, accumulation: int) -> list[int]:
    """The optimizer step of each batch; an epoch's last step may have fewer."""
    per_step = -(-per_epoch // accumulation)
    return [at // per_epoch * per_step + at % per_epoch // accumulation for at in range(batches)]


def is_checked(seed: int, step: int, share: float) -> bool:
    """Whether the loss of a step is computed by hand: the same answer in every process."""
    return step == 0 or random.Random(f"{seed}/{step}").random() < share


def by_hand(
    run: Any, batch: dict[str, torch.Tensor], texts: dict[Any, int], made: Any, refill: int
) -> list[Any]:
    """The rows behind a batch; soft labels are mixed again, from parents and ratio.

    Args:
        run: The training.
        batch: As the model saw it.
        texts: Which training row has these tokens.
        made: The generated rows of the refill.
        refill: Its number.
    """
    from trainer_runs import Row, tokens

    labels = run.producer.targets
    rows = []
    for ids, mask, position in zip(
        batch["input_ids"], batch["attention_mask"], batch["mixup_rows"].tolist(), strict=True
    ):
        seen = tuple(ids[mask.bool()].tolist())
        if position < 0:
            rows.append(Row(run.producer.texts[texts[seen]], labels[texts[seen]]))
            continue
        example = made[position]
        if seen != tuple(tokens(example.text)) or example.epoch != refill:
            raise Fault(f"row {position} of refill {refill} is another text: {example}")
        first, second = example.parents
        mix = example.lam * labels[first] + (1 - example.lam) * labels[second]
        rows.append(Row(example.text, mix))
    return rows


def steps_of(sums: list[Any], accumulation: int) -> list[list[Any]]:
    """The micro-batches of each optimizer step."""
    steps: list[list[Any]] = []
    for epoch in sorted({each[0] for each in sums}):
        own = [each for each in sums if each[0] == epoch]
        steps += [own[at : at + accumulation] for at in range(0, len(own), accumulation)]
    return steps


def trial_of(workers: int, processes: int, *, many: bool) -> Trial:
    """A trial with so many workers and processes, of few or many batches."""

    def trial(rng: random.Random, folder: Path) -> str:
        ways = draw(rng, many=many, two=processes == 2, workers=workers)
        ways["checked"] = CHECKED_OF_MANY if many else CHECKED
        ranks = in_processes(ways, folder, processes)
        accumulation = ways["gradient_accumulation_steps"]
        grouped = [steps_of(each["sums"], accumulation) for each in ranks]
        logged = ranks[0]["logged"]
        if len(logged) != len(grouped[0]):
            raise Fault(f"{len(logged)} losses of {len(grouped[0])} steps: {ways}")
        for step, loss in enumerate(logged):
            parts = [part for each in grouped for part in each[step]]
            if any(part[1] is None for part in parts):
                continue
            COUNTED["steps computed by hand"] += 1
            expected = sum(part[1] for part in parts) / sum(part[2] for part in parts)
            if abs(expected - loss) > 2e-3 * max(1.0, abs(expected)):
                raise Fault(f"step {step}: a loss of {loss}, by hand {expected}: {ways}")
        if not sum(part[3] for each in ranks for part in each["sums"]):
            raise Fault(f"no generated row was trained on: {ways}")
        COUNTED["batches"] += sum(len(each["sums"]) for each in ranks)
        COUNTED["rows"] += sum(part[2] for each in ranks for part in each["sums"])
        COUNTED["evaluated rows"] += sum(each["evaluated"] for each in ranks)
        return "equal"

    return trial


COUNTED = {"batches": 0, "rows": 0, "evaluated rows": 0, "steps computed by hand": 0}


def in_processes(ways: dict[str, Any], folder: Path, count: int) -> list[dict[str, Any]]:
    """Train in `count` forked processes; what each wrote."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    children = [_fork(ways, folder, rank, count, port) for rank in range(count)]
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    if any(codes):
        logs = [(folder / f"log-{rank}").read_text()[-2500:] for rank in range(count)]
        raise Fault(f"exit codes {codes}: {ways}\n" + "\n".join(logs))
    return [json.loads((folder / f"rank-{rank}.json").read_text()) for rank in range(count)]


def _fork(ways: dict[str, Any], folder: Path, rank: int, count: int, port: int) -> int:
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        signal.alarm(HANG)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        log = os.open(folder / f"log-{rank}", os.O_CREAT | os.O_WRONLY)
        os.dup2(log, 1)
        os.dup2(log, 2)
        if count > 1:
            names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count}
            names |= {"LOCAL_WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
            os.environ |= {name: str(value) for name, value in names.items()}
            os.environ["ACCELERATE_USE_CPU"] = "true"
        torch.manual_seed(0)
        train(ways, folder, rank)
        if count > 1:
            torch.distributed.destroy_process_group()
        code = 0
    except BaseException:
        os.write(2, traceback.format_exc().encode())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _named(workers: int, processes: int) -> str:
    return f"{workers} workers, {processes} process{'es' if processes > 1 else ''}"


_LOADERS = [(workers, processes) for workers in range(5) for processes in (1, 2)]
KINDS: dict[str, Trial] = {
    ("many, " if many else "") + _named(*each): trial_of(*each, many=many)
    for many in (False, True)
    for each in _LOADERS
}

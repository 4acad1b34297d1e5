"""Nasty inputs through the commands and the Python entry points.

Every trial ends with a result that is checked, or with an error of the package that says what to
change. A traceback of another kind, a hang, or a row that is not what was given is a fault.
"""

from __future__ import annotations

import gzip
import json
import math
import random
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import nasty
from trials import Fault, Trial, outcome

from mixup_hf import InversedMixup, Inverter, MixupConfig, augment_dataset, load_config

FAST: dict[str, Any] = {"max_new_tokens": 3, "chunk_size": 4, "reuse": False}
FAST |= {"label_source": "parents", "intrusion": "off", "on_unreadable": "off"}


@cache
def inverter() -> Inverter:
    """A tiny one."""
    from tiny import make_inverter

    return make_inverter()


@cache
def aligner() -> str:
    """The same, on disk, for commands."""
    folder = Path(tempfile.mkdtemp(prefix="aligner-"))
    made = inverter()
    made.encoder.model.save_pretrained(folder / "encoder")
    made.encoder.tokenizer.save_pretrained(folder / "encoder")
    made.llm.save_pretrained(folder / "llm")
    made.tokenizer.save_pretrained(folder / "llm")
    partners = {"encoder": str(folder / "encoder"), "llm": str(folder / "llm")}
    made.aligner.config.update(partners)
    return str(made.save_pretrained(folder / "aligner"))


def check_rows(rows: list[Any], texts: list[str], count: int, classes: int | None) -> None:
    """Require that generated rows are such as may be trained on."""
    if len(rows) != count:
        raise Fault(f"{len(rows)} rows instead of {count}")
    for row in rows:
        numbers = (*row.label, row.lam, row.weight, *row.shares)
        if not all(isinstance(each, (int, float)) and math.isfinite(each) for each in numbers):
            raise Fault(f"a row with a value that is no number: {row}")
        if classes and (len(row.label) != classes or min(row.label) < 0):
            raise Fault(f"a label that is no distribution: {row.label}")
        if classes and abs(sum(row.label) - 1) > 1e-3:
            raise Fault(f"shares that do not sum to 1: {row.label}")
        if not all(0 <= parent < len(texts) for parent in row.parents):
            raise Fault(f"parents that do not exist: {row.parents}")
        if not isinstance(row.text, str) or not nasty.encodable(row.text) or not row.text.strip():
            raise Fault(f"a text that no model can read: {row.text!r}")
        if row.weight < 0:
            raise Fault(f"a negative weight: {row.weight}")


# Tables.


def tables(rng: random.Random, folder: Path) -> str:
    """Good files with odd texts and labels: read as they were written, or refused."""
    from mixup_hf.data.tables import read_table

    made = nasty.table_file(rng, folder, rng.choice([0.0, 0.3, 0.8]))
    if made is None:
        return "not written"
    file, texts, labels = made
    end, found = outcome(lambda: read_table(file, "text", "label"))
    if end == "accepted":
        if found.texts != texts:
            pairs = zip(found.texts, texts, strict=False)
            read, was = next((pair for pair in pairs if pair[0] != pair[1]), ("", ""))
            raise Fault(f"{file.suffix}: {read!r:.80} was written as {was!r:.80}")
        if len(set(map(str, found.labels))) != len(set(map(str, labels))):
            raise Fault(f"{file.suffix}: {set(labels)} were read as {set(found.labels)}")
    return end


def broken_tables(rng: random.Random, folder: Path) -> str:
    """Files that are damaged: refused, or read as strings with labels."""
    from mixup_hf.data.tables import read_table

    file = nasty.broken_file(rng, folder, (".csv", ".jsonl", ".json", ".parquet"))
    end, found = outcome(lambda: read_table(file, "text", "label"))
    if end == "accepted" and not all(
        isinstance(text, str) and text.strip() for text in found.texts
    ):
        raise Fault(f"texts that are none: {found.texts[:3]!r:.300}")
    return end


def unlabeled(rng: random.Random, folder: Path) -> str:
    """Unlabelled texts, from lines or from tables."""
    from mixup_hf.data.unlabeled_files import read_texts

    file = nasty.broken_file(rng, folder, (".csv", ".jsonl", ".txt", ".parquet"))
    end, found = outcome(lambda: read_texts(file))
    if end == "accepted" and not all(isinstance(text, str) and text.strip() for text in found):
        raise Fault(f"texts that are none: {found[:3]!r:.300}")
    return end


def sentences(rng: random.Random, folder: Path) -> str:
    """Sentences for alignment: text files, compressed ones, and zip bombs."""
    from mixup_hf.align.data import read_with_origins

    file = nasty.broken_file(rng, folder, (".txt",))
    origins = None
    if rng.random() < 0.5:
        content = gzip.compress(file.read_bytes())
        how = rng.randrange(4)
        if how == 0:
            content = content[: rng.randrange(len(content))]
        elif how == 1:
            content = content[:-9] + rng.randbytes(9)
        elif how == 2:
            content = gzip.compress(b"x" * 300_000_000, 1)
        file = file.with_suffix(".txt.gz")
        file.write_bytes(content)
    elif rng.random() < 0.3:
        origins = str(nasty.broken_file(rng, folder, (".txt",)))
    bounds = {"min_words": 1, "max_words": 20, "limit": 50}
    end, found = outcome(
        lambda: read_with_origins(str(file), origins, text_column="text", **bounds)
    )
    if end == "accepted" and not all(text.strip() and len(text) < 10**6 for text in found[0]):
        raise Fault("sentences that are none")
    return end


# Generated rows from files.


def _good_rows(count: int = 6) -> tuple[list[str], list[dict[str, Any]]]:
    from tiny import make_producer

    from mixup_hf.data.row_files import mixed_json

    producer = make_producer(8, 3)
    made = producer.produce(0, count)
    return list(producer.texts), [mixed_json(row, producer.texts, ("a", "b", "c")) for row in made]


def row_files(rng: random.Random, folder: Path) -> str:
    """Generated rows with values they must not have: refused, or read as rows to train on."""
    from datasets import Dataset

    from mixup_hf.data.row_files import read_mixed, read_shown

    texts, records = _good_rows()
    for _ in range(rng.randint(1, 3)):
        record = rng.choice(records)
        column = rng.choice(sorted(record))
        if isinstance(record[column], dict) and record[column] and rng.random() < 0.6:
            record[column][rng.choice(sorted(record[column]))] = nasty.plain_value(rng)
        elif rng.random() < 0.2:
            del record[column]
        else:
            record[column] = nasty.plain_value(rng)
    kind = rng.choice(["jsonl", "csv", "dataset"])
    source: Any = folder / f"rows.{kind}"
    if kind == "jsonl":
        source.write_text("".join(json.dumps(each) + "\n" for each in records), encoding="utf-8")
    elif kind == "csv":
        try:
            source.write_text(nasty.as_csv(records), encoding="utf-8")
        except ValueError:  # rows of different columns, or what UTF-8 has no bytes for
            return "not written"
    else:
        try:
            source = Dataset.from_list(records)
        except Exception:
            return "not written"
    end, found = outcome(lambda: read_mixed(source, texts, ("a", "b", "c")))
    if end == "accepted":
        check_rows(found, texts, 6, 3)
    if kind != "dataset":
        outcome(lambda: read_shown(source))
    return end


def broken_rows(rng: random.Random, folder: Path) -> str:
    """Damaged files of generated rows, and damaged settings beside them."""
    from mixup_hf.data.row_files import read_mixed, read_shown
    from mixup_hf.data.row_formats import run_file

    texts, records = _good_rows()
    file = nasty.broken_file(rng, folder, (".csv", ".jsonl", ".parquet"))
    if rng.random() < 0.5:
        content = "".join(json.dumps(each) + "\n" for each in records).encode()
        if file.suffix == ".csv":
            content = nasty.as_csv(records).encode()
        spoilt = bytearray(content)
        for _ in range(rng.randint(0, 4)):
            spoilt[rng.randrange(len(spoilt))] = rng.randrange(256)
        file.write_bytes(spoilt)
    if rng.random() < 0.5:
        beside = nasty.broken_file(rng, folder, (".json",))
        beside.rename(run_file(file))
    end, found = outcome(lambda: read_mixed(file, texts, ("a", "b", "c")))
    if end == "accepted":
        check_rows(found, texts, len(found), 3)
    outcome(lambda: read_shown(file))
    return end


def generated(rng: random.Random, folder: Path) -> str:
    """Rows of any JSON, as hypothesis generates and shrinks it."""
    from hypothesis import HealthCheck, given, seed
    from hypothesis import settings as examples
    from hypothesis import strategies as st

    from mixup_hf.data.row_files import read_mixed

    texts, records = _good_rows(1)
    plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
    anything = st.recursive(
        plain, lambda x: st.lists(x) | st.dictionaries(st.text(), x), max_leaves=8
    )
    columns = st.dictionaries(st.sampled_from(sorted(records[0])), anything, max_size=3)
    file = folder / "rows.jsonl"

    @seed(rng.randrange(10**9))
    @examples(max_examples=25, deadline=None, database=None, suppress_health_check=[*HealthCheck])
    @given(columns)
    def check(changes: dict[str, Any]) -> None:
        file.write_text(json.dumps(records[0] | changes) + "\n", encoding="utf-8")
        end, found = outcome(lambda: read_mixed(file, texts, ("a", "b", "c")))
        if end == "accepted":
            check_rows(found, texts, 1, 3)

    check()
    return "25 examples"


# Python entry points.


def lists(rng: random.Random, folder: Path) -> str:
    """Lists of anything as texts and labels."""
    texts, labels = nasty.rows(rng, rng.choice([0.0, 0.2, 0.7]))
    given: Any = list(texts)
    targets: Any = list(labels)
    if rng.random() < 0.3:
        given[rng.randrange(len(given))] = nasty.value(rng)
    if rng.random() < 0.3:
        targets[rng.randrange(len(targets))] = nasty.value(rng)
    if rng.random() < 0.1:
        given, targets = nasty.value(rng), nasty.value(rng)
    extra: dict[str, Any] = {}
    if rng.random() < 0.2:
        extra["eval_texts"] = [nasty.text(rng, 0.8), nasty.value(rng)][: rng.randint(1, 2)]
    config = MixupConfig(**FAST, pairing=rng.choice(["random", "smote", "local", "cross_class"]))

    def make() -> list[Any]:
        return InversedMixup(inverter(), given, targets, config=config, **extra).generate(4)

    end, found = outcome(make)
    if end == "accepted":
        # One value per row is regression, whose targets are no distribution.
        check_rows(found, given, 4, None if len(found[0].label) == 1 else len(found[0].label))
    return end


def frames(rng: random.Random, folder: Path) -> str:
    """Tables of pandas and `datasets`, with columns of anything through `augment_dataset`."""
    import pandas as pd
    from datasets import Dataset

    texts, labels = nasty.rows(rng, rng.choice([0.0, 0.3]))
    columns: dict[str, Any] = {"text": texts, "label": labels}
    if rng.random() < 0.4:
        name = rng.choice(["text", "label"])
        columns[name] = [*columns[name]]
        columns[name][rng.randrange(len(texts))] = nasty.value(rng)
    if rng.random() < 0.3:
        columns["other"] = [nasty.value(rng) for _ in texts]
    try:
        source: Any = pd.DataFrame(columns)
        if rng.random() < 0.2:
            source.columns = ["text" for _ in source.columns]
        elif rng.random() < 0.2:
            source["label"] = source["label"].astype("category")
        elif rng.random() < 0.2:
            source.index = [7] * len(source)
        if rng.random() < 0.4:
            source = Dataset.from_dict(columns)
    except Exception:  # pandas and pyarrow refuse it themselves
        return "not made"
    end, found = outcome(
        lambda: augment_dataset(source, num_samples=3, inverter=inverter(), **FAST)
    )
    if end == "accepted" and len(found) != 3:
        raise Fault(f"{len(found)} rows instead of 3")
    return end


def smote(rng: random.Random, folder: Path) -> str:
    """Arrays, Series and tables through the sampler of imbalanced-learn."""
    import numpy as np
    import pandas as pd

    from mixup_hf.imblearn import TextSMOTE

    texts, labels = nasty.rows(rng, rng.choice([0.0, 0.3]))
    if rng.random() < 0.3:
        labels[rng.randrange(len(labels))] = nasty.value(rng)
    shape = rng.choice(
        [list, lambda x: np.array(x, dtype=object), pd.Series, lambda x: pd.DataFrame({"t": x})]
    )
    settings = {key: value for key, value in FAST.items() if key != "label_source"}
    sampler = TextSMOTE(aligner=inverter(), random_state=0, settings=settings)
    try:
        given = shape(texts)
    except Exception:  # pandas refuses it itself
        return "not made"
    try:
        end, found = outcome(lambda: sampler.fit_resample(given, labels))
    except (ValueError, TypeError) as error:
        # imbalanced-learn's own checks of labels speak first.
        if "imblearn" in _origin(error) or "sklearn" in _origin(error) or "numpy" in _origin(error):
            return "refused by imbalanced-learn"
        raise
    if end == "accepted" and len(found[0]) != len(found[1]):
        raise Fault("texts and labels of different length")
    return end


def _origin(error: BaseException) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "" if trace is None else trace.tb_frame.f_code.co_filename


def trainers(rng: random.Random, folder: Path) -> str:
    """Attached to a Trainer with odd rows, then trained for a step."""
    from attaching import make_mixup, plain_trainer, tokenized

    texts, labels = nasty.rows(rng, rng.choice([0.0, 0.3]))
    labels = [row % 3 for row in range(len(texts))]
    try:
        rows = tokenized(texts, labels, max_length=32)
    except Exception:
        return "not made"
    trainer = plain_trainer(folder, train_dataset=rows, arguments={"max_steps": 2})
    mixup = make_mixup(num_labels=3, on_unreadable="off")

    def train() -> Any:
        mixup.attach(trainer, text_column="text")
        return trainer.train()

    end, found = outcome(train)
    if end == "accepted" and not math.isfinite(found.training_loss):
        raise Fault(f"a loss of {found.training_loss}")
    return end


# Settings and commands.


def _keys(kind: Any) -> list[str]:
    from mixup_hf.config import describe

    return [key.name for key in describe(kind) if "[" not in key.name and "NAME" not in key.name]


def configs(rng: random.Random, folder: Path) -> str:
    """YAML files and options with settings they must not have."""
    from mixup_hf.config import AlignConfig, FinetuneConfig
    from mixup_hf.evaluation.experiment.config import ExperimentConfig

    kind = rng.choice([MixupConfig, AlignConfig, FinetuneConfig, ExperimentConfig])
    keys, words = _keys(kind), []
    for _ in range(rng.randint(0, 3)):
        key = rng.choice([*keys, "nothing", "a.b.c", "", "-", "mixup.", ".x", "stages.0.name"])
        word = str(nasty.value(rng)) if rng.random() < 0.7 else nasty.text(rng, 1.0)
        words += [f"--{key}={word}"] if rng.random() < 0.5 else [f"--{key}", word]
    file = None
    if rng.random() < 0.7:
        file = folder / "config.yaml"
        lines = [f"{rng.choice(keys).split('.')[0]}: {nasty.value(rng)!r}" for _ in range(3)]
        texts = ["\n".join(lines), "!!python/object/apply:os.system ['id']", "a: &a [*a]", "- 1"]
        texts += ["[" * 5_000, "a: " + "{b: " * 2_000, "\x00", "? ? ? :", "a: b: c", "%YAML 9.9"]
        texts += ["a: &x {b: 1}\n<<: [*x, *x]", "? {a: 1}\n: 2", "1: 2", "null: 1", "2001-01-01: 1"]
        bomb = ["x: &x0 [1, 1]"] + [f"y{at}: &x{at + 1} [*x{at}, *x{at}]" for at in range(40)]
        texts += ["\n".join(bomb), "\n".join(bomb).replace("y39", rng.choice(keys))]
        file.write_bytes(rng.choice(texts).encode("utf-8", "replace"))
    return outcome(lambda: load_config(kind, file, words))[0]


def commands(rng: random.Random, folder: Path) -> str:
    """Every command, with files and options drawn at random."""
    made = nasty.table_file(rng, folder, rng.choice([0.0, 0.1, 0.3]))
    broken = nasty.broken_file(rng, folder, (".csv", ".jsonl", ".txt", ".json", ".parquet"))
    data = str(broken if made is None or rng.random() < 0.3 else made[0])
    rows = folder / "rows.jsonl"
    texts, records = _good_rows()
    rows.write_text("".join(json.dumps(each) + "\n" for each in records))
    held = str(rng.choice([rows, broken, data]))
    fast = ["--aligner", aligner(), "--max-new-tokens", "3", "--reuse", "false"]
    out = str(folder / rng.choice(["out.jsonl", "out.csv", "out.parquet", "out.xyz", "no/out.csv"]))
    odd = nasty.text(rng, 1.0)
    train = [
        "finetune",
        "--data.train-file",
        data,
        "--data.test-file",
        data,
        "--mixup.enabled",
        "0",
    ]
    choices: list[list[str]] = [
        ["augment", "--data", data, "--num-samples", "3", "--output", out, *fast],
        ["augment", "--data", data, "--num-samples", odd, "--output", out, *fast],
        ["augment", "--from-row", f"{held}:{rng.choice(['1', '0', '-1', '999', odd])}"],
        ["augment", "--data", data, "--num-samples", "2", "--output", out, "--columns", odd, *fast],
        ["audit", "--data", data, "--rows", held, "--holdout", data, "--aligner", aligner()],
        ["report", str(folder), "--encoder", "none"],
        ["report", odd, "--encoder", "none"],
        ["compare", held],
        ["compare", held, "--arm", odd],
        ["preview", "--a", odd, "--b", "bank profit", "--aligner", aligner()],
        [*train, "--output-dir", str(folder / "run"), "--model", odd],
        ["align", "--data", data, "--output-dir", str(folder / "align"), "--encoder", odd],
        ["evaluate", str(broken)],
        ["env"],
        [odd],
        [rng.choice(["augment", "audit", "align", "push", "export"]), f"--{odd}", odd],
        [rng.choice(["finetune", "align", "augment", "evaluate"]), "--keys"],
        ["push-dataset", held, odd, "--license", odd],
        ["export", odd, "--aligner", odd],
    ]
    words = [word.replace("\x00", "0") for word in rng.choice(choices)]
    return _invoke(words)


def _invoke(words: list[str]) -> str:
    """Run a command in this process: "accepted" or "refused"."""
    from typer.testing import CliRunner

    from mixup_hf.cli import main as cli

    result: Any = None

    def run() -> None:
        nonlocal result
        result = CliRunner().invoke(cli.app, words)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception

    end, _ = outcome(run)
    if end == "accepted" and result.exit_code not in (0, 2):
        raise Fault(f"exit code {result.exit_code}: {words}")
    return "refused" if end == "accepted" and result.exit_code else end


def reports(rng: random.Random, folder: Path) -> str:
    """A run's folder with damaged files, rendered as a page: nothing of a text becomes markup."""
    texts, records = _good_rows()
    script = "<script>alert(1)</script>"
    for record in records:
        if rng.random() < 0.5:
            record["text"] = rng.choice([script, nasty.text(rng, 1.0).replace("\x1e", "")])
    lines = [json.dumps(each) for each in records]
    if rng.random() < 0.3:
        lines[rng.randrange(6)] = rng.choice(["{}", "1", "{", '{"text": 5}', "[" * 3000])
    (folder / "mixed.jsonl").write_text("\n".join(lines) + "\n")
    metrics: Any = {"test_accuracy": 0.5, "test_rows": 8, "seconds": 1.0}
    if rng.random() < 0.5:
        bad: list[Any] = [[], None, "x", {**metrics, "test_loss": script}]
        bad += [{**metrics, script: 1}, {**metrics, "test_accuracy": None}]
        metrics = rng.choice(bad)
    (folder / "metrics.json").write_text(json.dumps(metrics))
    if rng.random() < 0.3:
        (folder / rng.choice(["metrics.json", "audit.json"])).write_bytes(b"{\xff")
    end = _invoke(["report", str(folder), "--encoder", "none"])
    page = folder / "report.html"
    if page.exists() and script in page.read_text():
        raise Fault("a text has become markup")
    return end


KINDS: dict[str, Trial] = {
    each.__name__: each
    for each in (
        tables,
        broken_tables,
        unlabeled,
        sentences,
        row_files,
        broken_rows,
        generated,
        lists,
        frames,
        smote,
        trainers,
        configs,
        commands,
        reports,
    )
}

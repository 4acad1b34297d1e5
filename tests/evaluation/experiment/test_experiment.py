"""Experiments on tiny models: what is shared, what is kept, what is said."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from experiment_data import NAMES, TRAINING, made
from filelock import FileLock
from scipy.stats import wilcoxon
from typer.testing import CliRunner

from mixup_hf import MixupConfig, registry
from mixup_hf.cli import main as cli
from mixup_hf.data.row_files import read_mixed
from mixup_hf.data.tables import draw_shots, read_table
from mixup_hf.data.text_pairs import MARK
from mixup_hf.evaluation.experiment import models as models_module
from mixup_hf.evaluation.experiment import task as task_module
from mixup_hf.evaluation.experiment.arms.contextual import replaced
from mixup_hf.evaluation.experiment.arms.eda import edited
from mixup_hf.evaluation.experiment.arms.paraphrase import paraphrased
from mixup_hf.evaluation.experiment.config import ExperimentConfig
from mixup_hf.evaluation.experiment.models import Models
from mixup_hf.evaluation.experiment.runner import Experiment, Job, Results, Run, jobs
from mixup_hf.evaluation.experiment.summary import markdown, summarise, together, unequal_steps
from mixup_hf.evaluation.experiment.task import Task, rewritten

# Those that a Trainer trains; `committee` and `setfit` predict the test rows themselves.
ARMS = tuple(name for name in registry.names("arm") if name not in ("committee", "setfit"))


@pytest.mark.parametrize("bf16", [False, True])
def test_every_arm_runs_with_as_many_steps(
    make: Callable[..., ExperimentConfig], bf16: bool
) -> None:
    mixup = {"curriculum": "first:0.5", "curriculum_fill": "real"}  # else `default` is `smotext`
    training = TRAINING | {"bf16": bf16}
    config = make(arms=list(ARMS), seeds=[0], training=training, mixup=mixup)
    runs = Experiment(config).run()
    assert {job.arm for job in runs} == set(ARMS)
    for run in runs.values():
        assert run.metrics["steps"] == 3
        assert run.metrics["test_rows"] == len(run.correct) == 12
        assert run.metrics["accuracy"] == pytest.approx(sum(run.correct) / 12)
        made = run.job.arm not in ("none", "embedding_mixup")
        assert (0 < run.metrics["mixed_rows"] <= 8) == made
    losses = {run.metrics["loss"] for run in runs.values()}
    assert len(losses) == len(ARMS)  # every arm did something of its own


def test_an_arm_is_one_registered_function(make: Callable[..., ExperimentConfig]) -> None:
    @registry.register("arm", "capitals", help="every row in capitals")
    def capitals(task: Task) -> Any:
        return rewritten(task, lambda texts: [text.upper() for text in texts])

    try:
        config = make(arms=["capitals"], seeds=[0])
        assert "capitals" in ExperimentConfig(sets=config.sets, output_dir=config.output_dir).arms
        run = Experiment(config).run()[Job("tiny", 4, 0, "capitals")]
        assert run.metrics["mixed_rows"] == 8
        file = Path(config.output_dir) / "tiny" / "4-shot" / "seed-0" / "capitals" / "rows.jsonl"
        assert all(json.loads(line)["text"].isupper() for line in file.read_text().splitlines())
    finally:
        registry.unregister("arm", "capitals")


def test_what_is_set_for_all_mixing_arms_survives_the_method(
    make: Callable[..., ExperimentConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even where it is what the default method would have set."""
    seen: list[Any] = []
    monkeypatch.setattr(task_module, "mixed", lambda task, mixup: seen.append(mixup.mixing))
    settings = {"aligner": "nowhere", "weights": "uniform"}
    config = make(mixup=settings)
    task: Any = SimpleNamespace(mixup=config.mixup)
    registry.get("arm", "inversed_mixup")(task)
    assert seen[0].weights == "uniform" and seen[0].pairing == "same_class"


def test_the_llm_is_that_of_the_aligners_revision(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def resolve(name: str, revision: str | None = None) -> Any:
        asked[name] = revision
        return SimpleNamespace(path="somewhere")

    monkeypatch.setattr(models_module, "resolve", resolve)
    models = Models(MixupConfig())
    config = SimpleNamespace(llm="user/llm", llm_revision="a" * 40)
    models.__dict__["inverter"] = SimpleNamespace(aligner=SimpleNamespace(config=config))
    assert models._source == "somewhere" and asked == {"user/llm": "a" * 40}


def test_variants_are_arms_that_mix_in_their_own_way(
    make: Callable[..., ExperimentConfig],
) -> None:
    kept, other = {"intrusion": "keep"}, {"method": "smotext", "mix_ratio": 0.2}
    config = make(arms=["smotext"], variants={"all kept": kept, "few": other}, seeds=[0])
    assert config.mixup_of("all kept").intrusion == "keep"
    assert config.mixup_of("few").mixing.weights == "uniform"  # the method's, not those of `mixup`
    assert config.mixup_of("few").max_new_tokens == 4
    runs = Experiment(config).run()
    assert [job.arm for job in runs] == ["oversample", "smotext", "all kept", "few"]
    assert all(run.metrics["mixed_rows"] > 0 for run in runs.values())
    # Others may be added to what was run; one that changes under its name is another arm.
    fewer = Experiment(make(arms=["smotext"], variants={"few": other}, seeds=[0])).run()
    assert fewer == {job: run for job, run in runs.items() if job.arm != "all kept"}
    changed = make(arms=["smotext"], variants={"few": other | {"mix_ratio": 0.3}}, seeds=[0])
    with pytest.raises(ValueError, match="other settings"):
        Results(changed).read()


@pytest.mark.parametrize(
    ("variants", "said"),
    [
        ({"eda": {}}, "`variants` must have names of .* but got 'eda'"),
        ({"a/b": {}}, "but got 'a/b'"),
        ({"mine": {"seed": 3}}, "`variants.mine` must leave 'seed' alone"),
        ({"mine": {"intrusions": "keep"}}, "in `variants.mine`.*`intrusions` is no known key"),
        ({"mine": {"intrusion": "mend"}}, "in `variants.mine`.*`intrusion` must be one of"),
    ],
)
def test_bad_variants_are_refused(
    make: Callable[..., ExperimentConfig], variants: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValueError, match=f"(?s){said}"):
        make(variants=variants)


def test_a_run_that_fails_says_which_it_was(
    make: Callable[..., ExperimentConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make(arms=["eda"], seeds=[3], training=TRAINING | {"optim": "none_such"})
    with pytest.raises(ValueError, match="none_such") as caught:
        Experiment(config).run()
    assert "tiny/4-shot/seed-3/oversample" in caught.value.__notes__[0]


def test_arms_of_a_seed_share_rows_and_head(make: Callable[..., ExperimentConfig]) -> None:
    config = make(training={"max_steps": 1, "learning_rate": 0.0, "use_cpu": True})
    runs = Experiment(config).run()
    losses = {job: run.metrics["loss"] for job, run in runs.items()}
    assert losses[Job("tiny", 4, 0, "none")] == losses[Job("tiny", 4, 0, "oversample")]
    assert losses[Job("tiny", 4, 0, "none")] != losses[Job("tiny", 4, 1, "none")]


def test_rows_of_an_arm_lie_where_they_can_be_read(make: Callable[..., ExperimentConfig]) -> None:
    config = make(arms=["eda"], seeds=[3])
    Experiment(config).run()
    train = draw_shots(read_table(config.sets["tiny"].train_file or "", "text", "label"), 4, 3)
    names = sorted(NAMES)
    for arm in ("eda", "oversample"):
        file = Path(config.output_dir) / "tiny" / "4-shot" / "seed-3" / arm / "rows.jsonl"
        rows = read_mixed(file, train.texts, names)
        assert len(rows) == 8
        for row in rows:
            (parent,) = row.parents
            assert names[row.hard_label] == train.labels[parent]
            assert (row.text == train.texts[parent]) == (arm == "oversample")


def test_what_was_run_is_not_run_again(
    make: Callable[..., ExperimentConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Experiment(make(seeds=[0]))
    runs = first.run()
    again = Experiment(make(seeds=[0, 1]))
    asked: list[Job] = []
    measure = Experiment._measure
    monkeypatch.setattr(
        Experiment, "_measure", lambda self, job: asked.append(job) or measure(self, job)
    )
    more = again.run()
    assert {job.seed for job in asked} == {1}
    assert {job: more[job] for job in runs} == runs


def test_a_cut_line_is_run_again_and_those_around_it_are_not(
    make: Callable[..., ExperimentConfig], caplog: pytest.LogCaptureFixture
) -> None:
    config = make()
    results = Results(config)
    planned = jobs(config)
    for job in planned[:2]:
        results.append(made(job, 0.5))
    content = results.file.read_bytes()
    results.file.write_bytes(content[:-30])
    results.append(made(planned[2], 0.75))
    assert list(results.read()) == [planned[0], planned[2]]
    assert "line 2, is no run" in caplog.text


def test_so_are_lines_that_are_no_text_or_nested_without_end(
    make: Callable[..., ExperimentConfig], caplog: pytest.LogCaptureFixture
) -> None:
    config = make()
    results, planned = Results(config), jobs(config)
    results.append(made(planned[0], 0.5))
    with results.file.open("ab") as stream:
        stream.write(b"\x92\xff\n" + b"[" * 100_000 + b"\n")
    results.append(made(planned[1], 0.75))
    assert list(results.read()) == planned[:2]
    assert caplog.text.count("is no run") == 2


def test_a_job_that_another_process_is_at_is_left_to_it(
    make: Callable[..., ExperimentConfig],
) -> None:
    experiment = Experiment(make(seeds=[0]))
    taken = jobs(experiment.config)[0]
    lock = experiment._lock(taken.folder, "run.lock")
    code = (
        "import sys, time; from filelock import FileLock\n"
        f"lock = FileLock({str(lock.lock_file)!r}); lock.acquire()\n"
        "print('locked', flush=True); time.sleep(60)"
    )
    other = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None and other.stdout.readline().strip() == "locked"
    assert taken not in experiment.run()
    other.kill()
    other.wait()
    assert taken in experiment.run()  # a lock ends with its process
    assert isinstance(lock, FileLock)


def test_rows_that_another_process_has_at_hand_come_last(
    make: Callable[..., ExperimentConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = Experiment(make())
    order: list[int] = []
    monkeypatch.setattr(
        Experiment, "_measure", lambda self, job: order.append(job.seed) or made(job, 0.5)
    )
    lock = experiment._lock("tiny/4-shot/seed-0", "rows.lock")
    with lock:
        experiment.run()
    assert order == [1, 1, 0, 0]


def test_arms_of_another_config_may_share_the_folder(
    make: Callable[..., ExperimentConfig],
) -> None:
    theirs = make(arms=["default"], training_of={"default": {"learning_rate": 1e-5}})
    run = made(next(job for job in jobs(theirs) if job.arm == "default"), 0.5)
    Results(theirs).append(run)
    assert run.job in Results(theirs).read()
    assert not Results(make(arms=["eda"])).read()
    with pytest.raises(ValueError, match="other settings"):
        Results(make(arms=["default"])).read()


def test_runs_of_other_settings_are_refused(make: Callable[..., ExperimentConfig]) -> None:
    Results(make()).append(made(jobs(make())[0], 0.5))
    assert Results(make(seeds=[5], arms=["eda"], shots=[2])).read()  # says only which runs
    with pytest.raises(ValueError, match="line 1, was run with other settings"):
        Results(make(rows=9)).read()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"arms": ["none", "mixup"]}, "`arms` must be one of 'committee', .* but got 'mixup'"),
        ({"baseline": "best"}, "`baseline` must be one of"),
        ({"mixup": {"auto_off": True}}, "would let the test split decide"),
        ({"seeds": []}, "`seeds` must name at least one"),
        ({"shots": [5, 5]}, "`shots` must not contain duplicates"),
        ({"sets": {}}, "`sets` must name at least one"),
        ({"sets": {"x": {"dataset": "bbc_headlines", "shots": 3}}}, "be left out"),
        ({"sets": {"x": {"file": "y"}}}, r"`sets.x.file` is no known key.*Known here: .*dataset"),
    ],
)
def test_a_bad_experiment_is_refused(
    make: Callable[..., ExperimentConfig], settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        make(**settings)


def test_more_shots_than_rows_is_an_error_of_that_set(
    make: Callable[..., ExperimentConfig],
) -> None:
    with pytest.raises(ValueError, match="`data.shots` must be at most 12"):
        Experiment(make(shots=[99])).run()


def summary_of(gaps: list[float], sets: int = 1) -> str:
    runs = {}
    for number in range(sets):
        for seed, gap in enumerate(gaps):
            for arm, accuracy in (("oversample", 0.5), ("eda", 0.5 + gap)):
                job = Job(f"set-{number}", 10, seed, arm)
                runs[job] = made(job, accuracy)
    return markdown(summarise(runs, "oversample"), "oversample", together(runs, "oversample"))


def test_other_rows_under_the_same_name_are_other_settings(
    make: Callable[..., ExperimentConfig],
) -> None:
    config = make(seeds=[0], arms=["none"])
    Experiment(config).run()
    file = Path(config.sets["tiny"].train_file or "")
    file.write_text("".join(reversed(file.read_text().splitlines(keepends=True))))
    with pytest.raises(ValueError, match="other settings"):
        Experiment(config).run()


def test_arms_that_rewrite_keep_both_sides_of_a_pair() -> None:
    texts = [f"one two three{MARK}four five", "only one side"]
    made = task_module._each_side(lambda sides: [side.upper() for side in sides], texts)
    assert made == [f"ONE TWO THREE{MARK}FOUR FIVE", "ONLY ONE SIDE"]


@pytest.mark.parametrize("key", [{"validation_share": 0.2}, {"unlabeled_file": "none.txt"}])
def test_keys_that_an_experiment_has_no_use_for_are_refused(
    make: Callable[..., ExperimentConfig], key: dict[str, Any]
) -> None:
    files = {"train_file": "a.csv", "test_file": "b.csv"}
    with pytest.raises(ValueError, match=f"sets.tiny.{next(iter(key))}"):
        make(sets={"tiny": files | key})


def test_a_gain_in_all_of_eight_pairs_is_said_to_help() -> None:
    gaps = [0.1, 0.15, 0.1, 0.05, 0.1, 0.15, 0.1, 0.05]
    text = summary_of(gaps)
    start = "| eda | 8 | 0.600 ± 0.038 | +0.100 [+0.075, +0.125] | 0.008 | 0.008 | "
    assert f"{start}{wilcoxon(gaps).pvalue:.3f} |" in text
    assert "Helps (p below 0.05, corrected): eda." in text
    # Two seconds, eight sentences and ten points; 2 to 3 rows of 20 tell no single run apart.
    assert "| 2 | 0.2 s, 0.8 sentences | 0 of 8 |" in text
    assert "Hurts (p" in summary_of([-0.1, -0.15, -0.1, -0.05, -0.1, -0.15, -0.1, -0.05])


def test_sets_are_put_together_and_their_pairs_tested_at_once() -> None:
    text = summary_of([0.1, 0.05], sets=4)
    assert "| eda | 8 | +0.075 [+0.056, +0.094] | 0.008 | 0.008 | +0.000 [" in text
    assert "All data sets" not in summary_of([0.1, 0.05])


def test_shots_of_a_seed_are_one_pair_and_an_arm_must_have_been_everywhere() -> None:
    def runs_of(places: list[tuple[str, int, int]], arm: str, accuracy: float) -> dict[Job, Run]:
        found = [Job(data, shots, seed, arm) for data, shots, seed in places]
        return {job: made(job, accuracy) for job in found}

    everywhere = [(data, shots, seed) for data in "ab" for shots in (5, 20) for seed in range(3)]
    runs = runs_of(everywhere, "oversample", 0.5) | runs_of(everywhere, "eda", 0.6)
    runs |= runs_of(everywhere[:6], "contextual", 0.9)
    found = together(runs, "oversample")
    assert list(found) == ["eda"]
    accuracy, loss = found["eda"]
    assert accuracy.pairs == loss.pairs == 6
    assert accuracy.difference == pytest.approx(0.1) and loss.difference == 0
    assert together(runs_of(everywhere, "eda", 0.5), "oversample") == {}  # no run has its pair


def test_what_is_not_shown_is_said_so() -> None:
    assert "No arm is shown to differ from `oversample`." in summary_of([0.1, -0.1, 0.05, -0.05])
    assert "With 4 seeds no p can fall below 0.125: run at least 6." in summary_of([0.1] * 4)
    assert "one difference cannot be told from chance" in summary_of([0.1])


def test_arms_that_took_more_steps_are_named() -> None:
    jobs_ = [Job("a", 10, seed, arm) for seed in (0, 1) for arm in ("none", "default", "committee")]
    steps = {"none": (70, 0), "default": (70, 40), "committee": (0, 0)}
    took = {
        arm: dict(zip(("steps", "contrastive_steps"), each, strict=True))
        for arm, each in steps.items()
    }
    runs = {job: made(job, 0.5, **took[job.arm]) for job in jobs_}
    assert "none 70, default 110. `training_of`" in unequal_steps(runs)
    took["default"]["steps"] = 30
    assert not unequal_steps({job: made(job, 0.5, **took[job.arm]) for job in jobs_})


def test_several_data_sets_are_corrected_for() -> None:
    gaps = [0.1, 0.15, 0.1, 0.05, 0.1, 0.15, 0.1, 0.05]
    assert summary_of(gaps, sets=7).count("| 0.008 | 0.055 | ") == 7
    assert "No arm is shown" in summary_of(gaps, sets=7)


def test_eda_changes_words_and_makes_none_up() -> None:
    texts = [" ".join("abcdefghij"), "one two three four", "alone"]
    found = edited(texts, seed=1)
    assert found == edited(texts, seed=1) != edited(texts, seed=2)
    assert found[2] == "alone"
    for text, changed in zip(texts[:2], found[:2], strict=True):
        assert changed != text
        assert set(changed.split()) <= set(text.split())
        assert len(changed.split()) >= len(text.split()) - 1


def test_the_llm_rewrites_the_same_way_for_a_seed(make: Callable[..., ExperimentConfig]) -> None:
    models = Models(make().mixup)
    texts = ["the bank was on market", "film star music", "goal"]
    before = torch.get_rng_state()
    for rewrite in (replaced, paraphrased):
        found = rewrite(texts, models, 1)
        assert found == rewrite(texts, models, 1)
        assert len(found) == 3 and all(found)
    assert torch.equal(torch.get_rng_state(), before)
    words = zip(replaced(texts, models, 1)[0].split(), texts[0].split(), strict=True)
    assert sum(one == other for one, other in words) >= 4  # of five


def test_the_command_runs_shows_and_writes(make: Callable[..., ExperimentConfig]) -> None:
    config = make()
    file = str(Path(config.output_dir).parent / "experiment.yaml")
    result = CliRunner().invoke(cli.app, ["evaluate", file, "--seeds", "[0, 1, 2]"])
    assert result.exception is None, result.exception
    assert (
        "differences to oversample" in result.output and "tiny, 4 rows per class" in result.output
    )
    text = (Path(config.output_dir) / "results.md").read_text()
    assert "| none | 3 |" in text and "run at least 6" in text
    assert len(Results(config).read()) == 6


def test_the_command_says_what_it_wants() -> None:
    for words in (["evaluate"], ["evaluate", "--data", "x.jsonl"]):
        result = CliRunner().invoke(cli.app, words)
        assert "Choose what to measure: a CONFIG.yaml" in str(result.exception)
    shown = CliRunner().invoke(cli.app, ["evaluate", "--keys"]).output
    assert "baseline" in shown and "mixup.weights" in shown

"""Two processes take the steps of one: started by torchrun and by accelerate, over gloo."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import train_script
from safetensors.torch import load_file
from torch import Tensor
from trainer_runs import (
    Run,
    assert_close,
    assert_identical,
    assert_moved,
    expected_rows,
    smoothed,
    step_by_hand,
    weighed,
    weights,
)

TESTS = Path(__file__).parents[1]
SCRIPT = Path(train_script.__file__)
CONFIG = TESTS.parent / "recipes" / "accelerate_configs" / "cpu_two_processes.yaml"
LAUNCHERS = {
    "torchrun": ["torch.distributed.run", "--nproc_per_node", "2", "--master_port"],
    "accelerate": ["accelerate.commands.launch", "--config_file", str(CONFIG)]
    + ["--main_process_port"],
}
SECONDS = 300


@dataclass
class Launched:
    """What two processes wrote."""

    folder: Path
    ranks: list[dict[str, Any]]

    def weights(self, case: str) -> list[dict[str, Tensor]]:
        return [load_file(self.folder / f"{case}-{rank}.safetensors") for rank in (0, 1)]


_LONG = ("torchrun",)  # torch's own launcher starts the same processes as accelerate's
_STARTED = [pytest.param(each, marks=[pytest.mark.long] * (each in _LONG)) for each in LAUNCHERS]


@pytest.fixture(scope="module", params=_STARTED)
def launched(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Launched:
    folder = tmp_path_factory.mktemp(request.param)
    command = [sys.executable, "-m", *LAUNCHERS[request.param], str(free_port())]
    paths = [str(TESTS), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run(
        [*command, str(SCRIPT), str(folder)],
        env=environment,
        timeout=SECONDS,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    ranks = [json.loads((folder / f"rank-{rank}.json").read_text()) for rank in (0, 1)]
    return Launched(folder, ranks)


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    folder = tmp_path_factory.mktemp("single")
    return {name: case(folder) for name, case in train_script.CASES.items()}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def used(pairs: list[Any]) -> list[tuple[str, int]]:
    return [(text, count) for text, count in pairs]


def test_the_launcher_starts_two_processes_that_know_of_each_other(launched: Launched) -> None:
    assert [rank["world"] for rank in launched.ranks] == [2, 2]
    assert [rank["torch_world"] for rank in launched.ranks] == [2, 2]


def test_the_processes_hold_unequal_numbers_of_rows(launched: Launched) -> None:
    """Else the comparisons below would pass for an average of averages."""
    assert [rank["uneven"]["rows"] for rank in launched.ranks] == [[8], [4]]
    assert [rank["accumulated"]["rows"] for rank in launched.ranks] == [[8, 8], [8, 4]]


@pytest.mark.parametrize("case", train_script.STEPS)
def test_a_step_of_two_processes_is_the_accumulated_step_of_one(
    case: str, launched: Launched, single: dict[str, Run]
) -> None:
    run = single[case]
    first, second = launched.weights(case)
    assert_identical(first, second)
    assert_close(first, weights(run.model))
    assert_moved(weights(run.initial), first)
    for rank in launched.ranks:
        assert rank[case]["loss"] == pytest.approx(run.logged("loss"), abs=1e-4)
        assert rank[case]["grad_norm"] == pytest.approx(run.logged("grad_norm"), rel=1e-4)


@pytest.mark.parametrize("case", train_script.STEPS)
def test_that_step_is_the_one_computed_by_hand_over_all_rows(
    case: str, launched: Launched, single: dict[str, Run]
) -> None:
    run = single[case]
    settings = train_script.STEPS[case]
    rows = []
    for batch in run.batches.training:
        weight = settings.get("collator", {}).get("mixed_weight", 1.0)
        rows += weighed(expected_rows(run, batch), batch, weight)
    rows = smoothed(rows, settings.get("label_smoothing_factor", 0.0))
    loss, norm, stepped = step_by_hand(run.initial, rows)
    assert launched.ranks[0][case]["loss"] == [pytest.approx(loss, abs=1e-4)]
    assert launched.ranks[0][case]["grad_norm"] == [pytest.approx(norm, rel=1e-3)]
    assert_close(launched.weights(case)[0], stepped)


@pytest.mark.parametrize("case", ["epochs", "curriculum", "contrastive"])
def test_epochs_of_two_processes_draw_and_train_as_those_of_one(
    case: str, launched: Launched, single: dict[str, Run]
) -> None:
    run = single[case]
    first, second = launched.weights(case)
    assert_identical(first, second)
    assert_close(first, weights(run.model), 1e-4)
    assert launched.ranks[0][case]["loss"] == pytest.approx(run.logged("loss"), abs=1e-3)


@pytest.mark.parametrize(
    "case", ["uneven", "accumulated", "explicit", "epochs", "resumed", "curriculum"]
)
def test_counts_of_used_rows_are_the_sums_over_the_processes(
    case: str, launched: Launched, single: dict[str, Run]
) -> None:
    expected = single[case].used()
    assert expected
    for rank in launched.ranks:
        assert used(rank[case]["used"]) == expected


def test_a_resumed_run_of_two_processes_is_bit_for_bit_the_uninterrupted(
    launched: Launched,
) -> None:
    whole, resumed = launched.weights("epochs"), launched.weights("resumed")
    assert_identical(resumed[0], whole[0])
    assert_identical(resumed[1], whole[1])
    for rank in launched.ranks:
        assert rank["epochs"]["asked"] == [0, 1]
        assert rank["resumed"]["asked"] == [1]  # the first refill is in the checkpoint
        assert used(rank["resumed"]["used"]) == used(rank["epochs"]["used"])


def test_a_last_batch_that_is_filled_up_keeps_the_processes_together(launched: Launched) -> None:
    """22 rows: each process gets three full batches, the last with rows of the beginning."""
    assert [rank["tail"]["rows"] for rank in launched.ranks] == [[8] * 6, [8] * 6]
    assert_identical(*launched.weights("tail"))


def test_rows_are_shared_out_for_making_and_the_same_for_any_number_of_processes(
    launched: Launched,
) -> None:
    alone = train_script.produced()
    assert alone["here"] == 22
    for rank in launched.ranks:
        assert rank["produced"]["rows"] == json.loads(json.dumps(alone["rows"]))
    assert [rank["produced"]["here"] for rank in launched.ranks] == [12, 10]


def test_one_process_alone_logs(launched: Launched) -> None:
    assert launched.ranks[0]["logged"] == ["an information", "a warning"]
    assert launched.ranks[1]["logged"] == []


def test_processes_agree_on_the_first_ones_value(launched: Launched) -> None:
    assert [rank["agreed"] for rank in launched.ranks] == [1.0, 1.0]


def test_the_processes_share_one_pool(launched: Launched) -> None:
    names = launched.ranks[0]["pool"]
    assert names == ["refill-00000", "refill-00001"]


def test_augmenting_shares_the_work_and_loses_no_row(launched: Launched, tmp_path: Path) -> None:
    expected = train_script.augmented(tmp_path)
    assert len(expected["file"]) == 14 and expected["file"] == expected["data_set"]
    decoded = []
    for rank in launched.ranks:
        found = rank["augmented"]
        decoded.append(found.pop("decoded"))
        assert found == {key: expected[key] for key in found}
    assert sum(decoded) == expected["decoded"] and min(decoded) > 0

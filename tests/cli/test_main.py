"""The entry points: fast, and clear about errors."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tqdm import tqdm
from typer.testing import CliRunner

from mixup_hf import __main__, registry
from mixup_hf.cli import main as cli
from mixup_hf.cli.paths import output_file, output_folder
from mixup_hf.errors import MixupError

HEAVY = ("torch", "transformers", "datasets", "sklearn", "scipy", "matplotlib", "peft")


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=os.environ | environment,
        check=False,
    )


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from mixup_hf.__main__ import main; sys.argv = ['mixup-hf', '--help']\n"
        "try: main()\nexcept SystemExit: pass\n"
        f"print('heavy:', [name for name in {HEAVY!r} if name in sys.modules])"
    )
    assert "heavy: []" in python(code).stdout


def test_bad_settings_are_refused_before_torch_is_imported() -> None:
    code = (
        "import sys; from mixup_hf.__main__ import main\n"
        "sys.argv = ['mixup-hf', 'finetune', '--data.dataset=x', '--output-dir=o', '--seed=many']\n"
        "try: main()\nexcept SystemExit as stop: print('code', stop.code, 'torch' in sys.modules)"
    )
    result = python(code)
    assert "code 2 False" in result.stdout
    assert "`seed`" in result.stderr
    assert "Traceback" not in result.stderr


def test_version_is_printed() -> None:
    result = CliRunner().invoke(cli.app, ["--version"])
    assert result.exit_code == 0
    assert result.output.startswith("mixup-hf ")


def test_the_package_can_be_run_as_a_module() -> None:
    command = [sys.executable, "-m", "mixup_hf", "--version"]
    assert subprocess.run(command, capture_output=True, check=True).stdout.startswith(b"mixup-hf")


def test_a_missing_package_is_named_with_the_extra(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "typer", None)
    for name in [each for each in sys.modules if each.startswith("mixup_hf.cli")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(SystemExit) as stopped:
        __main__.main()
    assert stopped.value.code == 2
    assert "needs typer, which is not installed: `pip install 'mixup_hf[cli]'`" in (
        capsys.readouterr().err
    )


def test_a_command_is_one_registered_file() -> None:
    names = {
        path.stem.replace("_", "-")
        for path in (Path(cli.__file__).parent / "commands").glob("[a-z]*.py")
    }
    assert set(registry.names("command")) == names


def test_an_unexpected_error_asks_for_a_report(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**_: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(cli, "app", fail)
    monkeypatch.setattr("sys.argv", ["mixup-hf"])
    with pytest.raises(ZeroDivisionError) as caught:
        cli.main()
    assert "Please report it" in "".join(caught.value.__notes__)


@pytest.mark.parametrize("words", [("report", "{}"), ("export", "{}", "--aligner", "embedded")])
def test_too_long_a_path_is_an_error(words: tuple[str, ...]) -> None:
    result = CliRunner().invoke(cli.app, [word.format("x" * 300) for word in words])
    assert isinstance(result.exception, MixupError)
    assert "is too long for this system" in str(result.exception)


def test_ctrl_c_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("mixup_hf.inverter.hub.push_folder", interrupt)
    monkeypatch.setattr("sys.argv", ["mixup-hf", "push", str(tmp_path), "user/name"])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 130
    assert capfd.readouterr().err.strip().splitlines()[-1] == "Interrupted."


def test_an_ascii_terminal_prints_a_substitute() -> None:
    code = "from mixup_hf.cli import main as cli; cli._prepare_streams(); print('\\u03bb \\u2192')"
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    result = python(code, **ascii_only, PYTHONIOENCODING="ascii")
    assert (result.returncode, result.stdout.strip()) == (0, "? ?")


def test_progress_lines_of_the_package_are_shown() -> None:
    cli._prepare_streams()
    assert logging.getLogger("mixup_hf.anything").isEnabledFor(logging.INFO)


def test_a_line_does_not_break_a_bar(capsys: pytest.CaptureFixture[str]) -> None:
    with tqdm(total=3, desc="generating") as bar:
        bar.update()
        cli._AboveBars().emit(logging.makeLogRecord({"msg": "a line"}))
    before, _, after = capsys.readouterr().err.partition("a line\n")
    assert before.endswith("\r")  # the bar's line was cleared first
    assert "generating" in after  # and drawn again below


def test_outputs_are_checked_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    output_file("--output", tmp_path / "new.jsonl")
    output_folder("--output-dir", tmp_path / "new" / "deep")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]
    for path, rule in [
        (tmp_path, "must be a file"),
        (tmp_path / "none" / "x", "does not exist"),
        (Path("/proc/x"), "must be writable"),
    ]:
        with pytest.raises(MixupError, match=f"--output.*{rule}"):
            output_file("--output", path)
    for path, rule in [(tmp_path / "file" / "x", "is a file"), (Path("/proc/x"), "be writable")]:
        with pytest.raises(MixupError, match=rule):
            output_folder("--output-dir", path)


@pytest.mark.parametrize(
    "words",
    [
        ("augment", "--data", "{data}", "--num-samples", "2", "--output", "/proc/x"),
        ("audit", "--data", "{data}", "--output", "/proc/x"),
        ("export", "/proc/x"),
        ("finetune", "--data.dataset=x", "--output-dir", "/proc/x"),
        ("align", "--data", "x.txt", "--output-dir", "/proc/x"),
        ("align", "--evaluate", "embedded", "--data", "x.txt", "--output-dir", "/proc/x"),
    ],
)
def test_every_command_checks_its_output(words: tuple[str, ...], tmp_path: Path) -> None:
    data = tmp_path / "x.csv"
    data.write_text("text,label\na,b\n")
    result = CliRunner().invoke(cli.app, [word.format(data=data) for word in words])
    assert isinstance(result.exception, MixupError)
    assert "must be writable" in str(result.exception)


@pytest.mark.parametrize("name", ["Embedded", "all-minilm-l6-v2"])
def test_an_unknown_aligner_is_told_which_aligners_there_are(name: str) -> None:
    words = ["preview", "--a", "red", "--b", "film", "--aligner", name]
    result = CliRunner().invoke(cli.app, words)
    assert "must be 'embedded', a folder, or a Hub id" in str(result.exception)
    assert "smollm2" not in str(result.exception)

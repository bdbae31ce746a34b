import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from forgec import __version__
from forgec.cli.exit_codes import EXIT_CODES
from forgec.passes import opt_driver
from tests.cli.command import forgec

FORGEC = Path(sys.executable).with_name("forgec")
COMMANDS = ("compile", "run", "inspect", "check", "verify", "bisect", "opt", "explain")


def test_help_names_the_commands_and_the_exit_codes():
    finished = forgec("--help")
    assert finished.code == 0
    for command in COMMANDS:
        assert f"\n  {command} " in finished.out
    for code, meaning in EXIT_CODES.items():
        assert f"{code:<4} {meaning}" in finished.out


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str):
    finished = forgec(command, "--help")
    assert finished.code == 0
    assert finished.out.startswith(f"Usage: forgec {command} [OPTIONS]")


def test_version():
    assert forgec("--version").out == f"forgec {__version__}\n"


@pytest.mark.parametrize("arguments", [["no-such-command"], ["opt", "--no-such-option"], ["compile"], ["run"]])
def test_usage_errors(arguments: list[str]):
    finished = forgec(*arguments)
    assert finished.code == 2
    assert "Usage: forgec" in finished.err
    assert not finished.out


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from forgec.cli import run; run(['--help']);"
        "heavy = {'torch', 'xdsl', 'numpy', 'rich', 'safetensors', 'onnx'} & set(sys.modules);"
        "sys.exit(f'imported: {heavy}' if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_help_takes_less_than_0_3_s():
    """Of processor time, which unlike the clock's does not depend on what else runs at the same time."""
    seconds = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([FORGEC, "--help"], check=True, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
    assert min(seconds) < 0.3


def test_an_internal_error_is_reported_without_a_traceback(monkeypatch: pytest.MonkeyPatch):
    def broken(*args: object) -> None:
        raise LookupError("lost\nsecond line")

    monkeypatch.setattr(opt_driver, "optimize", broken)
    finished = forgec("opt", "-")
    assert finished.code == 70
    assert finished.err.startswith("error[FORGE-X001]: internal error: LookupError: lost\n")
    assert "Traceback" not in finished.err
    assert "Traceback" in forgec("opt", "-", "--debug").err


def test_an_interrupt_has_its_exit_code(monkeypatch: pytest.MonkeyPatch):
    def interrupted(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(opt_driver, "optimize", interrupted)
    assert forgec("opt", "-").code == 130


@pytest.mark.parametrize("command", [[FORGEC, "explain"], [FORGEC, "opt", "--list-passes"]])
def test_a_reader_that_goes_away_is_no_crash(command: list[object]):
    script = f"{' '.join(map(str, command))} | head -n 1; exit ${{PIPESTATUS[0]}}"
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    finished = subprocess.run(["bash", "-c", script], capture_output=True, text=True, env=environment)
    assert finished.returncode in (0, 141), "the reader may be slower than the writer"
    assert finished.stderr == ""
    assert len(finished.stdout.splitlines()) == 1


@pytest.mark.parametrize("command", ["explain", "ops"])
def test_a_closed_pipe_gives_its_exit_code(command: str):
    reader, writer = os.pipe()
    os.close(reader)
    finished = subprocess.run([FORGEC, command], stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (finished.returncode, finished.stderr) == (141, "")

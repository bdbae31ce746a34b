import io
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass

from forgec.cli import run as forgec
from forgec.diagnostics import ForgeError
from forgec.passes import ir_source
from forgec.passes.instruments import NumericCheck, VerifyEach
from forgec.passes.manager import Instrument, run_pipeline
from forgec.passes.registry import added_passes
from forgec.passes.reproducer import CrashReproducer
from tests.passes import fakes


@dataclass(frozen=True)
class CrashWhenArmed(ModulePass):
    """Fails only where ``Arm`` has run before it in the same context: cannot be reproduced alone."""

    name = "crash-when-armed"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        if getattr(ctx, "armed", False):
            raise RuntimeError("armed")


@dataclass(frozen=True)
class Arm(ModulePass):
    """Leaves a mark in the context."""

    name = "arm"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        setattr(ctx, "armed", True)  # noqa: B010 - an attribute that Context does not declare


def fail(passes: list[ModulePass], *instruments: Instrument, folder: Path) -> tuple[ForgeError, Path]:
    with pytest.raises(ForgeError) as caught:
        run_pipeline(
            fakes.parse(), passes, context=ir_source.context(), instruments=[*instruments, CrashReproducer(folder)]
        )
    note = next(note for note in caught.value.diagnostics[0].notes if note.startswith("reproducer: "))
    return caught.value, Path(note.removeprefix("reproducer: "))


def replay(path: Path) -> tuple[int, str]:
    """What happens when the RUN line of a reproducer is run."""
    import shlex

    first = path.read_text().splitlines()[0]
    words = shlex.split(first.removeprefix("// RUN: forgec ").replace("%s", str(path)))
    out, err = io.StringIO(), io.StringIO()
    with added_passes(*fakes.ALL), redirect_stdout(out), redirect_stderr(err):
        code = forgec([*words, "--reproducers", str(path.parent / "again")])
    return code, err.getvalue()


def test_a_crash_is_reproduced_by_the_failing_pass_alone(tmp_path: Path):
    passes = [fakes.SubtractInstead(), fakes.Crash(), fakes.Leave()]
    error, path = fail(passes, folder=tmp_path)
    assert error.code == "FORGE-P005"
    text = path.read_text()
    assert text.startswith(
        "// RUN: forgec opt %s -p crash\n// FORGE-P005: pass crash failed: ZeroDivisionError: no way\n"
    )
    assert "arith.subi" in text, "holds the IR right before the failing pass"
    assert 'loc("test.mlir":2:3)' in text
    code, printed = replay(path)
    assert code == 1
    assert "FORGE-P005" in printed


def test_broken_ir_is_reproduced_with_verify_each(tmp_path: Path):
    error, path = fail([fakes.BreakTypes()], VerifyEach(), folder=tmp_path)
    assert error.code == "FORGE-P003"
    assert path.read_text().startswith("// RUN: forgec opt %s -p break-types --verify-each\n")
    code, printed = replay(path)
    assert code == 1
    assert "FORGE-P003" in printed


def test_options_of_the_pass_are_quoted_for_the_shell(tmp_path: Path):
    error, path = fail([fakes.SubtractInstead(count=2)], NumericCheck(numbers()), folder=tmp_path)
    assert error.code == "FORGE-P004"
    assert path.read_text().startswith("// RUN: forgec opt %s -p 'subtract-instead{count=2}'\n")
    assert "arith.addi" in path.read_text()
    assert replay(path)[0] == 0


def test_what_does_not_fail_alone_is_reproduced_with_the_passes_before_it(tmp_path: Path):
    _, path = fail([fakes.Leave(), Arm(), CrashWhenArmed()], folder=tmp_path)
    assert path.read_text().startswith("// RUN: forgec opt %s -p leave,arm,crash-when-armed\n")


def test_one_failure_has_one_file(tmp_path: Path):
    _, first = fail([fakes.Crash()], folder=tmp_path)
    _, second = fail([fakes.Crash()], folder=tmp_path)
    assert first == second
    assert list(tmp_path.iterdir()) == [first]


def test_errors_of_the_user_leave_no_file(tmp_path: Path):
    with pytest.raises(ForgeError):
        run_pipeline(
            fakes.parse(), [fakes.Refuse()], context=ir_source.context(), instruments=[CrashReproducer(tmp_path)]
        )
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_does_not_hide_the_failure(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ForgeError, match="no reproducer could be written") as caught:
        run_pipeline(
            fakes.parse(),
            [fakes.Crash()],
            context=ir_source.context(),
            instruments=[CrashReproducer(tmp_path / "file")],
        )
    assert caught.value.code == "FORGE-P005"


def test_the_default_folder_is_the_users_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(ForgeError) as caught:
        run_pipeline(fakes.parse(), [fakes.Crash()], context=ir_source.context(), instruments=[CrashReproducer()])
    assert f"reproducer: {tmp_path}/forgec/reproducers/crash-" in str(caught.value)


def numbers():
    import itertools

    import numpy as np

    counter = itertools.count()
    return lambda module: [np.array([next(counter)])]

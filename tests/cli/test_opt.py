from collections.abc import Iterator
from pathlib import Path

import pytest

from forgec.passes.registry import added_passes
from tests.cli.command import forgec
from tests.passes import fakes


@pytest.fixture(autouse=True)
def _fake_passes() -> Iterator[None]:
    with added_passes(*fakes.ALL):
        yield


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "in.mlir"
    path.write_text(fakes.ADDS)
    return path


def test_prints_the_result(source: Path):
    finished = forgec("opt", source, "-p", "subtract-instead{count=2}")
    assert finished.code == 0
    assert finished.out.count("arith.subi") == 2
    assert finished.err == ""


def test_reads_standard_input():
    assert "arith.addi" in forgec("opt", "-", stdin=fakes.ADDS.encode()).out
    assert "error[FORGE-I001]" in forgec("opt", stdin=b"%x = no.op").err
    assert "--> <stdin>:1" in forgec("opt", stdin=b"%x = no.op").err


def test_writes_a_file(source: Path, tmp_path: Path):
    target = tmp_path / "out.mlir"
    finished = forgec("opt", source, "-o", target)
    assert (finished.code, finished.out) == (0, "")
    assert target.read_text() == forgec("opt", source).out


def test_nothing_is_written_when_there_are_errors(tmp_path: Path):
    target = tmp_path / "out.mlir"
    assert forgec("opt", "-o", target, stdin=b"%x = no.op").code == 1
    assert not target.exists()


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["no-such-file.mlir"], "FORGE-U001"),
        (["."], "FORGE-U001"),
        (["-o", "no/such/folder/out.mlir"], "FORGE-U004"),
        (["-o", "."], "FORGE-U004"),
        (["-p", "no-such-pass"], "FORGE-P001"),
        (["-p", "leave{x=1}"], "FORGE-P002"),
        (["-p", "refuse"], "FORGE-B001"),
        (["--print-ir-filter", "("], "FORGE-U005"),
    ],
)
def test_errors(arguments: list[str], code: str):
    finished = forgec("opt", *arguments, stdin=fakes.ADDS.encode())
    assert finished.code == 1
    assert finished.err.startswith(f"error[{code}]: ")
    assert finished.out == ""


def test_a_crash_of_a_pass_names_the_reproducer(source: Path, tmp_path: Path):
    finished = forgec("opt", source, "-p", "crash", "--reproducers", tmp_path / "r")
    (path,) = (tmp_path / "r").iterdir()
    assert finished.code == 1
    assert "error[FORGE-P005]: pass crash failed: ZeroDivisionError: no way\n" in finished.err
    assert f"note: reproducer: {path}\n" in finished.err
    assert "Traceback" not in finished.err
    debug = forgec("opt", source, "-p", "crash", "--reproducers", tmp_path / "r", "--debug")
    assert debug.code == 1


def test_text_that_is_not_utf8():
    finished = forgec("opt", stdin=b"\xff\xfe")
    assert finished.code == 1
    assert "is not UTF-8 text" in finished.err


def test_remarks_go_to_standard_error(source: Path):
    finished = forgec("opt", source, "-p", "remark")
    assert finished.code == 0
    assert finished.err.startswith("remark[FORGE-B001]: not fused\n  --> ")
    assert "arith.addi" in finished.out


def test_list_passes():
    finished = forgec("opt", "--list-passes")
    assert finished.code == 0
    assert "\n  leave                    Does nothing.\n" in finished.out
    assert "\n  @O0                      (no passes)\n" in finished.out
    assert "\n  convert-scf-to-cf\n" in finished.out


def test_times_go_to_standard_error(source: Path):
    finished = forgec("opt", source, "-p", "leave", "--time-passes")
    assert "Pass execution times" in finished.err
    assert "Pass execution times" not in finished.out

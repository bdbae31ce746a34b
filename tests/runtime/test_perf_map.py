"""Names of kernels for perf."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from forgec.runtime import load, perf_map, write_artifact
from forgec.runtime.kernel_table import NativeCode
from tests.runtime.native import native, scaled

NAMES = ("double_it", "scale_rows")


@pytest.fixture
def image(tmp_path: Path) -> NativeCode:
    found = native(*NAMES)
    write_artifact(tmp_path / "m.forge", scaled(), {}, kernels=found)
    return found


def holds(line: str, address: int) -> bool:
    """True if a line of ``/proc/self/maps`` is about this address."""
    begin, end = (int(number, 16) for number in line.split()[0].split("-"))
    return begin <= address < end


def test_every_function_has_a_line(image: NativeCode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORGEC_PERF", "1")
    monkeypatch.setattr(perf_map, "FOLDER", tmp_path)
    model = load(tmp_path / "m.forge")
    load(tmp_path / "m.forge")
    text = (tmp_path / f"perf-{os.getpid()}.map").read_text()
    lines = [line.split(maxsplit=2) for line in text.splitlines()]
    names = {name.split()[0] for _, _, name in lines}
    assert names == {*NAMES, "forgec_run", "forgec_work", "forgec_copy"}
    assert len(lines) == 2 * len(names)  # both programs
    table, first = image.table, lines[: len(names)]
    begin = int(first[0][0], 16)
    ends = [int(start, 16) + int(size, 16) for start, size, _ in first]
    assert [int(start, 16) for start, _, _ in first[1:]] == ends[:-1]
    assert ends[-1] - begin == len(image.code)
    where = {name.split()[0]: int(start, 16) - begin for start, _, name in first}
    assert {kernel.name: kernel.offset for kernel in table.kernels}.items() <= where.items()
    assert all(name.endswith("[x86-64]") for _, _, name in lines)
    (place,) = (line.split() for line in Path("/proc/self/maps").read_text().splitlines() if holds(line, begin))
    assert place[1] == "r-xp"
    assert len(place) == 5  # anonymous: perf looks nowhere else
    del model


@pytest.mark.parametrize("value", [None, "", "0"])
def test_not_unless_asked(
    image: NativeCode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    monkeypatch.delenv("FORGEC_PERF", raising=False)
    if value is not None:
        monkeypatch.setenv("FORGEC_PERF", value)
    monkeypatch.setattr(perf_map, "FOLDER", tmp_path)
    load(tmp_path / "m.forge")
    assert not list(tmp_path.glob("perf-*"))


def test_a_file_that_cannot_be_written(image: NativeCode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as a link that somebody else has put there."""
    monkeypatch.setenv("FORGEC_PERF", "1")
    monkeypatch.setattr(perf_map, "FOLDER", tmp_path)
    target = tmp_path / "precious"
    target.write_text("kept")
    (tmp_path / f"perf-{os.getpid()}.map").symlink_to(target)
    with pytest.warns(RuntimeWarning, match="FORGEC_PERF: .* cannot be written"):
        load(tmp_path / "m.forge")
    assert target.read_text() == "kept"


def test_the_real_place(image: NativeCode, tmp_path: Path) -> None:
    code = (
        "import sys; from forgec.runtime import load; from forgec.runtime import perf_map\n"
        "load(sys.argv[1]); print(perf_map.path()); print(perf_map.path().read_text()); perf_map.path().unlink()"
    )
    environment = {**os.environ, "FORGEC_PERF": "1"}
    command = [sys.executable, "-c", code, str(tmp_path / "m.forge")]
    found = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout.splitlines()
    assert found[0].startswith("/tmp/perf-")
    assert any(" double_it " in line for line in found)

"""Many threads, forks and killed writers, each in a process of its own."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from forgec.diagnostics import ForgeError
from forgec.runtime import open_artifact, replacing_file
from forgec.runtime.replacing_file import LEFT_OVER, LEFT_OVER_SECONDS, ReplacingFile
from tests.runtime import stress

linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def run(name: str, folder: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.runtime.stress", name, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@linux
def test_threads_get_right_answers_and_memory_stays_flat(tmp_path: Path) -> None:
    found = run("calls", tmp_path)
    assert found["failures"] == []
    assert found["after"] - found["before"] < 8 << 20


@linux
def test_forking_while_threads_call(tmp_path: Path) -> None:
    assert set(run("forks", tmp_path)["statuses"]) == {0}


@linux
def test_killed_writers_leave_nothing(tmp_path: Path) -> None:
    """Whatever has a name is complete. A temporary name is there only if the kill came between link and rename."""
    stress.write_one(tmp_path / "right.forge")
    right = (tmp_path / "right.forge").read_bytes()
    unnamed = replacing_file.open_unnamed(tmp_path)
    if unnamed is None:
        pytest.skip("this file system has no files without a name")
    os.close(unnamed)
    draw = random.Random(0)
    seen = 0
    for number in range(16):
        folder = tmp_path / str(number)
        folder.mkdir()
        command = [sys.executable, "-m", "tests.runtime.stress", "writes", str(folder)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            writer.stdout.readline()
            time.sleep(draw.random() * 0.1)
            writer.kill()
        for file in folder.iterdir():
            assert file.name == "same.forge" or file.stem.isdigit() or LEFT_OVER.fullmatch(file.name)
            assert file.read_bytes() == right
            open_artifact(file, verify="full")
            seen += 1
    assert seen


def test_without_unnamed_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replacing_file, "open_unnamed", lambda folder: None)
    stress.write_one(tmp_path / "m.forge")
    stress.write_one(tmp_path / "m.forge")
    open_artifact(tmp_path / "m.forge", verify="full")
    with contextlib.suppress(ZeroDivisionError), ReplacingFile(tmp_path / "m.forge") as file:
        file.write(b"x")
        raise ZeroDivisionError
    assert [file.name for file in tmp_path.iterdir()] == ["m.forge"]


def test_what_was_left_is_removed(tmp_path: Path) -> None:
    """Only files that nobody writes any more, and only our own."""
    long_ago = time.time() - LEFT_OVER_SECONDS - 60
    names = [f".forge-{digit * 16}.tmp" for digit in "0123"]
    for name in [*names, "other.tmp", ".forge-0.tmp"]:
        (tmp_path / name).write_bytes(b"x")
        os.utime(tmp_path / name, (long_ago, long_ago))
    os.utime(tmp_path / names[1])
    (tmp_path / names[2]).unlink()
    (tmp_path / names[2]).symlink_to(tmp_path / "other.tmp")
    with (tmp_path / names[3]).open("rb") as written:
        fcntl.flock(written, fcntl.LOCK_EX)
        stress.write_one(tmp_path / "m.forge")
    left = {file.name for file in tmp_path.iterdir()}
    assert left == {names[1], names[2], names[3], "other.tmp", ".forge-0.tmp", "m.forge"}


def test_a_target_that_appears_meanwhile(tmp_path: Path) -> None:
    path = tmp_path / "m.forge"
    with ReplacingFile(path) as file:
        file.write(b"new")
        path.write_bytes(b"old")
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_goes_away(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    file = ReplacingFile(folder / "m.forge")
    file.__enter__().write(b"x")
    folder.rename(tmp_path / "elsewhere")
    with pytest.raises(ForgeError, match="FORGE-U004"):
        file.__exit__(None, None, None)
    assert list((tmp_path / "elsewhere").iterdir()) == []

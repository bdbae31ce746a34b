"""Several images of machine code in one artifact: which is taken, that no other is mapped, and when none can be."""

from __future__ import annotations

import errno
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import forgec
from forgec.diagnostics import ForgeError
from forgec.runtime import code_image, load, open_artifact, processor, write_artifact
from forgec.runtime.processor import Machine, best, described, refusal
from forgec.runtime.zip_layout import read_members
from tests.runtime.examples import counter
from tests.runtime.native import native, scaled

NAMES = ("double_it", "scale_rows")
LEVELS = ("x86-64", "x86-64-v3", "x86-64-v4")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_artifact(tmp_path / "m.forge", scaled(), {}, kernels=[native(*NAMES, isa=isa) for isa in LEVELS])
    return tmp_path / "m.forge"


def cpuinfo(level: str, *features: str) -> str:
    names = (processor._OTHER_NAMES.get(name, name) for name in (*processor.LEVELS[level], *features))
    return f"processor : 0\nflags : {' '.join(names)}\n"


def pretend(monkeypatch: pytest.MonkeyPatch, folder: Path, text: str) -> None:
    (folder / "cpuinfo").write_text(text)
    monkeypatch.setattr(processor, "CPUINFO", folder / "cpuinfo")


def mapped(path: Path) -> list[int]:
    """Where the executable mappings of a file begin in it."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return [int(line.split()[2], 16) for line in lines if line.endswith(str(path)) and "r-xp" in line]


@pytest.mark.parametrize(("has", "expected"), [("x86-64-v2", 0), ("x86-64-v3", 1), ("x86-64-v4", 2)])
def test_the_best_one_is_mapped_and_no_other(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has: str, expected: int
) -> None:
    pretend(monkeypatch, tmp_path, cpuinfo(has))
    model = load(path)
    starts = {m.name: m.start for m in read_members(memoryview(path.read_bytes())) if m.name.endswith(".bin")}
    assert mapped(path) == [starts[f"kernels/{LEVELS[expected]}.bin"]]
    x, s = torch.randn(5, 6), torch.randn(5)
    assert torch.equal(model(x, s), x * 4 * s[:, None])


def test_features_beyond_a_level_count(tmp_path: Path) -> None:
    images = [native(*NAMES, isa="x86-64-v4", features=("avx512bf16",)), native(*NAMES, isa="x86-64-v4")]
    write_artifact(tmp_path / "m.forge", scaled(), {}, kernels=images)
    images = list(open_artifact(tmp_path / "m.forge").images)
    assert [image.table.image for image in images] == ["x86-64-v4+avx512bf16", "x86-64-v4"]
    assert best(images, described("x86-64-v4")) is images[1]
    assert best(images, described("x86-64-v4,avx512bf16")) is images[0]
    assert best((), described("x86-64")) is None


def test_what_is_missing_is_said_for_each(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = open_artifact(path).images[1:]
    with pytest.raises(ForgeError) as caught:
        best(images, Machine(processor.flags_of(cpuinfo("x86-64-v3").replace(" fma", ""))))
    (found,) = caught.value.diagnostics
    assert found.code == "FORGE-A007"
    assert found.message == "the kernels were compiled for x86-64-v3 and x86-64-v4, and this processor lacks fma"
    assert found.notes == ("x86-64-v4: this processor lacks fma, avx512f, avx512bw, avx512cd, avx512dq, avx512vl",)
    write_artifact(tmp_path / "new.forge", scaled(), {}, kernels=images)
    pretend(monkeypatch, tmp_path, cpuinfo("x86-64-v2"))
    with pytest.raises(ForgeError, match=r"FORGE-A007.*lacks avx, avx2, bmi"):
        load(tmp_path / "new.forge")
    monkeypatch.setattr(processor.os, "uname", lambda: SimpleNamespace(machine="aarch64"))
    with pytest.raises(ForgeError, match=r"FORGE-A007.*this is a machine of type aarch64"):
        load(tmp_path / "new.forge")
    monkeypatch.setattr(processor.sys, "platform", "darwin")
    with pytest.raises(ForgeError, match=r"FORGE-A007.*a machine with darwin, not Linux"):
        load(tmp_path / "new.forge")


def test_images_of_other_kernels_are_not_written(tmp_path: Path) -> None:
    first, other = native(*NAMES, isa="x86-64"), native(*NAMES, isa="x86-64-v3")
    kernels = (replace(other.table.kernels[0], cost_ns=7), *other.table.kernels[1:])
    different = replace(other, table=replace(other.table, kernels=kernels))
    for images, reason in (((first, different), "different kernels"), ((first, first), "one instruction set")):
        with pytest.raises(ForgeError, match=f"FORGE-X001.*{reason}"):
            write_artifact(tmp_path / "m.forge", scaled(), {}, kernels=images)
    assert not list(tmp_path.iterdir())


def test_the_levels_of_a_compiled_model_share_its_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(40, 24), torch.nn.GELU(), torch.nn.LayerNorm(24)).eval()
    x = torch.randn(5, 40)
    compiled = forgec.compile(model, (x,), target="cpu")
    compiled.save(tmp_path / "m.forge")
    found = []
    for has in ("x86-64-v3", "x86-64-v4"):
        if has == "x86-64-v4" and refusal(has, (), processor.host()) is not None:
            pytest.skip("this processor has no AVX-512")
        with monkeypatch.context() as here:
            pretend(here, tmp_path, cpuinfo(has))
            loaded = load(tmp_path / "m.forge")
            assert [image.table.isa for image in loaded.artifact.images] == ["x86-64-v3", "x86-64-v4"]
            assert loaded.artifact.plan == compiled.plan
            assert len(mapped(tmp_path / "m.forge")) == len(found) + 1
            found.append((loaded, loaded(x)))
    for _, result in found:
        torch.testing.assert_close(result, model(x), rtol=2e-6, atol=2e-6)
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), model(x), rtol=2e-6, atol=2e-6)


# Locked-down systems

FRESH = """
import sys, ctypes, torch
if ctypes.CDLL(None).prctl(65, 1, 0, 0, 0): print('none'); sys.exit()
from forgec.runtime import load
from forgec.runtime.loadable import loadable
assert loadable(sys.argv[1]).loads
model = load(sys.argv[1])
x, s = torch.randn(7, 6), torch.randn(7)
assert torch.equal(model(x, s), x * 4 * s[:, None])
print('fine')
"""


def test_where_memory_never_becomes_executable(path: Path) -> None:
    """Under PR_SET_MDWE, as systemd's MemoryDenyWriteExecute sets it: the pages of the file are executable at once."""
    command = [sys.executable, "-W", "error", "-c", FRESH, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    if done.stdout.strip() == "none":
        pytest.skip("this kernel has no PR_SET_MDWE")
    assert done.stdout.strip() == "fine"


def test_where_nothing_is_executable(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from forgec.runtime.loadable import loadable

    def mmap(*_: Any) -> int:
        raise OSError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(code_image, "_mmap", mmap)
    with pytest.raises(ForgeError, match="FORGE-A008") as caught:
        load(path)
    assert "compile for cpu:aten" in str(caught.value)
    assert [problem.code for problem in loadable(path).problems] == ["FORGE-A008"]
    assert loadable(path, machine=described("x86-64-v4")).loads  # another machine's system is not known
    compiled = forgec.compile(lambda x: x.exp() * 2, (torch.randn(3),), target="cpu:x86-64-v3")
    with pytest.raises(ForgeError, match="FORGE-A008"):
        compiled(torch.randn(3))
    write_artifact(tmp_path / "plain.forge", counter(), {})
    load(tmp_path / "plain.forge")  # has no machine code

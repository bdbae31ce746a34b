"""Machine code in artifacts: where it lies, how it is mapped, on which machines it is refused."""

from __future__ import annotations

import errno
import json
import os
import random
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from llvmlite import binding

from forgec.diagnostics import ForgeError
from forgec.runtime import code_image, load, open_artifact, processor, write_artifact
from forgec.runtime.artifact_writer import write_artifact as write
from forgec.runtime.code_image import CodeImage
from forgec.runtime.driver import Driver
from forgec.runtime.kernel_table import KERNEL_TABLE, Kernel, KernelTable, from_json, to_json
from forgec.runtime.zip_layout import read_members
from tests.runtime.examples import counter
from tests.runtime.native import gather, native, scaled
from tools.fuzz import json_mutants
from tools.fuzz.packing import Part, consistent, put_together, take_apart

NAMES = ("double_it", "scale_rows")
KERNEL_CODE = "kernels/x86-64.bin"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write(tmp_path / "m.forge", scaled(), {}, kernels=native(*NAMES), ir={"forge": "x"})
    return tmp_path / "m.forge"


def fresh(code: str, *arguments: object) -> str:
    command = [sys.executable, "-W", "error", "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


CALLS = """
import sys, torch
from forgec.runtime import load
model = load(sys.argv[1])
for rows in (1, 7, 64, 7):
    x, s = torch.randn(rows, 6), torch.randn(rows)
    assert torch.equal(model(x, s), x * 4 * s[:, None])
"""


def test_a_fresh_process_loads_and_calls_it(path: Path, tmp_path: Path) -> None:
    write(tmp_path / "plain.forge", counter(), {})
    code = (
        "import sys; from forgec.runtime import load; load(sys.argv[2])\n"
        "assert 'forgec.runtime.code_image' not in sys.modules  # only for programs with kernels\n" + CALLS + "\n"
        "assert not {'llvmlite', 'xdsl', 'forgec.api', 'forgec.backends', 'forgec.ir'} & sys.modules.keys()\n"
        "print(sum(sys.argv[1] in line and 'r-xp' in line for line in open('/proc/self/maps')))"
    )
    assert fresh(code, path, tmp_path / "plain.forge").strip() == "1"  # the code is the file's own pages


def test_what_is_written(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        table = json.loads(archive.read(KERNEL_TABLE))
        code = archive.read(KERNEL_CODE)
    assert [(image["isa"], image["features"]) for image in table["images"]] == [("x86-64", [])]
    assert [(k["name"], k["parameters"], k["symbols"], k["checks"]) for k in table["kernels"]] == [
        ("double_it", 2, 0, []),
        ("scale_rows", 3, 1, []),
    ]
    member = next(m for m in read_members(memoryview(path.read_bytes())) if m.name == KERNEL_CODE)
    assert member.start % 4096 == 0
    assert member.nbytes % 4096 == 0
    expected = native(*NAMES)
    assert code == expected.code
    (found,) = open_artifact(path).images
    assert found.table == expected.table
    assert bytes(found.code) == expected.code


def test_the_same_bytes_each_time(path: Path, tmp_path: Path) -> None:
    write(tmp_path / "again.forge", scaled(), {}, kernels=native(*NAMES), ir={"forge": "x"})
    assert (tmp_path / "again.forge").read_bytes() == path.read_bytes()


def test_checks_keep_their_messages(tmp_path: Path) -> None:
    table = torch.randn(10)
    write_artifact(tmp_path / "m.forge", gather(), {"table": table}, kernels=native("take"))
    model = load(tmp_path / "m.forge", verify="full")
    assert torch.equal(model(torch.tensor([1, 2])), table[1:3])
    assert np.array_equal(model(np.array([1, 2])), table[1:3].numpy())
    with pytest.raises(ForgeError, match=r"FORGE-R014\]: index out of range in self"):
        model(torch.tensor([10]))


def test_a_plan_without_its_kernels_is_not_written(tmp_path: Path) -> None:
    for kernels in (None, native("double_it")):
        with pytest.raises(ForgeError, match="FORGE-A004"):
            write_artifact(tmp_path / "m.forge", scaled(), {}, kernels=kernels)
    assert not list(tmp_path.iterdir())


# Mapping


def test_replaced_files(path: Path, tmp_path: Path) -> None:
    """An artifact that was opened keeps its own bytes, whatever has its name now."""
    for change in (lambda: path.unlink(), lambda: os.replace(tmp_path / "other", path)):
        write(path, scaled(), {}, kernels=native(*NAMES))
        (tmp_path / "other").write_bytes(bytes(path.stat().st_size))
        artifact = open_artifact(path)
        change()
        image = CodeImage(artifact.images[0])
        assert set(image.kernels) == set(NAMES)


@pytest.mark.parametrize("refused", [0, 1, 2])
def test_ways_to_map(path: Path, monkeypatch: pytest.MonkeyPatch, refused: int) -> None:
    mapped: list[str] = []
    original = code_image._mmap

    def mmap(nbytes: int, protection: int, flags: int, descriptor: int, start: int) -> int:
        assert protection & 6 != 6  # never writable and executable
        kind = "anonymous" if descriptor < 0 else "file" if start else "memory"
        if kind in ("file", "memory")[:refused]:
            raise OSError(errno.EPERM, "Operation not permitted")
        mapped.append(kind)
        return original(nbytes, protection, flags, descriptor, start)

    monkeypatch.setattr(code_image, "_mmap", mmap)
    model = load(path)
    x, s = torch.randn(5, 6), torch.randn(5)
    assert torch.equal(model(x, s), x * 4 * s[:, None])
    assert mapped == [("file", "memory", "anonymous")[refused]]


def test_no_executable_memory(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def mmap(*_: Any) -> int:
        raise OSError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(code_image, "_mmap", mmap)
    with pytest.raises(ForgeError) as caught:
        load(path)
    assert caught.value.code == "FORGE-A008"
    assert "mapping the file executable: Permission denied" in str(caught.value)
    assert "mapping memory executable: Permission denied" in str(caught.value)


def test_where_memory_never_becomes_executable(path: Path) -> None:
    """Under PR_SET_MDWE, as systemd's MemoryDenyWriteExecute sets it."""
    code = (
        "import sys, ctypes, torch, numpy\n"
        "if ctypes.CDLL(None).prctl(65, 1, 0, 0, 0): print('none'); sys.exit()\n" + CALLS + "\n"
        "from dataclasses import replace\n"
        "from forgec.runtime.code_image import CodeImage\n"
        "print(len(CodeImage(replace(model.artifact.images[0], place=None)).kernels))  # not from the file\n"
    )
    found = fresh(code, path).strip()
    if found == "none":
        pytest.skip("this kernel has no PR_SET_MDWE")
    assert found == "2"


def test_an_image_is_unmapped_with_its_program(path: Path) -> None:
    def count() -> int:
        return sum(str(path) in line and "r-xp" in line for line in Path("/proc/self/maps").read_text().splitlines())

    model = load(path)
    assert count() == 1
    del model
    import gc

    gc.collect()
    assert count() == 0


# Machines

ZEN = (
    "processor\t: 0\nflags\t\t: fpu cmov cx8 fxsr mmx sse sse2 cx16 lahf_lm popcnt pni ssse3 sse4_1 sse4_2 avx avx2 "
    "bmi1 bmi2 f16c fma abm movbe xsave\n\nprocessor\t: 1\nflags\t\t: sse\n"
)


def test_what_a_described_machine_lacks() -> None:
    flags = processor.flags_of(ZEN)
    assert flags is not None
    for isa in ("x86-64", "x86-64-v2", "x86-64-v3"):
        assert processor.missing_features(isa, (), flags) == []
    assert processor.missing_features("x86-64-v4", (), flags) == [
        "avx512f",
        "avx512bw",
        "avx512cd",
        "avx512dq",
        "avx512vl",
    ]
    assert processor.missing_features("x86-64-v3", ("avx512bf16", "fma", "amx-tile"), flags) == [
        "avx512bf16",
        "amx-tile",
    ]
    assert processor.missing_features("armv9", (), flags) is None
    assert processor.flags_of("processor: 0\n") is None


def test_what_code_for_some_features_needs() -> None:
    base = ("cx16", "sahf", "popcnt", "sse3", "ssse3", "sse4.1", "sse4.2", "fxsr", "64bit", "rdpid")
    third = (*base, "avx", "avx2", "bmi", "bmi2", "f16c", "fma", "lzcnt", "movbe")
    assert processor.requirements(()) == ("x86-64", ())
    assert processor.requirements(("avx", *base)) == ("x86-64-v2", ("avx",))
    assert processor.requirements(third) == ("x86-64-v3", ())
    assert processor.requirements((*third, "avxvnni", "avx512f")) == ("x86-64-v3", ("avx512f", "avxvnni"))


def test_this_machine_has_what_llvm_finds_here() -> None:
    found = [name for name, there in binding.get_host_cpu_features().items() if there]
    isa, features = processor.requirements(found)
    processor.require(isa, features)


def test_inspect_shows_the_kernels(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from forgec.cli import run

    assert run(["inspect", str(path)]) == 0
    shown = capsys.readouterr().out
    assert "2 for x86-64, 4.1 kB" in shown
    assert "kernel::scale_rows" in shown


def refusal(path: Path) -> str:
    with pytest.raises(ForgeError) as caught:
        load(path)
    assert caught.value.code == "FORGE-A007"
    return caught.value.diagnostics[0].message


def test_machines_that_cannot_run_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.forge"
    monkeypatch.setattr(processor, "CPUINFO", tmp_path / "cpuinfo")

    def compiled(isa: str, *features: str) -> Path:
        write(path, scaled(), {}, kernels=native(*NAMES, isa=isa, features=features))
        return path

    assert "cannot be read: No such file" in refusal(compiled("x86-64"))
    (tmp_path / "cpuinfo").write_text("processor : 0\n")
    assert "does not tell" in refusal(path)
    (tmp_path / "cpuinfo").write_text(ZEN.replace(" avx2", "").replace(" abm", ""))
    load(path)
    missing = "the kernels were compiled for x86-64-v3, and this processor lacks avx2, lzcnt"
    assert refusal(compiled("x86-64-v3")) == missing
    (tmp_path / "cpuinfo").write_text(ZEN)
    load(path)
    assert refusal(compiled("x86-64-v3", "avx512bf16")).endswith("lacks avx512bf16")
    assert "this runtime does not know it" in refusal(compiled("x86-64-v9"))
    monkeypatch.setattr(processor.os, "uname", lambda: SimpleNamespace(machine="aarch64"))
    assert "this is a machine of type aarch64" in refusal(compiled("x86-64"))
    assert open_artifact(path).images  # only running it is refused


# Damage


def rewritten(path: Path, change: Callable[[dict[str, Part]], None]) -> None:
    """Another artifact, whose hashes are right."""
    parts = dict(take_apart(path.read_bytes()))
    manifest = json.loads(parts["manifest.json"].stored)
    change(parts)
    for name in [*manifest["members"]]:
        if name not in parts:
            del manifest["members"][name]
    for name in parts:
        if name not in ("manifest.json", "weights.safetensors"):
            manifest["members"].setdefault(name, {"bytes": 0, "sha256": "0" * 64})
    path.write_bytes(put_together(consistent(parts, manifest)))


def refused(path: Path, code: str = "FORGE-A003") -> str:
    with pytest.raises(ForgeError) as caught:
        load(path)
    assert caught.value.code == code
    return str(caught.value)


def test_flipped_bytes(path: Path) -> None:
    sound = path.read_bytes()
    draw = random.Random(5)
    members = {member.name: member for member in read_members(memoryview(sound))}
    code, table = members[KERNEL_CODE], members[KERNEL_TABLE]
    positions = [*draw.sample(range(code.header, code.end), 150), *range(code.header, code.header + 60)]
    for position in [*positions, code.start, code.end - 1, *range(table.header, table.end)]:
        damaged = bytearray(sound)
        damaged[position] ^= 1 << draw.randrange(8)
        path.write_bytes(damaged)
        with pytest.raises(ForgeError, match=r"FORGE-A00[13]"):
            load(path)


@pytest.mark.parametrize("name", [KERNEL_CODE, KERNEL_TABLE])
def test_one_of_the_members_is_missing(path: Path, name: str) -> None:
    rewritten(path, lambda parts: parts.__delitem__(name))
    assert f"member '{name}'" in refused(path)


def test_other_members_among_the_kernels(path: Path) -> None:
    rewritten(path, lambda parts: parts.update({"kernels/other.bin": Part(bytes(4096))}))
    assert "member 'kernels/other.bin'" in refused(path)


def test_code_is_not_deflated(path: Path) -> None:
    import zlib

    packer = zlib.compressobj(6, zlib.DEFLATED, -15)
    content = bytes(native(*NAMES).code)
    stored = packer.compress(content) + packer.flush()

    def change(parts: dict[str, Part]) -> None:
        parts[KERNEL_CODE] = Part(stored, len(content))

    parts = dict(take_apart(path.read_bytes()))
    manifest = json.loads(parts["manifest.json"].stored)
    change(parts)
    manifest["members"][KERNEL_CODE]["stored_sha256"] = "0" * 64
    path.write_bytes(put_together(consistent(parts, manifest)))
    assert f"member '{KERNEL_CODE}'" in refused(path)


TABLE = KernelTable(
    "x86-64-v3",
    (Kernel("a", 0, 2, 1, ("index out of range",)), Kernel("b", 64, 1, 0, (), True, 20)),
    ("avx512bf16",),
    Driver(128, 256, 384),
)

TABLES = (
    TABLE,
    replace(TABLE, isa="x86-64-v4", features=(), kernels=tuple(replace(k, offset=k.offset + 8) for k in TABLE.kernels)),
)
SIZES = {"kernels/x86-64-v3+avx512bf16.bin": 4096, "kernels/x86-64-v4.bin": 8192}

BREACHES: list[tuple[str, Callable[[dict[str, Any]], object]]] = [
    ("an object with", lambda d: d.update(extra=1)),
    ("an object with", lambda d: d["images"][0].pop("isa")),
    ("names of instruction sets", lambda d: d["images"][1].update(isa=3)),
    ("names of instruction sets", lambda d: d["images"][0].update(features=["../x"])),
    ("are lists", lambda d: d.update(kernels={})),
    ("are lists", lambda d: d.update(images={})),
    ("there are 0 images", lambda d: d.update(images=[])),
    ("there are 17 images", lambda d: d.update(images=d["images"][:1] * 17)),
    ("are for one instruction set", lambda d: d.update(images=d["images"][:1] * 2)),
    ("member 'kernels/x86-64-v4.bin' is missing, or nothing", lambda d: d["images"].pop()),
    ("member 'kernels/x86-64-v2.bin' is missing, or nothing", lambda d: d["images"][1].update(isa="x86-64-v2")),
    ("are lists", lambda d: d["images"][0].update(features="avx2")),
    ("are lists", lambda d: d["images"][0].update(offsets=3)),
    ("are 2 numbers", lambda d: d["images"][0].update(offsets=[0])),
    ("are 2 numbers", lambda d: d["images"][0].update(offsets=[0, -1])),
    ("are 2 numbers", lambda d: d["images"][0].update(offsets=[0, 1.0])),
    ("an object with", lambda d: d["kernels"].append([])),
    ("a kernel has a name", lambda d: d["kernels"][0].update(name=1)),
    ("is no name of a kernel", lambda d: d["kernels"][0].update(name="a b")),
    ("is no name of a kernel", lambda d: d["kernels"][0].update(name="")),
    ("occurs twice", lambda d: d["kernels"][0].update(name="b")),
    ("are numbers", lambda d: d["kernels"][0].update(parameters=True)),
    ("are numbers", lambda d: d["kernels"][0].update(symbols=1 << 70)),
    ("begins at byte 4096 of an image of 4096", lambda d: d["images"][0].update(offsets=[4096, 0])),
    ("more than 4096 arguments", lambda d: d["kernels"][0].update(parameters=4000, symbols=97)),
    ("are texts", lambda d: d["kernels"][0].update(checks="x")),
    ("are texts", lambda d: d["kernels"][0].update(checks=["x" * 5000])),
    ("is true or false", lambda d: d["kernels"][0].update(serial=1)),
    ("is true or false", lambda d: d["kernels"][0].update(serial=None)),
    ("an object with", lambda d: d["kernels"][0].pop("serial")),
    ("a number of at least 1", lambda d: d["kernels"][0].update(cost_ns=0)),
    ("a number of at least 1", lambda d: d["kernels"][0].update(cost_ns=True)),
    ("a number of at least 1", lambda d: d["kernels"][0].update(cost_ns=1 << 62)),
    ("together of kernel", lambda d: d["kernels"][0].update(together=0)),
    ("an object with", lambda d: d["images"][0].pop("driver")),
    ("an object with", lambda d: d["images"][0].update(driver=None)),
    ("an object with", lambda d: d["images"][0]["driver"].update(extra=1)),
    ("are numbers", lambda d: d["images"][0]["driver"].update(run=-1)),
    ("are numbers", lambda d: d["images"][0]["driver"].update(abi=True)),
    ("version 3, this runtime has 2", lambda d: d["images"][0]["driver"].update(abi=3)),
    ("begins outside of an image", lambda d: d["images"][0]["driver"].update(work=4096)),
    ("begins outside of an image", lambda d: d["images"][0]["driver"].update(run=5000)),
]


@pytest.mark.parametrize(("reason", "change"), BREACHES, ids=range(len(BREACHES)))
def test_tables_that_are_none(reason: str, change: Callable[[dict[str, Any]], object]) -> None:
    data = json.loads(json.dumps(to_json(TABLES)))
    assert from_json(data, SIZES, "x") == TABLES
    change(data)
    with pytest.raises(ForgeError) as caught:
        from_json(data, SIZES, "x")
    assert caught.value.code == "FORGE-A003"
    assert reason in str(caught.value)


def test_mutated_tables() -> None:
    draw = random.Random(2)
    accepted = refusals = 0
    for _ in range(2000):
        data = json.loads(json.dumps(to_json(TABLES)))
        for _ in range(draw.choice([1, 2])):
            json_mutants.mutate(data, draw)
        try:
            tables = from_json(data, SIZES, "x")
        except ForgeError as reason:
            refusals += reason.code == "FORGE-A003"
        else:
            accepted += all(0 <= kernel.offset < 8192 for table in tables for kernel in table.kernels)
    assert accepted + refusals == 2000
    assert min(accepted, refusals) > 100


def test_tables_that_do_not_fit_the_plan(path: Path) -> None:
    table = native(*NAMES).table

    def change(parts: dict[str, Part]) -> None:
        kernels = (replace(table.kernels[0], symbols=1), table.kernels[1])
        parts[KERNEL_TABLE] = Part(json.dumps(to_json([replace(table, kernels=kernels)])).encode())

    rewritten(path, change)
    assert "gives kernel 'double_it' 2 and 0, it takes 2 tensors and 1 extents" in refused(path, "FORGE-A004")

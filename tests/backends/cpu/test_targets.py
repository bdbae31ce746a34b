"""What ``cpu:host`` is, and what compiling for it does on disk."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import forgec
from forgec.backends.cpu import compile as compiler
from forgec.backends.cpu.backend import (
    LEVELS,
    WITHOUT,
    host_level,
    level_of,
    levels_of,
    lowered_kernel,
    objects_of,
    vector_bits,
)
from forgec.backends.cpu.compile import compile_module
from forgec.backends.cpu.elementwise import Unsupported, llvm_element
from forgec.backends.kernel_cache import KernelCache
from forgec.diagnostics import ForgeError, error
from forgec.ir import types
from forgec.passes.bind_tiles import bind
from forgec.runtime import processor
from tests.ir.tile.kernels import SCALE, SCALE_TYPES, kernel_of


@pytest.fixture
def cpuinfo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    path = tmp_path / "cpuinfo"
    monkeypatch.setattr(processor, "CPUINFO", path)
    host_level.cache_clear()
    yield path
    host_level.cache_clear()


def flags(level: str) -> str:
    names = (processor._OTHER_NAMES.get(name, name) for name in processor.LEVELS[level])
    return f"processor : 0\nflags : {' '.join(names)}\n\nprocessor : 1\nflags : fpu\n"


@pytest.mark.parametrize("level", LEVELS)
def test_the_host_is_the_greatest_level_that_its_first_processor_has(cpuinfo: Path, level: str) -> None:
    cpuinfo.write_bytes(b"model name : \xff\n" + flags(level).encode())
    assert level_of("cpu:host") == level


def test_hosts_without_a_level(cpuinfo: Path) -> None:
    for text in (None, "processor : 0\n", flags("x86-64-v2")):
        if text is not None:
            cpuinfo.write_text(text)
        with pytest.raises(ForgeError, match=r"FORGE-U003.*not all instructions of x86-64-v3"):
            level_of("cpu:host")
    assert levels_of("cpu:x86-64-v4") == ("x86-64-v4",)
    assert levels_of("cpu") == LEVELS


def test_dtypes_have_tiles_or_are_said_to_have_none() -> None:
    refused = set()
    for dtype in types.ITEM_BYTES:
        try:
            llvm_element(types.tensor(dtype, []).element_type)
        except Unsupported:
            refused.add(dtype)
    assert refused == {*WITHOUT, *types.COMPLEX}


def test_the_cache_is_measured_once_for_a_compilation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[Path] = []
    make_room = KernelCache._make_room

    def counted(cache: KernelCache) -> None:
        measured.append(cache.folder)
        make_room(cache)

    monkeypatch.setenv("FORGEC_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(KernelCache, "_make_room", counted)
    compiled = forgec.compile(lambda x: (x.exp(), x.sum(1), x @ x), (torch.randn(3, 3),), target="cpu:x86-64-v3")
    kernels = {launch.op for launch in compiled.plan.entries[0].launches if launch.op.startswith("kernel::")}
    assert len(KernelCache().entries()) == len(kernels) > 1
    assert measured == [tmp_path]


def test_objects_are_the_same_whoever_compiles_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By LLVM's thread beside Python's, one after the other, and out of the cache; a kernel that fails says so."""
    monkeypatch.setenv("FORGEC_CACHE_DIR", str(tmp_path))
    other = SCALE.replace("2.0", "3.0").replace("@scale", "@other")
    module = kernel_of(SCALE, SCALE_TYPES), kernel_of(other, SCALE_TYPES)
    for kernel in module:
        bind(kernel, {parameter.name: 32 for parameter in kernel.tiles.data})
    found = objects_of(module, LEVELS)
    assert list(found) == list(LEVELS)
    for level, objects in found.items():
        assert list(objects) == [kernel.sym_name.data for kernel in module]
        for kernel in module:
            alone = lowered_kernel(kernel, level)
            bits = vector_bits(level)
            assert objects[kernel.sym_name.data] == compile_module(alone, cpu=level, features="", vector_bits=bits)
    assert objects_of(module, LEVELS) == found
    with monkeypatch.context() as here:
        here.setenv("FORGEC_CACHE_DIR", str(tmp_path / "other"))
        here.setattr(compiler, "_object", lambda printed, seconds: (_ for _ in ()).throw(error("FORGE-B003", "no")))
        with pytest.raises(ForgeError, match="FORGE-B003"):
            objects_of(module, LEVELS)
    assert not (tmp_path / "other").exists()

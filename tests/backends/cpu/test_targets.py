"""What ``cpu:host`` is, and what compiling for it does on disk."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import forgec
from forgec.backends.cpu.backend import LEVELS, WITHOUT, host_level, level_of, levels_of
from forgec.backends.cpu.elementwise import Unsupported, llvm_element
from forgec.backends.kernel_cache import KernelCache
from forgec.diagnostics import ForgeError
from forgec.ir import types
from forgec.runtime import processor


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

"""Large tensors of torch are on large pages where the system gives them to who asks."""

from __future__ import annotations

import mmap
import sys
from pathlib import Path

import pytest
import torch

from forgec.runtime import huge_pages
from forgec.runtime.torch_library import TorchLibrary

SETTING = Path("/sys/kernel/mm/transparent_hugepage/enabled")
ELEMENTS = 16 << 20


def is_advised(address: int) -> bool:
    """Whether the mapping of an address has the advice."""
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        first = line.split(maxsplit=1)[0]
        if "-" in first and not first.endswith(":"):
            low, high = (int(part, 16) for part in first.split("-"))
            inside = low <= address < high
        elif inside and first == "VmFlags:":
            return " hg" in line
    raise AssertionError("the address is mapped")


@pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(mmap, "MADV_HUGEPAGE") or not SETTING.exists(),
    reason="the system has no large pages for who asks",
)
@pytest.mark.parametrize("make", ["result", "arena", "grown"])
def test_large_tensors_ask_for_large_pages(make: str) -> None:
    library = TorchLibrary()
    if make == "result":
        tensor = library.empty("f32", [ELEMENTS], [1], "cpu")
    else:
        tensor = library.arena(4 * ELEMENTS if make == "arena" else 64, "cpu")
        if make == "grown":
            library.grow(tensor, 4 * ELEMENTS)
    assert is_advised(tensor.data_ptr() + 2 * ELEMENTS)


def test_small_tensors_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[int, int, int]] = []
    monkeypatch.setattr(huge_pages, "_madvise", lambda: lambda *given: calls.append(given))
    tensor = torch.empty(1 << 20, dtype=torch.uint8)
    huge_pages.advise(tensor.data_ptr(), tensor.nbytes)
    assert not calls


def test_only_whole_pages_inside_are_advised(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[int, int, int]] = []
    monkeypatch.setattr(huge_pages, "_madvise", lambda: lambda *given: calls.append(given))
    huge_pages.advise(10 * mmap.PAGESIZE + 1, huge_pages.LEAST_BYTES)
    assert calls == [(11 * mmap.PAGESIZE, huge_pages.LEAST_BYTES - mmap.PAGESIZE, mmap.MADV_HUGEPAGE)]

"""Runs programs with pages that nobody may touch around every buffer: inputs, outputs, weights, states, and each buffer
of the arena. A kernel that reads or writes outside of one ends the process, which then names the kernel.

python -m tests.runtime.guard_pages NAME …      architectures of the tests, static and dynamic
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import logging
import mmap
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy
import torch
from torch.utils import _pytree as pytree

import forgec
from forgec.runtime import arrays, dtypes, load, program
from forgec.runtime.binding import Binding, bind
from forgec.runtime.driver import Job
from forgec.runtime.executor import Frame
from forgec.runtime.extents import element_span
from forgec.runtime.numpy_library import NumpyLibrary
from forgec.runtime.plan import Buffer, Entry
from forgec.runtime.segment import Segment, failure

PAGE = mmap.PAGESIZE
SENTINEL = 0xA5
"""What new memory is full of: no number that a kernel could mean."""
SIDES = ("end", "begin")

_libc = ctypes.CDLL(None, use_errno=True)


def _protect(address: int, nbytes: int, access: int) -> None:
    code = _libc.mprotect(ctypes.c_void_p(address), ctypes.c_size_t(nbytes), access)
    assert code == 0, os.strerror(ctypes.get_errno())


def _pages(nbytes: int) -> int:
    return max(-(-nbytes // PAGE), 1) * PAGE


class Guards:
    """The mode: ``side`` is where a buffer touches a page that is out of bounds, its end or its beginning."""

    def __init__(self, side: str) -> None:
        self.side = side
        self.running = ""
        """The kernel that runs."""
        self._note = mmap.mmap(-1, PAGE)
        self.kernels = 0
        self.buffers = 0
        self._arenas: dict[int, list[tuple[int, int]]] = {}

    def memory(self, nbytes: int) -> numpy.ndarray[Any, Any]:
        """So many bytes between two pages that are out of bounds."""
        whole = _pages(nbytes)
        mapping = mmap.mmap(-1, whole + 2 * PAGE)
        every = numpy.frombuffer(mapping, numpy.uint8)
        every[:] = SENTINEL
        start = PAGE if self.side == "begin" else PAGE + whole - nbytes
        address = every.ctypes.data
        _protect(address, PAGE, 0)
        _protect(address + PAGE + whole, PAGE, 0)
        self.buffers += 1
        return every[start : start + nbytes]

    def array(self, dtype: str, shape: Sequence[int], strides: Sequence[int]) -> numpy.ndarray[Any, Any]:
        """An array over memory of its own."""
        kind = dtypes.numpy_dtype(dtype)
        owner = self.memory(element_span(shape, strides) * kind.itemsize)
        return NumpyLibrary().over(owner, dtype, shape, strides, 0)

    def copy(self, array: numpy.ndarray[Any, Any]) -> numpy.ndarray[Any, Any]:
        """A copy with the same strides."""
        name = dtypes.from_numpy(array.dtype)
        assert name is not None
        made = self.array(name, array.shape, [stride // array.itemsize for stride in array.strides])
        writable = all(stride or extent == 1 for stride, extent in zip(made.strides, made.shape, strict=True))
        if writable:
            made[...] = array
        else:
            made[tuple(slice(None) if stride else slice(0, 1) for stride in made.strides)] = array[
                tuple(slice(None) if stride else slice(0, 1) for stride in array.strides)
            ]
        return made

    def bind(self, entry: Entry, values: Mapping[str, int]) -> Binding:
        """A binding whose buffers have pages of their own in the arena, each between two that are out of bounds."""
        found = bind(entry, values)
        offsets, guards, end = list(found.offsets), [(0, PAGE)], PAGE
        for number, register in enumerate(entry.registers):
            if isinstance(register, Buffer):
                spec = register.spec
                span = element_span(found.shapes[number], found.strides[number]) * dtypes.itemsize(spec.dtype)
                whole = _pages(span)
                offsets[number] = end if self.side == "begin" else end + whole - span
                guards.append((end + whole, PAGE))
                end += whole + PAGE
                self.buffers += 1
        guarded = replace(found, offsets=tuple(offsets), arena_bytes=dict.fromkeys(found.arena_bytes, end))
        self._arenas[id(guarded)] = guards
        self._kept = [*getattr(self, "_kept", []), guarded]  # so that its id stays its own
        return guarded

    def run_frame(self, frame: Frame, *args: Any) -> list[Any]:
        """A call with the guards of its binding up; they are taken down for other frames of the arena."""
        arena = frame.arenas.get("cpu")
        guards = self._arenas.get(id(frame.binding), []) if arena is not None else []
        if arena is not None:
            ctypes.memset(arena.address, SENTINEL, arena.nbytes)
        for offset, nbytes in guards:
            assert arena is not None
            _protect(arena.address + offset, nbytes, 0)
        try:
            return _RUN_FRAME(frame, *args)
        finally:
            for offset, nbytes in guards:
                assert arena is not None
                _protect(arena.address + offset, nbytes, mmap.PROT_READ | mmap.PROT_WRITE)

    def run_segment(self, segment: Segment) -> None:
        """The launches one by one, each noted before it runs."""
        for index, launch in enumerate(segment._launches):
            text = f"{launch.kernel.name} (launch {launch.position}, {launch.place})"
            print(f"  {text}", file=LOG, flush=True)
            job = Job(ctypes.addressof(segment._records) + index * 32, 1, 0, 0, 1)
            code = segment._driver.run(ctypes.addressof(job))
            self.kernels += 1
            if code:
                segment.failed = launch.position
                raise failure(launch.kernel, code, launch.place)

    @contextlib.contextmanager
    def up(self) -> Iterator[Guards]:
        """Programs that are made and run inside have the guards."""
        guards = self

        class Library(NumpyLibrary):
            def empty(self, dtype: str, shape: Sequence[int], strides: Sequence[int], device: str) -> Any:
                return guards.array(dtype, shape, strides)

            def zeros(self, dtype: str, shape: Sequence[int], strides: Sequence[int], device: str) -> Any:
                made = guards.array(dtype, shape, strides)
                made[...] = 0
                return made

            def arena(self, nbytes: int, device: str) -> Any:
                return numpy.frombuffer(mmap.mmap(-1, _pages(nbytes)), numpy.uint8)

            def weight(self, weights: Any, name: str, spec: Any, device: str) -> Any:
                return guards.copy(weights.array(name, spec))

        library = Library()
        before = program.numpy_library, program.library_of, program.bind, Frame.run, Segment.run
        program.numpy_library = lambda: library  # type: ignore[assignment] - in place of a method
        program.library_of = lambda leaves, tensors: library  # type: ignore[assignment] - the same
        program.bind = self.bind  # type: ignore[assignment]
        Frame.run = lambda frame, *args: guards.run_frame(frame, *args)  # type: ignore[method-assign]
        Segment.run = lambda segment: guards.run_segment(segment)  # type: ignore[method-assign]
        try:
            yield self
        finally:
            program.numpy_library, program.library_of, program.bind, Frame.run, Segment.run = before  # type: ignore[assignment, method-assign]


_RUN_FRAME = Frame.run
LOG: Any = None
"""Where the launches are written: the last line names the one that ended the process."""


def given(guards: Guards, arguments: Any) -> Any:
    """The arguments as guarded arrays."""
    return pytree.tree_map(lambda x: guards.copy(arrays.to_array(x)) if isinstance(x, torch.Tensor) else x, arguments)


def check(name: str, path: Path, calls: Sequence[tuple[dict[str, Any], Any]], tolerance: float) -> str:
    """Runs an artifact with guards on both sides and compares with what is expected. Returns what was done."""
    done: list[str] = []
    for side in SIDES:
        guards = Guards(side)
        with guards.up():
            model = load(path)
            if model.program.needs_torch:
                return f"{name} needs torch"
            for arguments, expected in calls:
                print(f"{name}, guards at the {side}", file=LOG, flush=True)
                found = model(**given(guards, arguments))
                compare(name, found, expected, tolerance)
        done.append(f"{guards.kernels} launches, {guards.buffers} buffers")
    return f"{name}: {'; '.join(done)}"


def compare(name: str, found: Any, expected: Any, tolerance: float) -> None:
    pairs = zip(pytree.tree_leaves(found), pytree.tree_leaves(expected), strict=True)
    for ours, theirs in pairs:
        if isinstance(theirs, torch.Tensor):
            actual = arrays.to_tensor(numpy.array(ours))
            torch.testing.assert_close(
                actual, theirs, rtol=0, atol=tolerance, equal_nan=True, msg=lambda text: f"{name}: {text}"
            )


def run_row(name: str, folder: Path) -> list[str]:
    """An architecture, for its example and, in another artifact, for all its extents."""
    from tests.models.test_architectures import ROWS, TOLERANCE, eager

    row = next(row for row in ROWS if row.name == name)
    model, first = row.build(), row.arguments()
    expected = eager(model, first)
    dims = row.dims(row.extents() - row.fixed.keys())
    kinds: list[tuple[str, Any, list[dict[str, Any]]]] = [("static", None, [first])]
    if dims:
        sizes = [{key: size for key, size in other.items() if key in dims} for other in row.others]
        kinds.append(("dynamic", row.dynamic_shapes(dims), [first, *map(row.arguments, sizes)]))
    done: list[str] = []
    for kind, shapes, every in kinds:
        path = folder / f"{kind}.forge"
        forgec.compile(model, (), first, dynamic_shapes=shapes, target="cpu:host").save(path)
        calls = [(each, expected if each is first else eager(model, each)) for each in every]
        done.append(check(f"{name}, {kind}", path, calls, TOLERANCE))
    return done


def main(names: Sequence[str]) -> int:
    """Checks architectures; what is printed last when the process dies is the kernel that did it."""
    global LOG
    logging.disable(logging.WARNING)
    faulthandler.enable()
    torch.set_num_threads(1)
    LOG = sys.stderr
    failed = 0
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            try:
                print("\n".join(run_row(name, Path(folder))), flush=True)
            except Exception as reason:  # so that one call tells all of them
                failed += 1
                print(f"{name} FAILED {type(reason).__name__}: {str(reason)[:600]}", flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Where an exported operation came from: torch's stack traces, and Python's, are read here and nowhere else."""

from __future__ import annotations

import os
import re
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from forgec.diagnostics import Location

_FRAME = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+), in (?P<function>\S+)')


def place_of(node: Any) -> Location:
    """The user's line, function and submodule that an fx node stands for."""
    stack = node.meta.get("nn_module_stack") or {}
    path, cls, innermost = "", "", ""
    for found, kind in stack.values():
        path = found
        name = kind if isinstance(kind, str) else f"{kind.__module__}.{kind.__qualname__}"
        innermost = name.rpartition(".")[2]
        if not name.startswith("torch."):  # torch's own modules have no line of the user's
            cls = innermost
    return _place(node.meta.get("stack_trace") or "", path, cls, innermost)


@lru_cache(maxsize=16384)
def _place(trace: str, path: str, cls: str, innermost: str) -> Location:
    """The innermost line of the user's; of a model that has none, made of torch's modules alone, torch's own."""
    every = list(_FRAME.finditer(trace))
    frames = [m for m in every if is_user_file(m["file"])]
    if not frames:
        frames, cls = [m for m in every if m["function"] == "forward"], innermost
    if not frames:
        return Location("<unknown>", 0, "", _dotted(path))
    frame = frames[-1]
    function = frame["function"]
    if function == "forward" and cls:
        function = f"{cls}.{function}"
    return Location(portable_path(frame["file"]), int(frame["line"]), function.strip("<>"), _dotted(path))


def _dotted(path: str) -> str:
    return path.removeprefix("L__self__").lstrip(".")


class UserFrames(set[tuple[str, str]]):
    """Stands in for torch's set of functions whose frames a stack trace keeps beside those of ``forward``: all of the
    user's but ``callers``, who ask for the export."""

    def __init__(self, callers: set[tuple[str, str]]) -> None:
        super().__init__()
        self.callers = callers

    def __contains__(self, frame: object) -> bool:
        return isinstance(frame, tuple) and is_user_file(frame[0]) and frame not in self.callers


@contextmanager
def whole_stack_traces() -> Iterator[None]:
    """While this is entered, torch.export records the user's innermost line, in whatever function it stands.

    Left alone it keeps frames of functions named ``forward`` only, and a plain function has none. Where torch has no
    such set, that is how it stays.
    """
    from torch.fx import proxy

    if not hasattr(proxy, "_STACK_TRACE_ANCHORS"):
        yield
        return
    callers: set[tuple[str, str]] = set()
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        callers.add((frame.f_code.co_filename, frame.f_code.co_name))
        frame = frame.f_back
    before = proxy._STACK_TRACE_ANCHORS
    proxy._STACK_TRACE_ANCHORS = UserFrames(callers)
    try:
        yield
    finally:
        proxy._STACK_TRACE_ANCHORS = before


def calling_line() -> Location | None:
    """The line that called the function that asks, if it is the user's."""
    frame = sys._getframe(2)
    if not is_user_file(frame.f_code.co_filename):
        return None
    return Location(portable_path(frame.f_code.co_filename), frame.f_lineno, frame.f_code.co_qualname)


def calling_place(below: str) -> Location | None:
    """The user's innermost line among the callers of the function that asks, above the frames of forgec's file of the
    name ``below``."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        code = frame.f_code
        if is_user_file(code.co_filename):
            return Location(portable_path(code.co_filename), frame.f_lineno, code.co_qualname.strip("<>"))
        if code.co_filename.startswith(_own_roots()) and os.path.basename(code.co_filename) == below:
            return None
        frame = frame.f_back
    return None


def raised_at(trace: TracebackType | None) -> Location | None:
    """The user's innermost line in a traceback."""
    place = None
    while trace is not None:
        code = trace.tb_frame.f_code
        if is_user_file(code.co_filename):
            place = Location(portable_path(code.co_filename), trace.tb_lineno, code.co_qualname)
        trace = trace.tb_next
    return place


@lru_cache(maxsize=4096)
def is_user_file(file: str) -> bool:
    """True for code that is neither generated, nor Python's, torch's or forgec's own."""
    if not file or file.startswith("<"):
        return file.startswith(("<stdin>", "<ipython", "<doctest"))
    path = os.path.abspath(file)
    if "site-packages" not in path and path.startswith(sysconfig.get_path("stdlib") + os.sep):
        return False
    return not path.startswith(_own_roots())


def is_library_line(place: Location | None) -> bool:
    """True for a line in a package that is installed, not in the user's own code."""
    roots = [root for root in sys.path if place is not None and Path(root, place.file).is_file()]
    return any(name in root for root in roots[:1] for name in ("site-packages", "dist-packages"))


@lru_cache(maxsize=1)
def _own_roots() -> tuple[str, ...]:
    import torch

    import forgec

    return tuple(str(Path(package.__file__).parent) + os.sep for package in (torch, forgec) if package.__file__)


@lru_cache(maxsize=4096)
def portable_path(file: str) -> str:
    """``file`` relative to the import root (or working directory) that holds it, so that it reads alike on every
    machine."""
    if file.startswith("<"):
        return file
    path = os.path.abspath(file)
    roots = {os.path.abspath(root or os.curdir) for root in (*sys.path, os.curdir)}
    inside = [root for root in roots if path.startswith(root.rstrip(os.sep) + os.sep)]
    if inside:
        return os.path.relpath(path, max(inside, key=len))
    return os.path.basename(path)

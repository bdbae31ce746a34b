"""Where an exported operation came from: torch's stack traces are read here and nowhere else."""

from __future__ import annotations

import os
import re
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any

from forgec.diagnostics import Location

_FRAME = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+), in (?P<function>\S+)')


def place_of(node: Any) -> Location:
    """The user's line, function and submodule that an fx node stands for."""
    stack = node.meta.get("nn_module_stack") or {}
    path, cls = "", ""
    if stack:
        path, kind = next(reversed(stack.values()))
        cls = (kind if isinstance(kind, str) else getattr(kind, "__qualname__", "")).rpartition(".")[2]
    return _place(node.meta.get("stack_trace") or "", path, cls)


@lru_cache(maxsize=16384)
def _place(trace: str, path: str, cls: str) -> Location:
    frames = [m for m in _FRAME.finditer(trace) if not _is_torch(m["file"])] or list(_FRAME.finditer(trace))
    if not frames:
        return Location("<unknown>", 0, "", _dotted(path))
    frame = frames[-1]
    function = frame["function"]
    if function in ("forward", "__call__") and cls:
        function = f"{cls}.{function}"
    return Location(portable_path(frame["file"]), int(frame["line"]), function, _dotted(path))


def _dotted(path: str) -> str:
    return path.removeprefix("L__self__").lstrip(".")


@lru_cache(maxsize=4096)
def _is_torch(file: str) -> bool:
    return file.startswith(_torch_root())


@lru_cache(maxsize=1)
def _torch_root() -> str:
    import torch

    return str(Path(torch.__file__).parent) + os.sep


@lru_cache(maxsize=4096)
def portable_path(file: str) -> str:
    """``file`` relative to the import root (or working directory) that holds it, so that it reads alike on every
    machine."""
    path = os.path.abspath(file)
    roots = {os.path.abspath(root or os.curdir) for root in (*sys.path, os.curdir)}
    inside = [root for root in roots if path.startswith(root.rstrip(os.sep) + os.sep)]
    if inside:
        return os.path.relpath(path, max(inside, key=len))
    return os.path.basename(path)

"""Tensors that a model holds outside its parameters: buffers, and plain attributes such as a transformers cache's.

torch.export runs in-place operations on such tensors for real when it meets them outside the registered buffers, so
they are kept and restored; and it gives them names of its own, so theirs are found here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

MAX_DEPTH = 6
"""How deep attributes of plain objects are followed: ``module.cache.layers[0].keys`` is four."""


def held_tensors(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Buffers, and tensors in plain attributes (through lists, tuples, dicts and objects), by dotted path. Parameters
    are left out."""
    found = dict(module.named_buffers())
    known = {id(t) for t in found.values()}
    for path, child in module.named_modules():
        for name, value in vars(child).items():
            if not name.startswith("_"):
                for inner, tensor in _walk(value, MAX_DEPTH, set()):
                    if id(tensor) not in known:
                        known.add(id(tensor))
                        found[".".join(part for part in (path, name, inner) if part)] = tensor
    return found


def _walk(value: Any, depth: int, seen: set[int]) -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(value, torch.Tensor):
        if not isinstance(value, torch.nn.Parameter):
            yield "", value
        return
    if (
        depth == 0
        or id(value) in seen
        or isinstance(value, (torch.nn.Module, type, str, bytes, int, float))
        or callable(value)
    ):
        return
    seen.add(id(value))
    if isinstance(value, dict):
        items: Any = value.items()
    elif isinstance(value, (list, tuple)):
        items = enumerate(value)
    else:
        items = getattr(value, "__dict__", {}).items()
    for name, item in list(items):
        for inner, tensor in _walk(item, depth - 1, seen):
            yield ".".join(part for part in (str(name), inner) if part), tensor


@contextmanager
def unchanged(module: torch.nn.Module) -> Iterator[None]:
    """Run something that must not change the module's buffers and other tensors; those that it writes are restored."""
    before = [(t, t._version, t.detach().clone()) for t in held_tensors(module).values() if not t.is_inference()]
    try:
        yield
    finally:
        with torch.no_grad():
            for tensor, version, value in before:
                if tensor.shape != value.shape:
                    tensor.set_(value)  # type: ignore[arg-type] - resize_ and its like came before
                elif tensor._version != version:
                    tensor.copy_(value)

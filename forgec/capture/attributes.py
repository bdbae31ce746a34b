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
def assignments(module: torch.nn.Module) -> Iterator[dict[str, Any]]:
    """Records, by path, the numbers, texts, bools and tensors that are assigned to attributes of the module and its
    submodules, and the lists, dicts and sets there that are changed; afterwards all is as it was.

    (torch.export restores numbers itself, and leaves its own tensors without data in the rest.) Yields the record: path
    to the value before.
    """
    paths = {child: path for path, child in module.named_modules()}
    found: dict[str, Any] = {}
    original = torch.nn.Module.__setattr__

    def recording(self: torch.nn.Module, name: str, value: Any) -> None:
        before = vars(self).get(name, value)
        if self in paths and (
            (isinstance(value, (bool, int, float, str)) and type(before) is type(value) and before != value)
            or (isinstance(value, torch.Tensor) and isinstance(before, torch.Tensor) and before is not value)
        ):
            found.setdefault(f"{paths[self]}.{name}".lstrip("."), before)
        original(self, name, value)  # pyright: ignore[reportArgumentType] - torch's annotation is narrower

    kept = [(child, dict(vars(child)), _contents(child)) for child in paths]
    torch.nn.Module.__setattr__ = recording
    try:
        yield found
    finally:
        torch.nn.Module.__setattr__ = original
        for child, before, contents in kept:
            vars(child).clear()
            vars(child).update(before)
            for name in _restore(child, contents):
                found.setdefault(f"{paths[child]}.{name}".lstrip("."), before[name])


def _contents(module: torch.nn.Module) -> dict[str, Any]:
    """What the lists, dicts and sets among a module's own attributes hold."""
    names = (n for n, v in vars(module).items() if not n.startswith("_") and type(v) in (list, dict, set))
    return {name: vars(module)[name].copy() for name in names}


def _restore(module: torch.nn.Module, contents: dict[str, Any]) -> Iterator[str]:
    """Put back what lists, dicts and sets held; yields the names of those that had changed."""
    for name, before in contents.items():
        held = vars(module)[name]
        same = held == before if isinstance(held, set) else _same_items(held, before)
        if not same:
            if isinstance(held, list):
                held[:] = before
            else:
                held.clear()
                held.update(before)
            yield name


def _same_items(held: Any, before: Any) -> bool:
    """True if two lists or two dicts hold the same objects in the same order."""
    listed = [list(v.items()) if isinstance(v, dict) else [(i, v) for i, v in enumerate(v)] for v in (held, before)]
    return len(held) == len(before) and all(k == q and v is w for (k, v), (q, w) in zip(*listed, strict=True))


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

"""``flex_attention`` as what it means: scores, the model's functions of them, softmax, and the product with the values.

torch.export would keep it as one operator that calls parts of the graph for each score. Here it is traced as the steps
that it stands for, with the functions applied to all scores at once (``vmap``).
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

MODULE = "torch.nn.attention.flex_attention"


@contextmanager
def dense() -> Iterator[None]:
    """Inside the ``with`` block ``flex_attention`` is traced as its steps."""
    module: Any = sys.modules.get(MODULE)
    names = {
        "flex_attention_hop": _steps,
        "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG": True,  # the operator is called without torch.compile
        "setup_compilation_env": nullcontext,  # which would hide vmap from torch.export
    }
    before = {name: getattr(module, name) for name in names if hasattr(module, name)}
    try:
        for name in before:
            setattr(module, name, names[name])
        yield
    finally:
        for name, value in before.items():
            setattr(module, name, value)


def _steps(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    score_mod: Callable[..., torch.Tensor],
    block_mask: tuple[Any, ...],
    scale: float,
    kernel_options: dict[str, Any],
    score_mod_other_buffers: tuple[Any, ...] = (),
    mask_mod_other_buffers: tuple[Any, ...] = (),
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The result, and the logarithms of sums and the greatest scores, both to base 2."""
    kind = query.device.type
    if torch.is_autocast_enabled(kind):
        wanted = torch.get_autocast_dtype(kind)
        query, key, value = (t if t.dtype is torch.float64 else t.to(wanted) for t in (query, key, value))
    with torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else nullcontext():
        groups = query.shape[1] // key.shape[1]
        if groups != 1:
            key, value = (torch.repeat_interleave(t, groups, dim=1) for t in (key, value))
        precision = torch.float64 if query.dtype is torch.float64 else torch.float32
        scores = (query.to(precision) @ key.to(precision).transpose(-2, -1)) * scale
        places = [torch.arange(extent, device=query.device) for extent in scores.shape]
        mask = _of_all(block_mask[-1], places, len(mask_mod_other_buffers))
        modified = _of_all(score_mod, places, len(score_mod_other_buffers), scored=True)
        seen = mask(*places, *mask_mod_other_buffers)
        scores = modified(scores, *places, *score_mod_other_buffers)
        scores = scores.to(precision).masked_fill(~seen, -math.inf)
        result = torch.ops.aten._safe_softmax.default(scores, -1).to(query.dtype) @ value.to(query.dtype)
        if query.stride() != result.stride():
            result = _laid_like(result, query)
        return result, scores.logsumexp(dim=-1) / math.log(2), scores.amax(dim=-1) / math.log(2)


def _of_all(
    function: Callable[..., torch.Tensor], places: list[torch.Tensor], others: int, scored: bool = False
) -> Callable[..., torch.Tensor]:
    """A function of one score's place as one of all places, in the order of the scores' dimensions."""

    def of_one(*arguments: Any) -> torch.Tensor:
        with _TensorsIndex():  # not around vmap, which torch.export sees by a mode of its own
            return function(*arguments)

    found: Callable[..., torch.Tensor] = of_one
    for axis in reversed(range(len(places))):
        along = [0 if position == axis else None for position in range(len(places))]
        found = torch.vmap(found, in_dims=(*[0] * scored, *along, *[None] * others))
    return found


def _laid_like(result: torch.Tensor, query: torch.Tensor) -> torch.Tensor:
    """The result with its dimensions in memory in the order of the query's, as the operator returns it."""
    order = sorted(range(query.dim()), key=lambda axis: query.stride()[axis], reverse=True)
    if order == list(range(query.dim())):
        return result
    return result.permute(order).contiguous().permute([order.index(axis) for axis in range(query.dim())])


class _TensorsIndex(TorchFunctionMode):
    """Reads ``table[h]`` as a choice by the tensor ``h``; Python would ask for the number in it."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.Tensor.__getitem__:
            table, index = args
            items = list(index) if isinstance(index, tuple) else [index]
            if any(isinstance(i, torch.Tensor) for i in items) and all(type(i) is int or _chooses(i) for i in items):
                for axis in reversed(range(len(items))):
                    if type(items[axis]) is int:
                        table = table.select(axis, items.pop(axis))
                return torch.ops.aten.index.Tensor(table, items)
        return func(*args, **(kwargs or {}))


def _chooses(item: Any) -> bool:
    return isinstance(item, torch.Tensor) and item.dtype is not torch.bool

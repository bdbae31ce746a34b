"""The sliding-window layers of transformers' static cache, without decisions by how many tokens they have seen.

``StaticSlidingWindowLayer`` holds the last W tokens and counts all of them in a Python number, by which it decides
where new keys go: behind those it has, while there is room; else all move up. Where that number is state of the program
(:mod:`forgec.capture.python_state`) both ways are one choice of rows, by a tensor.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

MODULE = "transformers.cache_utils"
CLASS = "StaticSlidingWindowLayer"
MASKS = "transformers.masking_utils"
PADDING = "prepare_padding_mask"


@contextmanager
def undecided() -> Iterator[None]:
    """Inside the ``with`` block layers whose count is torch's symbolic number choose by tensors."""
    layer: Any = getattr(sys.modules.get(MODULE), CLASS, None)
    masks = sys.modules.get(MASKS)
    ours = {"update": _update, "get_mask_sizes": _mask_sizes, "get_seq_length": _length}
    held = {name: vars(layer)[name] for name in ours if name in _of(layer)}
    before = [(layer, name, theirs, _where_symbolic(ours[name], theirs)) for name, theirs in held.items()]
    if PADDING in _of(masks):
        before.append((masks, PADDING, vars(masks)[PADDING], _padded_where_tensor(vars(masks)[PADDING])))
    try:
        for holder, name, _, method in before:
            setattr(holder, name, method)
        yield
    finally:
        for holder, name, method, _ in before:
            setattr(holder, name, method)


def _of(holder: Any) -> Mapping[str, Any]:
    return {} if holder is None else vars(holder)


def _padded_where_tensor(theirs: Any) -> Any:
    """The mask [B, tokens] for as many keys as a layer shows, wherever the first lies. transformers decides whether the
    mask has to grow for it; what it grows by is after the queries, so that it may always grow."""

    def prepared(attention_mask: torch.Tensor | None, kv_length: int, kv_offset: Any) -> torch.Tensor | None:
        if attention_mask is None or not isinstance(kv_offset, torch.Tensor):
            return theirs(attention_mask, kv_length, kv_offset)
        return torch.nn.functional.pad(attention_mask, (0, kv_length))

    return prepared


def _where_symbolic(ours: Any, theirs: Any) -> Any:
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        symbolic = isinstance(getattr(self, "cumulative_length_int", None), torch.SymInt) and self.is_initialized
        return (ours if symbolic else theirs)(self, *args, **kwargs)

    return method


def _length(self: Any) -> torch.Tensor:
    """The tokens seen, int64 [], as layers without a window return it."""
    return torch.scalar_tensor(self.cumulative_length_int, dtype=torch.int64, device=self.device)


def _mask_sizes(self: Any, query_length: int) -> tuple[int, torch.Tensor]:
    """How many keys a query sees, and the position of the first.

    Before the layer is full these are more than transformers shows: masks leave out what lies after the queries.
    """
    return self.max_cache_len + query_length - 1, (_length(self) - (self.max_cache_len - 1)).clamp(min=0)


def _update(self: Any, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any) -> Any:
    """Keys and values [B, H, N, D] join the W held ones; returns the W + N - 1 that the queries may see."""
    window, count = self.max_cache_len, key_states.shape[-2]
    seen = _length(self)
    held = seen.clamp(max=window)
    self.cumulative_length_int = self.cumulative_length_int + count
    # transformers' own tensor counts only while there is room
    self.cumulative_length.add_((seen + count <= window).to(torch.int64) * count)

    def rows(extent: Any, first: torch.Tensor) -> torch.Tensor:
        """Rows of the held and the new ones [W + N]: those from the ``first`` token on; what lies after the last new
        token is what the layer holds there."""
        token = torch.arange(extent, device=self.device) + first
        is_new = (token >= held) & (token < held + count)
        return torch.where(is_new, token - held + window, token)

    shown = rows(window + count - 1, (seen >= window).to(torch.int64))
    kept = shown if type(count) is int and count == 1 else rows(window, (held + count - window).clamp(min=0))
    returned = []
    for tensor, new in ((self.keys, key_states), (self.values, value_states)):
        both = torch.cat((tensor, new), dim=-2)
        visible = both.index_select(-2, shown)
        tensor.copy_(visible if kept is shown else both.index_select(-2, kept))
        returned.append(visible)
    return tuple(returned)

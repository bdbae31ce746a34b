"""Tracing that goes on past what cannot be traced, to find what else cannot.

Each failure is noted with the user's line. What failed is then computed on the example's own data, and its result
stands in the trace as a constant; a branch or loop that torch refuses becomes the branch that the example takes, or one
turn of the loop.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch._C import _len_torch_function_stack
from torch.overrides import TorchFunctionMode, _pop_mode, _push_mode
from torch.utils import _pytree

from forgec.capture.places import calling_place
from forgec.diagnostics import Location

Noted = Callable[[Exception, Location | None], None]
"""What to do with a failure and its line."""

BELOW = "draft.py"
"""Frames of forgec's file of this name are the bottom of the model's stack."""


class Onwards(TorchFunctionMode):
    """Notes what the functions of torch refuse while a model is traced with real tensors beside the fake ones."""

    def __init__(self, noted: Noted) -> None:
        super().__init__()
        self.noted = noted

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        try:
            return func(*args, **kwargs)
        except Exception as reason:
            place = calling_place(BELOW)
            if place is None:  # torch tries things on its own account, and takes another way where they fail
                raise
            try:
                result = _for_real(func, args, kwargs)
            except Exception:  # eager PyTorch refuses it as well, or there is no data
                raise reason from None
            self.noted(reason, place)
            return result


def _for_real(func: Any, args: Any, kwargs: Any) -> Any:
    """The call on the example's own data, outside of all tracing."""
    from torch.utils._python_dispatch import _disable_current_modes

    with _disable_current_modes(), torch._C.DisableTorchFunction():
        args, kwargs = _pytree.tree_map(_real, (args, kwargs))
        return func(*args, **kwargs)


def _real(value: Any) -> Any:
    """The data behind what is traced. Raises LookupError where the tracer does not know them."""
    if isinstance(value, torch._subclasses.FakeTensor):
        real = value.real_tensor
        if not isinstance(real, torch.Tensor):
            raise LookupError("no data")
        return real.detach().clone()
    if isinstance(value, (torch.SymInt, torch.SymFloat, torch.SymBool)):
        hint = value.node.shape_env.guarding_hint_or_throw(value.node.expr)
        kind = {torch.SymInt: int, torch.SymFloat: float, torch.SymBool: bool}[type(value)]
        return kind(hint)
    return value


# Control flow
# ---------------------------------------------------------------------------------------------------------------------


def _one_branch(pred: Any, true_fn: Any, false_fn: Any, operands: Any = ()) -> Any:
    """Both branches, for what they hide; the result is that of the one which the example takes."""
    results = [branch(*operands) for branch in (true_fn, false_fn)]
    return results[0] if _real(pred) else results[1]


def _one_turn(cond_fn: Any, body_fn: Any, carried_inputs: Any) -> Any:
    cond_fn(*carried_inputs)
    return body_fn(*carried_inputs)


def _one_step(combine_fn: Any, init: Any, xs: Any, *, dim: int = 0, reverse: bool = False) -> Any:
    carry, part = combine_fn(init, _pytree.tree_map(lambda x: x.select(dim, 0), xs))
    count = _pytree.tree_leaves(xs)[0].shape[dim]
    return carry, _pytree.tree_map(lambda y: y.unsqueeze(0).repeat(count, *[1] * y.dim()), part)


def _one_row(f: Any, xs: Any, *args: Any) -> Any:
    count = _pytree.tree_leaves(xs)[0].shape[0]
    part = f(_pytree.tree_map(lambda x: x[0], xs), *args)
    return _pytree.tree_map(lambda y: y.unsqueeze(0).repeat(count, *[1] * y.dim()), part)


def _operators() -> Iterator[tuple[Any, Callable[..., Any]]]:
    """Torch's functions for control flow, which run Python's compiler on the bodies, and what stands in for each."""
    from torch import _higher_order_ops as found

    yield from zip(
        (found.cond, found.while_loop, found.scan, found.map),
        (_one_branch, _one_turn, _one_step, _one_row),
        strict=True,
    )


@contextmanager
def _set_aside() -> Iterator[None]:
    """Run something without ``Onwards``, which torch's compiler of bodies would try to read."""
    held = _emptied()
    for mode in held:
        if not isinstance(mode, Onwards):
            _push_mode(mode)
    try:
        yield
    finally:
        _emptied()
        for mode in held:
            _push_mode(mode)


def _emptied() -> list[Any]:
    """The modes on torch's stack, from its bottom; none is left there."""
    return [_pop_mode() for _ in range(_len_torch_function_stack())][::-1]


def _tolerant(function: Any, instead: Callable[..., Any], noted: Noted) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        place = calling_place(BELOW)
        try:
            with _set_aside():
                return function(*args, **kwargs)
        except Exception as reason:
            noted(reason, place)
            return instead(*args, **kwargs)

    return call


def _namespaces(model: torch.nn.Module) -> list[dict[str, Any]]:
    """Where a function may have a name: in every module, and in the model's file, which Python may not know as one."""
    found = [vars(module) for module in list(sys.modules.values()) if hasattr(module, "__dict__")]
    found += [getattr(child.forward, "__globals__", {}) for child in model.modules()]
    return list({id(space): space for space in found}.values())


@contextmanager
def going_on(model: torch.nn.Module, noted: Noted) -> Iterator[None]:
    """Inside the ``with`` block a trace of the model goes on past what fails."""
    namespaces = {
        id(vars(module)): vars(module) for module in list(sys.modules.values()) if hasattr(module, "__dict__")
    }
    for child in model.modules():  # a model file is no module that Python has loaded
        found = getattr(child.forward, "__globals__", None)
        if found is not None:
            namespaces[id(found)] = found
    instead = {id(function): _tolerant(function, other, noted) for function, other in _operators()}
    held = [
        (space, name, value)
        for space in namespaces.values()
        for name, value in list(space.items())
        if id(value) in instead
    ]
    for space, name, value in held:
        space[name] = instead[id(value)]
    try:
        with Onwards(noted):
            yield
    finally:
        for space, name, value in held:
            space[name] = value

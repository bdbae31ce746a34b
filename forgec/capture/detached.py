"""Reads of ``x.data`` and assignments to it, as operators that torch.export can trace."""

from __future__ import annotations

from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from forgec.capture.places import calling_place
from forgec.diagnostics import Location, error


class DataIsDetached(TorchFunctionMode):
    """Reads ``x.data`` as ``x.detach()``: the same memory, but torch.export can trace it. So it can ``x.set_(y)``, for
    an assignment to ``x.data``.

    Keeps the calls that give an input itself another shape, over which torch.export stumbles after the trace, where it
    compares inputs with what they were.
    """

    def __init__(self) -> None:
        super().__init__()
        self.reshaped: list[tuple[str, Location | None]] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        of_data = func.__name__ if getattr(func, "__self__", None) is _DATA else ""
        if of_data == "__get__":
            return args[0].detach()
        if of_data == "__set__":
            return _set_data(args[0], args[1], calling_place("export.py"))
        if getattr(func, "__name__", "") in _RESHAPING and _is_input(args[0]):
            self.reshaped.append((func.__name__, calling_place("export.py")))
        return func(*args, **(kwargs or {}))


def _set_data(tensor: torch.Tensor, value: torch.Tensor, place: Location | None) -> None:
    """``tensor.data = value``. Raises ForgeError (C003) for a tensor of the caller or of the model, and for another
    dtype, which no operator of torch's gives a tensor."""
    held = _is_held(tensor)
    if held or tensor.dtype != value.dtype:
        what = (
            "a tensor that the caller or the model holds" if held else f"a tensor of {tensor.dtype}, of {value.dtype}"
        )
        remedy = "write the values into it (copy_)" if held else "give the new tensor a name of its own"
        message = (
            f"an assignment to .data gives new memory to {what}" if held else f"an assignment to .data makes {what}"
        )
        raise error("FORGE-C003", message, location=place, help=remedy)
    tensor.set_(value.detach())  # type: ignore[arg-type]


_RESHAPING = (
    "resize_",
    "resize_as_",
    "set_",
    "t_",
    "transpose_",
    "swapaxes_",
    "swapdims_",
    "squeeze_",
    "unsqueeze_",
    "as_strided_",
)


def _is_held(value: Any) -> bool:
    """True if a tensor is an input of the graph that is being traced, or none that tracing made."""
    return _is_input(value) or isinstance(value, torch.nn.Parameter) or not _is_traced(value)


def _is_traced(value: Any) -> bool:
    from torch.fx.experimental.proxy_tensor import get_proxy_mode, get_proxy_slot

    mode: Any = get_proxy_mode()
    return mode is None or get_proxy_slot(value, mode.tracer, None) is not None


def _is_input(value: Any) -> bool:
    """True if a tensor is an input of the graph that is being traced."""
    from torch.fx.experimental.proxy_tensor import get_proxy_mode, get_proxy_slot

    mode = get_proxy_mode()
    if mode is None:
        return False
    slot: Any = get_proxy_slot(value, mode.tracer, None)
    return getattr(getattr(slot, "proxy", None), "node", None) is not None and slot.proxy.node.op == "placeholder"


_DATA: Any = vars(torch._C.TensorBase)["data"]

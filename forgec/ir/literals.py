"""Tensors as literals of the IR, and back."""

from __future__ import annotations

from typing import Any

from xdsl.dialects.builtin import BytesAttr, DenseIntOrFPElementsAttr
from xdsl.ir import Attribute, SSAValue

from forgec.ir import types


def literal(value: Any, like: SSAValue | Attribute) -> DenseIntOrFPElementsAttr:
    """The literal of a CPU tensor, in the element type of ``like``. The shape is the tensor's.

    Bools take a byte each, 0xff for true: so xDSL stores them, and equal literals must be equal bytes.
    """
    import torch

    from forgec.runtime.dtypes import torch_dtype

    name = types.dtype(like)
    tensor = value.to(torch_dtype(name)).clone(memory_format=torch.contiguous_format)  # strides of extent 1 as well
    raw = tensor.reshape(-1).view(torch.uint8)
    data = (raw * 255 if name == "i1" else raw).numpy().tobytes()
    kind: Any = types.tensor(name, tuple(tensor.shape))
    return DenseIntOrFPElementsAttr(kind, BytesAttr(data))


def to_tensor(attribute: DenseIntOrFPElementsAttr) -> Any:
    """The literal as a fresh CPU tensor."""
    import torch

    from forgec.runtime.dtypes import torch_dtype

    name, shape = types.dtype(attribute.type), [n for n in types.shape(attribute.type) if isinstance(n, int)]
    count = 1
    for extent in shape:
        count *= extent
    raw = attribute.data.data
    if len(raw) == types.ITEM_BYTES[name] and count != 1:  # a splat is stored once
        raw = raw * count
    if not raw:
        return torch.empty(shape, dtype=torch_dtype(name))
    if name == "i1":
        return (torch.frombuffer(bytearray(raw), dtype=torch.uint8) != 0).reshape(shape)
    return torch.frombuffer(bytearray(raw), dtype=torch_dtype(name)).reshape(shape)

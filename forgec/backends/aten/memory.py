"""Ops that move, make and select elements."""

from __future__ import annotations

from typing import Any

from forgec.backends.aten.schema import out_variant
from forgec.backends.aten.table import into, lowers
from forgec.backends.plan_builder import Place, PlanBuilder
from forgec.ir import types
from forgec.ir.ops import creation, index, shape, window
from forgec.ir.ops.aten import AtenOp
from forgec.runtime.plan import Reg


@lowers(shape.CopyOp, shape.ReshapeOp, shape.TransposeOp, shape.BroadcastOp, shape.SliceOp, window.WindowOp)
def _view(op: shape.ViewOp, b: PlanBuilder) -> None:
    """A view where strides can say it; else one copy, into the result's layout."""
    if b.show(op):
        return
    target = b.destination(op.result, row_major=isinstance(op, shape.ReshapeOp))
    source = b.place(op.input)
    if isinstance(op, shape.ReshapeOp):
        shown = b.reshaped(target, types.shape(source.type))
        assert shown is not None, "a fresh row-major buffer can be shown in every shape"
        b.launch("aten::copy_", [shown, source], writes=[shown])
    else:
        b.launch("aten::copy_", [target, source], writes=[target])


@lowers(shape.ConcatOp)
def _concat(op: shape.ConcatOp, b: PlanBuilder) -> None:
    into(b, "aten::cat.out", op.result, [list(op.inputs), op.dim.data])


@lowers(shape.InsertSliceOp)
def _insert_slice(op: shape.InsertSliceOp, b: PlanBuilder) -> None:
    place = b.update(op.result, op.destination)
    strides, extents = list(types.strides(place.type)), types.shape(op.source)
    dim = op.dim.data
    offset = op.start.data * strides[dim]
    strides[dim] = strides[dim] * op.step.data
    window = b.view(place, types.tensor(types.dtype(place.type), extents, strides), offset)
    b.launch("aten::copy_", [window, op.source], writes=[window])


@lowers(window.InsertWindowOp)
def _insert_window(op: window.InsertWindowOp, b: PlanBuilder) -> None:
    place = b.update(op.result, op.destination)
    extents = types.shape(op.source)
    offset, strides = window.addresses(op.start.data, op.steps.data, types.strides(place.type), len(extents))
    shown = b.view(place, types.tensor(types.dtype(place.type), extents, strides), offset)
    b.launch("aten::copy_", [shown, op.source], writes=[shown])


@lowers(creation.FullOp)
def _full(op: creation.FullOp, b: PlanBuilder) -> None:
    place = b.destination(op.result)
    b.launch("aten::fill_.Scalar", [place, op.value.value], writes=[place])


@lowers(creation.IotaOp)
def _iota(op: creation.IotaOp, b: PlanBuilder) -> None:
    (count,) = types.shape(op.result)
    start, step = op.start.data, op.step.data
    if step == 0:  # arange refuses it
        place = b.destination(op.result)
        b.launch("aten::fill_.Scalar", [place, start], writes=[place])
        return
    into(b, "aten::arange.start_out", op.result, [start, start + count * step, step])


@lowers(index.EmbeddingOp)
def _embedding(op: index.EmbeddingOp, b: PlanBuilder) -> None:
    """As ATen does it: rows selected by the flattened indices."""
    rows, columns = types.numel(op.indices), types.shape(op.weight)[1]
    flat = b.reshaped(b.place(op.indices), [rows])
    if flat is None or not types.is_contiguous(op.result) or types.dtype(op.indices) not in ("i64", "i32"):
        b.call("aten::embedding", [op.weight, op.indices], [], [op.result])
        return
    target = b.destination(op.result)
    window = b.reshaped(target, [rows, columns])
    assert window is not None, "a row-major value can be flattened"
    b.launch("aten::index_select.out", [op.weight, 0, flat], [("out", window)], writes=[window])


@lowers(index.IndexSelectOp)
def _index_select(op: index.IndexSelectOp, b: PlanBuilder) -> None:
    into(b, "aten::index_select.out", op.result, [op.input, op.dim.data, op.index])


@lowers(index.GatherOp)
def _gather(op: index.GatherOp, b: PlanBuilder) -> None:
    into(b, "aten::gather.out", op.result, [op.input, op.dim.data, op.index])


def _by_dimension(dims: tuple[int, ...], tensors: list) -> list:
    """The list of index tensors as ATen takes it: None for dimensions that are not indexed."""
    found = dict(zip(dims, tensors, strict=True))
    return [found.get(d) for d in range(max(dims) + 1)]


@lowers(index.IndexOp)
def _index(op: index.IndexOp, b: PlanBuilder) -> None:
    into(b, "aten::index.Tensor_out", op.result, [op.input, _by_dimension(op.dims.data, list(op.indices))])


@lowers(index.IndexPutOp)
def _index_put(op: index.IndexPutOp, b: PlanBuilder) -> None:
    place = b.update(op.result, op.destination)
    indices = _by_dimension(op.dims.data, list(op.indices))
    b.launch("aten::index_put_", [place, indices, op.values, op.accumulate is not None], writes=[place])


_PLACED: dict[type[index.PlacedOp], str] = {
    index.IndexCopyOp: "aten::index_copy_",
    index.ScatterOp: "aten::scatter_.src",
    index.IndexAddOp: "aten::index_add_",
    index.ScatterAddOp: "aten::scatter_add_",
}


@lowers(*_PLACED)
def _placed(op: index.PlacedOp, b: PlanBuilder) -> None:
    place = b.update(op.result, op.destination)
    b.launch(_PLACED[type(op)], [place, op.dim.data, op.index, op.source], writes=[place])


@lowers(shape.FlipOp)
def _flip(op: shape.FlipOp, b: PlanBuilder) -> None:
    b.call("aten::flip", [op.input, op.dims.data], [], [op.result])


@lowers(AtenOp)
def _aten(op: AtenOp, b: PlanBuilder) -> None:
    """A fallback: through the operator's true ``out=`` form if it has one, else as a call that allocates its
    results."""
    args, kwargs = op.arguments
    values = list(op.inputs)

    def filled(arg):
        if isinstance(arg, Reg):
            return values[arg.id]
        return tuple(filled(item) for item in arg) if isinstance(arg, tuple) else arg

    if op.updated:
        _update(op, b)
        return
    variant = None if op.defines is not None else out_variant(op.callee.data)  # nobody knows how much to allocate
    arguments, keywords = [filled(a) for a in args], [(name, filled(a)) for name, a in kwargs]
    if variant is None or len(variant.outs) != len(op.outputs):
        b.call(op.callee.data, arguments, keywords, list(op.outputs))
        return
    places: list[Place] = [b.destination(result) for result in op.outputs]
    outs = list(zip(variant.outs, places, strict=True))
    b.launch(variant.name, arguments, [*keywords, *outs], writes=places)


def _update(op: AtenOp, b: PlanBuilder) -> None:
    """An operator that writes operands: into their own bytes where those are not needed again, else into copies."""
    own = list(op.outputs)[: len(op.outputs) - len(op.updated)]
    places: dict[int, Any] = dict(enumerate(op.inputs))
    for number, result in zip(op.updated, list(op.outputs)[len(own) :], strict=True):
        if list(op.inputs).count(op.inputs[number]) == 1:
            places[number] = b.update(result, op.inputs[number])
        else:
            places[number] = b.destination(result)
            b.launch("aten::copy_", [places[number], op.inputs[number]], writes=[places[number]])

    def filled(arg: Any) -> Any:
        if isinstance(arg, Reg):
            return places[arg.id]
        return tuple(filled(item) for item in arg) if isinstance(arg, tuple) else arg

    args, kwargs = op.arguments
    written = [places[number] for number in op.updated]
    b.call(op.callee.data, [filled(a) for a in args], [(n, filled(a)) for n, a in kwargs], own, writes=written)

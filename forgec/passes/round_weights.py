"""Weights of linears and embeddings are stored in fewer bits."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import CallOp
from xdsl.ir import Operation, SSAValue
from xdsl.passes import ModulePass
from xdsl.rewriter import Rewriter

from forgec.diagnostics import error
from forgec.ir import types
from forgec.ir.attributes import IntsAttr
from forgec.ir.ops.base import ForgeOp
from forgec.ir.ops.contraction import LinearOp
from forgec.ir.ops.decomposition import Emitter
from forgec.ir.ops.fused import FusedOp
from forgec.ir.ops.index import EmbeddingOp
from forgec.ir.ops.module import ParamOp, ParamRefOp
from forgec.ir.ops.quantization import DequantizeOp
from forgec.ir.ops.shape import TransposeOp
from forgec.passes.layers import Layers
from forgec.passes.patterns import applied, missed
from forgec.passes.rewriting import erase_unused, replace
from forgec.passes.rounded_weights import Compute, Rounded, rounding
from forgec.passes.shared_weights import Replacement, Weight, computed_param, grouped, weights_of

PRECISIONS = ("float32", "bf16", "int8", "int4")
"""What ``to`` may be; ``float32`` leaves weights as the model has them."""
NOT_ROUNDED = "this weight keeps its precision"


@dataclass(frozen=True)
class RoundWeights(ModulePass):
    """Store the weights of linears and embeddings as bfloat16, or as integers of 8 or 4 bits with scales.

    Before::

        %w = forge.param_ref @w : tensor<32x64xf32>
        %y = forge.linear %x, %w : (tensor<9x64xf32>, tensor<32x64xf32>) -> tensor<9x32xf32>

    After, with ``to=int8``::

        %w = forge.param_ref @w.int8 : tensor<32x64xi8>
        %s = forge.param_ref @w.int8.scales : tensor<32x1xf32>
        %y = forge.linear %x, %w scales %s compute "f32" :
            (tensor<9x64xf32>, tensor<32x64xi8>, tensor<32x1xf32>) -> tensor<9x32xf32>

    The new parameters are computed from the old ones (``forge.param`` with a region), so the artifact holds them
    instead, and the reference interpreter computes with the rounded weights. ``rounded_weights.py`` says how each
    precision rounds. Activations and sums keep their dtype. Of an embedding the rows are looked up first, and
    dequantised after. A weight that linears and embeddings share (tied ones) stays one; one that anything else reads
    too stays as it is, with a remark, and so do weights that are integers already, and state. Raises FORGE-U009 where
    no weight of the model can be rounded, FORGE-U005 for an unknown precision.

    In a layer, where weights are arguments, calls pass the new parameters instead.

    Order: after everything else at this level (``@O2``), before ``lower-to-tile``.
    """

    name = "round-weights"

    to: str = "bf16"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        check_precision(self.to)
        if self.to != "float32":
            Rounding(op, self.to).run()


def check_precision(name: object) -> None:
    """Raises FORGE-U005 unless a precision of weights has this name."""
    if name not in PRECISIONS:
        raise error("FORGE-U005", f"weights is {name!r}", notes=(f"values: {', '.join(PRECISIONS)}",))


class Rounding:
    """Has linears and embeddings read weights that are stored otherwise."""

    def __init__(self, module: ModuleOp, precision: str) -> None:
        self.module = module
        self.precision = precision
        self.layers = Layers(module)
        self.params = {op.sym_name.data: op for op in module.ops if isinstance(op, ParamOp)}

    def run(self) -> None:
        done, refused = 0, []
        for weight in weights_of(self.module, self.layers):
            rounded = self._rounded(weight, refused)
            if rounded is not None:
                self._replace(weight, rounded)
                done += 1
        for layer in self.layers.callees_first():
            self.layers.drop_unused(layer)
        if not done:
            notes = tuple(dict.fromkeys(refused)) or ("it has no linears and no embeddings of parameters",)
            raise error("FORGE-U009", f"no weight of the model can be stored as {self.precision}", notes=notes)

    def _rounded(self, weight: Weight, refused: list[str]) -> Rounded | None:
        """How a weight will be stored; None if it stays."""
        first = weight.values[0]
        readings = [reading for value in weight.values for reading in self._readings(value)]
        kinds = {kind for kind, _ in readings}
        if not kinds & {"linear", "turned", "embedding"}:
            return None

        def refuse(why: str) -> None:
            refused.append(f"{weight.names[0]} {why}")
            missed(readings[0][1], NOT_ROUNDED, f"{weight.names[0]} {why}")

        if types.dtype(first) not in types.FLOATS:
            return refuse(f"is {types.dtype(first)} already")
        if weight.is_fixed:
            return refuse("is not always a parameter where layers take it")
        if any(value.type != first.type for value in weight.values) or not types.is_contiguous(first):
            return refuse("does not lie in memory the same way wherever it is read")
        if "other" in kinds:
            others = sorted({op.name for kind, op in readings if kind == "other"})
            return refuse(f"is read by {', '.join(others)} too")
        if len(kinds - {"embedding"}) > 1 or kinds >= {"turned", "embedding"}:
            return refuse("is read both as it is stored and transposed")
        shape = types.shape(first)
        if len(shape) != 2 or not all(isinstance(extent, int) and extent > 0 for extent in shape):
            return refuse(f"has the shape {list(map(str, shape))}")
        columns = shape[0] if "turned" in kinds else shape[1]
        assert isinstance(columns, int), "seen above"
        found = self._form(weight, types.dtype(first), columns, "turned" in kinds)
        return refuse(found) if isinstance(found, str) else found

    def _form(self, weight: Weight, dtype: str, columns: int, is_turned: bool) -> Rounded | str:
        """How a weight with rows of so many numbers is stored, or why it is not stored otherwise."""
        return rounding(self.precision, dtype, columns) or "has no more bits already"

    def _readings(self, value: SSAValue) -> Iterator[tuple[str, Operation]]:
        for use in value.uses:
            op = use.operation
            if isinstance(op, FusedOp):
                yield from self._readings(op.body.block.args[use.index])
            elif isinstance(op, CallOp) and op.callee.root_reference.data in self.layers.functions:
                continue
            elif _is_turned(op) and {_reading(inner.operation, inner.index) for inner in op.results[0].uses} == {
                "linear"
            }:
                yield "turned", op
            else:
                yield _reading(op, use.index), op

    def _replace(self, weight: Weight, rounded: Rounded) -> None:
        is_turned = any(kind == "turned" for value in weight.values for kind, _ in self._readings(value))
        made: dict[str, dict[str, ParamOp]] = {part: {} for part in rounded.parts}
        for name in weight.names:
            known: dict[str, ParamOp] = {}
            for part in rounded.parts:
                known[part] = made[part][name] = self._param(name, part, rounded, known, is_turned)
        parts = {part: Replacement(self.layers, params) for part, params in made.items()}
        for value in weight.values:
            for part in parts.values():
                part.of(value)
        for value in weight.values:
            for use in list(value.uses):
                op = use.operation
                if isinstance(op, CallOp):
                    continue
                new = {name: part.of(value) for name, part in parts.items()}
                if isinstance(op, FusedOp):
                    self._in_group(op, value, new, rounded)
                elif isinstance(op, EmbeddingOp):
                    self._in_group(grouped(op), value, new, rounded)
                else:
                    _read(op, new, rounded)
        for value in weight.values:
            erase_unused(value, ParamRefOp)

    def _param(self, name: str, part: str, rounded: Rounded, known: Mapping[str, ParamOp], is_turned: bool) -> ParamOp:
        """A parameter that holds a part of a stored one; ``known`` are the parts before it."""
        suffix = rounded.name if part == "numbers" else f"{rounded.name}.{part}"
        compute = _computing(rounded.parts[part], known, is_turned)
        return computed_param(self.module, self.params, self.params[name], suffix, compute, list(known.values()))

    def _in_group(self, group: FusedOp, value: SSAValue, new: Mapping[str, SSAValue], rounded: Rounded) -> None:
        """Have a group read the rounded weight instead of an operand."""
        block = group.body.block
        for position in [n for n, operand in enumerate(group.operands) if operand is value]:
            old = block.args[position]
            arguments: dict[str, SSAValue] = {}
            for name, each in new.items():
                arguments[name] = block.insert_arg(each.type, len(block.args))
                arguments[name].name_hint = each.name_hint
            for use in list(old.uses):
                _read(use.operation, arguments, rounded)
            group.operands = [*group.operands, *new.values()]
        for position in reversed([n for n, operand in enumerate(group.operands) if operand is value]):
            block.erase_arg(block.args[position])
            group.operands = [operand for n, operand in enumerate(group.operands) if n != position]


def _computing(
    compute: Compute, known: Mapping[str, ParamOp], is_turned: bool
) -> Callable[[Emitter, SSAValue, list[SSAValue]], SSAValue]:
    """``compute`` for ``computed_param``, which is given the known parts in their order."""
    names = list(known)

    def computed(emit: Emitter, weight: SSAValue, others: list[SSAValue]) -> SSAValue:
        weight = emit(TransposeOp, weight, permutation=IntsAttr([1, 0])) if is_turned else weight
        return compute(emit, weight, dict(zip(names, others, strict=True)))

    return computed


def _is_turned(op: Operation) -> bool:
    return isinstance(op, TransposeOp) and list(op.permutation.data) == [1, 0]


def _reading(op: Operation, index: int) -> str:
    """What an op does with its operand of this index."""
    if isinstance(op, LinearOp) and op.operands[index] is op.weight is not op.input:
        return "linear"
    return "embedding" if isinstance(op, EmbeddingOp) and index == 0 else "other"


def _read(op: Operation, new: Mapping[str, SSAValue], rounded: Rounded) -> None:
    """Have an op that reads a weight, or turns it for linears, read the rounded one."""
    if isinstance(op, TransposeOp):
        for use in list(op.result.uses):
            _read(use.operation, new, rounded)
        Rewriter.erase_op(op)
    elif isinstance(op, LinearOp):
        operands = [op.input, new["numbers"], op.bias, new.get("scales"), new.get("zeros")]
        made = LinearOp.make(operands, rounded.properties, [op.result.type])
        applied(op, f"its weight is stored as {rounded.name}")
        replace(op, made.results, [made])
    else:
        assert isinstance(op, EmbeddingOp), "nothing else reads weights that are rounded"
        found: list[ForgeOp] = [EmbeddingOp.make([each, op.indices], op.properties) for each in new.values()]
        rows = {name: each.results[0] for name, each in zip(new, found, strict=True)}
        operands = [rows["numbers"], rows.get("scales"), rows.get("zeros")]
        applied(op, f"its weight is stored as {rounded.name}")
        found.append(DequantizeOp.make(operands, rounded.properties, [op.result.type]))
        replace(op, found[-1].results, found)

"""Mixture of experts: a step of a transformer in which each row goes through the few experts chosen for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from xdsl.builder import Builder
from xdsl.dialects.builtin import AnyTensorTypeConstr, IntAttr, StringAttr, UnitAttr
from xdsl.ir import Attribute, SSAValue
from xdsl.irdl import (
    AttrSizedOperandSegments,
    irdl_op_definition,
    operand_def,
    opt_operand_def,
    opt_prop_def,
    prop_def,
    result_def,
)
from xdsl.utils.exceptions import VerifyException

from forgec.ir import types
from forgec.ir.attributes import IntsAttr, ScalarAttr
from forgec.ir.ops.aten import AtenOp
from forgec.ir.ops.base import ForgeOp, TensorSpec, check_float, check_index, check_same_dtype
from forgec.ir.ops.binary import AddOp, FloorDivOp, MulOp
from forgec.ir.ops.composite import EMIT_ACTIVATION, GluOp, activate, check_activation, gated
from forgec.ir.ops.contraction import GroupedMatmulOp
from forgec.ir.ops.decomposition import Emitter
from forgec.ir.ops.format import KeywordFormatOp
from forgec.ir.ops.index import IndexOp, ScatterOp
from forgec.ir.ops.order import SortOp
from forgec.ir.ops.reduction import SumOp
from forgec.ir.ops.shape import TransposeOp
from forgec.ir.ops.unary import ReluOp
from forgec.runtime.symbolic import Extent, sym_min

if TYPE_CHECKING:
    from forgec.ir.evaluator import Evaluator

SQUARED = "relu_squared"
"""``relu(x)²`` (So et al. 2021), of experts without a gate."""
PACKINGS = ("halves", "interleaved")


@irdl_op_definition
class MoeOp(KeywordFormatOp, ForgeOp):
    """Mixture of experts (Shazeer et al. 2017): the weighted sum of what k experts, chosen for each row, make of it.

    ``result[n] = Σ_{j < k} weights[n, j] · (w_down[e] · h(n, e) + bias_down[e])`` with ``e = indices[n, j]``, where

    - ``h = activation(w_up[e] · x[n] + bias_up[e])`` if there is no gate;
    - ``h = glu(w_gate[e] · x[n] + bias_gate[e], w_up[e] · x[n] + bias_up[e])`` with w_gate, glu being ``forge.glu``
      with the same ``activation``, ``alpha``, ``limit`` and ``up_offset``;
    - if ``packed``, w_up and bias_up hold the gate too: its F features before those of up (``"halves"``), or those of
      gate and up by turns (``"interleaved"``).

    With ``scale_input``, ``weights[n, j]`` scales ``x[n]`` instead, rounded to the input's dtype.

    input [*B, D]; indices [*B, k] (i64 or i32, each in [0, E)), weights [*B, k] of any float; w_up and w_gate
    [E, F, D], w_up [E, 2F, D] if packed, w_down [E, O, F]; if ``transposed``, [E, D, F], [E, D, 2F] and [E, F, O];
    biases [E, F] (or [E, 2F]) and [E, O]. result [*B, O] in the promoted dtype of input and weights, in which products
    with weights and the sum are computed (in the input's if ``scale_input``). Experts that are not chosen are not
    evaluated.
    """

    name = "forge.moe"

    input = operand_def(AnyTensorTypeConstr)
    indices = operand_def(AnyTensorTypeConstr)
    weights = operand_def(AnyTensorTypeConstr)
    w_up = operand_def(AnyTensorTypeConstr)
    w_down = operand_def(AnyTensorTypeConstr)
    w_gate = opt_operand_def(AnyTensorTypeConstr)
    bias_up = opt_operand_def(AnyTensorTypeConstr)
    bias_gate = opt_operand_def(AnyTensorTypeConstr)
    bias_down = opt_operand_def(AnyTensorTypeConstr)
    result = result_def(AnyTensorTypeConstr)
    activation = prop_def(StringAttr)
    packed = opt_prop_def(StringAttr)
    alpha = opt_prop_def(ScalarAttr)
    limit = opt_prop_def(ScalarAttr)
    up_offset = opt_prop_def(ScalarAttr)
    transposed = opt_prop_def(UnitAttr)
    scale_input = opt_prop_def(UnitAttr)

    irdl_options = (AttrSizedOperandSegments(as_property=True),)

    @property
    def is_gated(self) -> bool:
        """True if gate and up are multiplied."""
        return self.packed is not None or self.w_gate is not None

    @property
    def hidden(self) -> Extent:
        """F, the number of features between the products."""
        return types.shape(self.w_down)[1 if self.transposed is not None else 2]

    @property
    def chosen(self) -> int:
        """k, the number of experts for each row; raises VerifyException if it is not constant and positive."""
        extent = types.shape(self.indices)[-1] if types.rank(self.indices) else 0
        if not isinstance(extent, int) or extent < 1:
            raise VerifyException(f"the number of experts for each row must be constant and positive, found {extent}")
        return extent

    def infer(self) -> Sequence[TensorSpec]:
        check_float(self, self.input)
        check_float(self, self.weights)
        check_index(self, self.indices)
        self._check_form()
        shape, places = types.shape(self.input), types.shape(self.indices)
        if not shape or len(places) != len(shape) or places[:-1] != shape[:-1]:
            raise VerifyException("indices must have the input's shape but for the last dimension")
        if types.shape(self.weights) != places:
            raise VerifyException("indices and weights differ in shape")
        _ = self.chosen
        experts, made = self._check_weights(shape[-1])
        self._check_biases(experts, made)
        operands = [v for v in self.operands if v not in (self.indices, self.weights)]
        dtype = check_same_dtype(self, *operands)
        wide = types.promote(dtype, types.dtype(self.weights))
        return [(dtype if self.scale_input is not None else wide, (*shape[:-1], made))]

    def _check_form(self) -> None:
        """The properties agree with each other and with the operands that there are."""
        name = self.activation.data
        if name != SQUARED or self.is_gated:
            check_activation(name)
        if self.packed is not None and self.packed.data not in PACKINGS:
            raise VerifyException(f"packed must be one of {', '.join(PACKINGS)}, found {self.packed.data!r}")
        if self.packed is not None and self.w_gate is not None:
            raise VerifyException("w_up holds the gate if packed; there is no w_gate then")
        if self.bias_gate is not None and self.w_gate is None:
            raise VerifyException("bias_gate is for w_gate")
        if not self.is_gated and any(p is not None for p in (self.alpha, self.limit, self.up_offset)):
            raise VerifyException("alpha, limit and up_offset are for experts with a gate")
        if self.alpha is not None and name != "silu":
            raise VerifyException(f"alpha is for 'silu', found {name!r}")

    def _check_weights(self, features: Extent) -> tuple[Extent, Extent]:
        """E and O; raises VerifyException where the weights fit neither each other nor the input."""
        weights = [w for w in (self.w_up, self.w_gate, self.w_down) if w is not None]
        if any(types.rank(w) != 3 for w in weights):
            raise VerifyException("the weights must have rank 3")
        turned = self.transposed is not None
        *first, (experts, made, hidden) = [_untransposed(types.shape(w), turned) for w in weights]
        expected = (experts, 2 * hidden if self.packed is not None else hidden, features)
        if any(shape != expected for shape in first):
            spelled = "[E, D, F] and [E, F, O]" if turned else "[E, F, D] and [E, O, F]"
            raise VerifyException(f"weights {spelled} (2F if packed) and input [..., D] do not fit")
        return experts, made

    def _check_biases(self, experts: Extent, made: Extent) -> None:
        wide = 2 * self.hidden if self.packed is not None else self.hidden
        for name, width in (("bias_up", wide), ("bias_gate", self.hidden), ("bias_down", made)):
            bias = getattr(self, name)
            if bias is not None and types.shape(bias) != (experts, width):
                raise VerifyException(f"{name} must have shape [{experts}, {width}]")

    def flops(self) -> Extent:
        made, features = types.shape(self.result)[-1], types.shape(self.input)[-1]
        products = 2 * self.hidden * (features * (2 if self.is_gated else 1) + made)
        return types.numel(self.indices) * (products + 5 * self.hidden + 2 * made)

    def bytes_read(self, index: int) -> Extent:
        """Of weights and biases those of as many experts as all rows together can choose; all else once."""
        value = self.operands[index]
        whole = super().bytes_read(index)
        experts = types.shape(self.w_down)[0]
        if value in (self.input, self.indices, self.weights) or experts == 0:
            return whole
        return whole // experts * sym_min(types.numel(self.indices), experts)

    def reference(self, ev: Evaluator, *inputs: Any) -> Any:
        torch = ev.torch
        x, indices, weights, *rest = self.unpack(inputs)
        rows, indices, weights = (t.reshape(-1, t.shape[-1]) for t in (x, indices, weights))
        made = ev.shape(self.result)[-1]
        outputs = torch.zeros(*indices.shape, made, dtype=x.dtype)
        for expert in indices.unique().tolist():
            row, place = torch.where(indices == expert)
            taken = rows[row]
            if self.scale_input is not None:
                taken = (taken * weights[row, place, None]).to(x.dtype)
            outputs[row, place] = self._expert(ev, taken, [None if t is None else t[expert] for t in rest])
        if self.scale_input is None:
            outputs = outputs * weights[..., None]
        return outputs.sum(1).reshape(*x.shape[:-1], made)

    def _expert(self, ev: Evaluator, rows: Any, tensors: Sequence[Any]) -> Any:
        """What one expert makes of some rows, given its share of the op's weights and biases."""
        up_weight, down_weight, gate_weight, up_bias, gate_bias, down_bias = tensors

        def product(x: Any, weight: Any, bias: Any) -> Any:
            result = x @ (weight if self.transposed is not None else weight.T)
            return result if bias is None else result + bias

        up = product(rows, up_weight, up_bias)
        if not self.is_gated:
            squared = self.activation.data == SQUARED
            hidden = up.relu().square() if squared else activate(ev, self.activation.data, up)
        else:
            if gate_weight is not None:
                gate = product(rows, gate_weight, gate_bias)
            elif self.packed is not None and self.packed.data == "interleaved":
                gate, up = up[:, ::2], up[:, 1::2]
            else:
                gate, up = up.chunk(2, -1)
            hidden = gated(ev, gate, up, self.activation.data, *map(_number, self._modifiers))
        return product(hidden, down_weight, down_bias)

    @property
    def _modifiers(self) -> tuple[ScalarAttr | None, ...]:
        return self.alpha, self.limit, self.up_offset

    def decompose(self, builder: Builder) -> list[SSAValue]:
        """The rows sorted by their experts, products of groups of rows, the rows sorted back, and the weighted sum."""
        emit = Emitter(builder, self)
        shape, made, chosen = types.shape(self.input), types.shape(self.result)[-1], self.chosen
        pairs = types.numel(self.indices)
        count = pairs // chosen
        sorting = SortOp.make([emit.cast(emit.reshape(self.indices, (pairs,)), "i64")], {"dim": IntAttr(0)})
        emit.insert(sorting)
        experts, order = sorting.results
        place = order if chosen == 1 else emit.binary(FloorDivOp, order, chosen)
        rows = emit(IndexOp, emit.reshape(self.input, (count, shape[-1])), place, dims=IntsAttr([0]))
        if self.scale_input is not None:
            weights = emit(IndexOp, emit.reshape(self.weights, (pairs,)), order, dims=IntsAttr([0]))
            scaled = emit(MulOp, rows, emit.reshape(weights, (pairs, 1)))
            rows = emit.cast(scaled, types.dtype(self.input))
        outputs = self._products(emit, rows, experts)
        numbers = emit.iota(pairs)
        inverse = emit(ScatterOp, numbers, order, numbers, dim=IntAttr(0))
        outputs = emit(IndexOp, outputs, inverse, dims=IntsAttr([0]))
        outputs = emit.reshape(outputs, (count, chosen, made))
        if self.scale_input is None:
            outputs = emit(MulOp, outputs, emit.reshape(self.weights, (count, chosen, 1)))
        result = outputs if chosen == 1 else emit(SumOp, outputs, dims=IntsAttr([1]))
        return [emit.reshape(result, types.shape(self.result))]

    def _products(self, emit: Emitter, rows: SSAValue, experts: SSAValue) -> SSAValue:
        """What the experts make of rows that are sorted by them."""
        groups = types.shape(self.w_down)[0]
        search = AtenOp.of(
            "aten::searchsorted.Tensor",
            [experts, emit.iota(groups)],
            [("out_int32", True), ("right", True)],
            [types.tensor("i32", [groups])],
        )
        ends = emit.insert(search)

        def product(x: SSAValue, weight: SSAValue, bias: SSAValue | None) -> SSAValue:
            turned = weight if self.transposed is not None else emit.insert(turned_last(weight))
            result = emit(GroupedMatmulOp, x, turned, ends)
            return result if bias is None else emit(AddOp, result, emit(IndexOp, bias, experts, dims=IntsAttr([0])))

        up = product(rows, self.w_up, self.bias_up)
        gate = None if self.w_gate is None else product(rows, self.w_gate, self.bias_gate)
        return product(self.emit_activation(emit, gate, up), self.w_down, self.bias_down)

    def emit_activation(self, emit: Emitter, gate: SSAValue | None, up: SSAValue) -> SSAValue:
        """What stands between the products: of both, or of one that holds both if they are packed."""
        if not self.is_gated:
            if self.activation.data != SQUARED:
                return EMIT_ACTIVATION[self.activation.data](emit, up)
            positive = emit(ReluOp, up)
            return emit(MulOp, positive, positive)
        if gate is None:
            step = 2 if self.packed is not None and self.packed.data == "interleaved" else 1
            gate, up = (emit.slice(up, 1, start, self.hidden, step) for start in (0, 1 if step == 2 else self.hidden))
        names = ("activation", "alpha", "limit", "up_offset")
        found: dict[str, Attribute | None] = {name: self.properties.get(name) for name in names}
        return emit(GluOp, gate, up, **{name: value for name, value in found.items() if value is not None})


def turned_last(weight: SSAValue) -> TransposeOp:
    """The last two dimensions of a stack of matrices swapped, as a view."""
    (groups, rows, columns), (stack, outer, inner) = types.shape(weight), types.strides(weight)
    kind = types.tensor(types.dtype(weight), (groups, columns, rows), (stack, inner, outer))
    return TransposeOp.make([weight], {"permutation": IntsAttr([0, 2, 1])}, [kind])


def _untransposed(shape: Sequence[Extent], turned: bool) -> tuple[Extent, Extent, Extent]:
    experts, rows, columns = shape
    return (experts, columns, rows) if turned else (experts, rows, columns)


def _number(scalar: ScalarAttr | None) -> Any:
    return None if scalar is None else scalar.value

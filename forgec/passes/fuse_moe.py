"""Mixtures of experts, as one op each."""

from __future__ import annotations

from dataclasses import dataclass, field

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp, StringAttr, UnitAttr
from xdsl.ir import Attribute, Operation, SSAValue
from xdsl.passes import ModulePass

from forgec.ir import types
from forgec.ir.attributes import ScalarAttr
from forgec.ir.ops.activation import SwishOp
from forgec.ir.ops.base import producer
from forgec.ir.ops.binary import AddOp, MulOp, PowOp
from forgec.ir.ops.composite import GluOp
from forgec.ir.ops.contraction import GroupedMatmulOp, MatmulOp
from forgec.ir.ops.creation import FullOp
from forgec.ir.ops.experts import SQUARED, MoeOp, turned_last
from forgec.ir.ops.order import SortOp
from forgec.ir.ops.reduction import SumOp
from forgec.ir.ops.shape import BroadcastOp, CopyOp, ReshapeOp, SliceOp
from forgec.ir.ops.unary import CastOp, GeluOp, ReluOp, SigmoidOp, SiluOp
from forgec.passes.dense_experts import read_dense
from forgec.passes.expert_combination import Combination, combine
from forgec.passes.expert_rows import (
    NotFused,
    PairWeights,
    Product,
    divided,
    pair_weights,
    plain,
    product_of,
    repeated,
    sorting,
    squeezed,
    taken,
)
from forgec.passes.patterns import made_by, missed, pairs, substitute, with_number
from forgec.passes.rewriting import blocks, is_dead
from forgec.passes.unfused_experts import unfused
from forgec.runtime.symbolic import Extent

PLAIN = {SiluOp: "silu", ReluOp: "relu", SigmoidOp: "sigmoid"}

GROUPED = "rows sorted by their experts and multiplied in groups (torch.nn.functional.grouped_mm) become one forge.moe"


@dataclass(frozen=True)
class FuseMoe(ModulePass):
    """Make one op of what each row's experts make of it: the gathered rows, two products with the weights of their
    experts, what stands between them, and the weighted sum.

    Before::

        %s, %p = forge.sort %indices_flat dim 0 : (tensor<10xi64>) -> (tensor<10xi64>, tensor<10xi64>)
        %0 = forge.floor_div %p, 2 : (tensor<10xi64>) -> tensor<10xi64>
        %1 = forge.index %x at %0 dims [0] : (tensor<5x8xf32>, tensor<10xi64>) -> tensor<10x8xf32>
        %2 = forge.grouped_matmul %1, %up ends %ends : (tensor<10x8xf32>, tensor<4x8x24xf32>, …) -> tensor<10x24xf32>
        …
        %3 = forge.glu %gate, %up activation "silu" : …
        %4 = forge.grouped_matmul %3, %down ends %ends : …
        %5 = forge.mul %4, %sorted_weights : …
        %6 = forge.index %5 at %inverse dims [0] : …
        …
        %7 = forge.sum %6 over [1] : (tensor<5x2x8xf32>) -> tensor<5x8xf32>

    After::

        %7 = forge.moe %x, %indices, %weights, %w_up, %w_down activation "silu" packed "halves" :
            (tensor<5x8xf32>, tensor<5x2xi64>, tensor<5x2xf32>, tensor<4x24x8xf32>, tensor<4x8x12xf32>)
            -> tensor<5x8xf32>

    The rows may be sorted by their experts and multiplied in groups, or stand in their order, each with weights taken
    for it, or go through all experts, scaled by weights that are zero but for the choices of a top-k (experts that are
    not chosen make zero of them, unless their own weights are not finite). How experts and weights are chosen stays as
    it is: that differs from model to model. The weights of the experts stay as they lie; gate and up may be packed or
    have weights of their own. Routing that nobody uses any more stays for ``dce``.

    Order: after ``fuse-glu``, which makes one op of what stands between the two products.
    """

    name = "fuse-moe"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for block in blocks(op):
            fused: set[Operation] = set()
            failed: list[tuple[Operation, _Experts, str]] = []
            for anchor in [child for child in block.ops if isinstance(child, (GroupedMatmulOp, MatmulOp))]:
                experts = _Experts()
                try:
                    if experts.read(anchor):
                        experts.rewrite()
                        fused.update(experts.ops)
                except NotFused as reason:
                    failed.append((anchor, experts, str(reason)))
            _report(failed, fused)
            told = bool(failed)
            for root in [child for child in block.ops if isinstance(child, SumOp)]:
                try:
                    _fuse_dense(root)
                except NotFused as reason:
                    told = True
                    missed(root, f"no mixture of experts was made: {reason}")
            for topk, how in () if told else unfused(block):
                missed(topk, f"no mixture of experts was made of what this top-k chooses: {how}", GROUPED)


def _fuse_dense(root: SumOp) -> None:
    """Make one op of all experts on all rows, where few have a weight."""
    found = read_dense(root)
    if found is None:
        return
    new = [*found.made, MoeOp.make(found.operands, found.properties)]
    if new[-1].results[0].type != root.result.type:
        new.append(ReshapeOp.make([new[-1].results[0]], {}, [root.result.type]))
    chosen = types.shape(found.operands[1])[1]
    substitute(root, new, found.ops, f"made one forge.moe of {chosen} experts for each row, where all were evaluated")


def _report(failed: list[tuple[Operation, _Experts, str]], fused: set[Operation]) -> None:
    """Remarks about products that were not fused; of first products only where nothing tells of what follows them."""
    last = [experts for _, experts, _ in failed if not experts.is_first]
    told = {op for experts in last for op in experts.ops}
    told_of = {experts.down.experts for experts in last if experts.down is not None}
    for anchor, experts, reason in failed:
        known = experts.is_first and (anchor in told or (experts.down is not None and experts.down.experts in told_of))
        if anchor not in fused and not known:
            missed(anchor, f"no mixture of experts was made: {reason}")


@dataclass
class _Experts:
    """What ``forge.moe`` is made of."""

    ops: list[Operation] = field(default_factory=list)
    properties: dict[str, Attribute] = field(default_factory=dict)
    up: Product | None = None
    gate: Product | None = None
    down: Product | None = None
    input: SSAValue | None = None
    chosen: int = 1
    sort: SortOp | None = None
    scale: PairWeights | None = None
    combination: Combination | None = None
    is_first: bool = False
    """The product takes rows that are chosen for experts, so it is no last one."""

    def read(self, anchor: GroupedMatmulOp | MatmulOp) -> bool:
        """Look for the experts whose last product is ``anchor``. False if it is no product with weights of experts;
        raises NotFused if it is one, but not the last product of experts that the op covers.
        """
        self.down = product_of(anchor.result)
        if self.down is None:
            return False
        self.ops += self.down.ops
        self._read_hidden(self.down.rows)
        assert self.up is not None, "what stands between the products ends in one"
        frames = {(p.experts, p.is_sorted) for p in (self.up, self.gate, self.down) if p is not None}
        if len(frames) > 1:
            raise NotFused("the products are not with weights of the same experts")
        self._check_weights()
        self._read_rows(self.up)
        self.combination = combine(anchor.result, self.down, self.sort, self.chosen, scaled=self.scale is not None)
        self.ops += self.combination.ops
        weights, made = self.combination.weights, types.dtype(self.combination.root.results[0])
        if made != (types.dtype(self.up.weight) if weights is None else weights.product_dtype):
            raise NotFused(f"the results of the experts are cast to {made}")
        inside = {*self.ops, self.combination.root}
        for op in self.ops:
            if op is not self.combination.root and any(
                use.operation not in inside and not is_dead(use.operation)
                for result in op.results
                for use in result.uses
            ):
                raise NotFused(f"the result of {op.name} has other uses")
        return True

    def _check_weights(self) -> None:
        """Weights and biases are of as many experts, and of one dtype."""
        products = [product for product in (self.up, self.gate, self.down) if product is not None]
        tensors = [product.weight for product in products]
        tensors += [product.bias[0] for product in products if product.bias is not None]
        if len({(types.shape(tensor)[0], types.dtype(tensor)) for tensor in tensors}) > 1:
            raise NotFused("weights and biases are not of the same experts, or not of one dtype")

    def _read_hidden(self, value: SSAValue) -> None:
        """The activation or gated unit that makes ``value``, and the products that it takes."""
        value, passed = squeezed(value)
        op = producer(value)
        self.ops += passed
        if isinstance(op, GluOp):
            self.ops.append(op)
            names = ("activation", "alpha", "limit", "up_offset")
            self.properties |= {name: op.properties[name] for name in names if name in op.properties}
            if not self._read_packed(op):
                self.gate, self.up = self._product(op.gate), self._product(op.up)
                if self.gate.rows is not self.up.rows:
                    raise NotFused("gate and up are products of different rows")
            return
        found = None if op is None else _activation(op)
        if found is None:
            if op is None or taken(value) is not None or isinstance(op, (CopyOp, ReshapeOp, BroadcastOp)):
                self.is_first = True
                raise NotFused("what follows the first product does not lead to a second one")
            raise NotFused(
                f"the rows come from {op.name}, which is no activation or gated unit of a product with weights"
            )
        name, source, ops = found
        self.ops += ops
        self.properties["activation"] = StringAttr(name)
        self.up = self._product(source)

    def _product(self, value: SSAValue) -> Product:
        found = product_of(value)
        if found is None:
            raise NotFused("what stands between the products does not begin with a product with weights of experts")
        self.ops += found.ops
        return found

    def _read_packed(self, op: GluOp) -> bool:
        """Gate and up are slices of one product: halves, or by turns."""
        (gate, passed_gate), (up, passed_up) = squeezed(op.gate), squeezed(op.up)
        first, second = made_by(gate, SliceOp), made_by(up, SliceOp)
        if first is None or second is None:
            return False
        shape, dim = types.shape(first.input), first.dim.data
        width = types.shape(first.result)[dim]
        if first.input is not second.input or second.dim.data != dim or any(n != 1 for n in shape[dim + 1 :]):
            raise NotFused("gate and up are no slices of one product")
        places = [(s.start.data, s.step.data, types.shape(s.result)[dim]) for s in (first, second)]
        if not isinstance(width, int) or shape[dim] != 2 * width:
            raise NotFused("gate and up are not all of a product")
        if places == [(0, 1, width), (width, 1, width)]:
            self.properties["packed"] = StringAttr("halves")
        elif places == [(0, 2, width), (1, 2, width)]:
            self.properties["packed"] = StringAttr("interleaved")
        else:
            raise NotFused("gate and up are neither the halves of a product nor its columns by turns")
        self.ops += [first, second, *passed_gate, *passed_up]
        self.up = self._product(first.input)
        return True

    def _read_rows(self, up: Product) -> None:
        """Where the rows come from, and what scales them."""
        value, pair_count = squeezed(up.rows)[0], types.numel(up.experts)
        width = types.shape(up.weight)[1 if up.transposed else 2]
        scaled = _scaled(value)
        if scaled is not None:
            value = scaled[0]
        if up.is_sorted:
            self._read_sorted(value, up, pair_count)
        else:
            found = repeated(value, pair_count)
            self.input, self.chosen = found if found is not None else (value, 1)
        if self.input is None or types.numel(self.input) != pair_count // self.chosen * width:
            raise NotFused("the rows are not all rows of a tensor, each as often as experts are chosen for it")
        if scaled is not None:
            _, weights, dtype = scaled
            self.scale = pair_weights(weights, dtype, up.experts, self.sort)
            if self.scale is None:
                raise NotFused("what scales the rows is not one number for each choice of an expert")

    def _read_sorted(self, value: SSAValue, up: Product, pair_count: Extent) -> None:
        found = taken(value)
        if found is None:
            raise NotFused("the rows of the first product were not taken by a sort of the chosen experts")
        source, place = found
        quotient = divided(place)
        order, chosen = (place, 1) if quotient is None else quotient
        self.sort = sorting(order)
        if self.sort is None or plain(self.sort.input) is not up.experts:
            raise NotFused("the rows of the first product were not taken by a sort of the chosen experts")
        if quotient is None and (again := repeated(source, pair_count)) is not None:
            source, chosen = again
        self.input, self.chosen = source, chosen

    def rewrite(self) -> None:
        """Put the op in the place of the last one that it covers."""
        up, down, combination = self.up, self.down, self.combination
        assert up is not None
        assert down is not None
        assert combination is not None
        assert self.input is not None
        made: list[Operation] = []

        def add(op: Operation) -> SSAValue:
            made.append(op)
            return op.results[0]

        def shaped(value: SSAValue, shape: tuple[Extent, ...]) -> SSAValue:
            if types.shape(value) == shape:
                return value
            return add(ReshapeOp.make([value], {}, [types.tensor(types.dtype(value), shape)]))

        def cast(value: SSAValue, dtype: str) -> SSAValue:
            if types.dtype(value) == dtype:
                return value
            return add(CastOp.make([value], {}, [types.tensor(dtype, types.shape(value))]))

        def laid(product: Product | None) -> SSAValue | None:
            """The weights as those of up lie."""
            if product is None or product.transposed == up.transposed:
                return None if product is None else product.weight
            return add(turned_last(product.weight))

        count = types.numel(up.experts) if self.chosen == 1 else types.numel(up.experts) // self.chosen
        width = types.shape(up.weight)[1 if up.transposed else 2]
        row_dtype, places = types.dtype(up.weight), (count, self.chosen)
        given = self.scale or combination.weights
        if given is None:
            weights = add(FullOp.make([], {"value": ScalarAttr.of(1.0)}, [types.tensor(row_dtype, places)]))
        else:
            weights = cast(shaped(given.value, places), given.dtype)
            if types.promote(row_dtype, given.dtype) != given.product_dtype:
                weights = cast(weights, given.product_dtype)
        if up.transposed:
            self.properties["transposed"] = UnitAttr()
        if self.scale is not None:
            self.properties["scale_input"] = UnitAttr()
        biases = [None if product is None or product.bias is None else product.bias[0] for product in (up, self.gate)]
        operands = [shaped(self.input, (count, width)), shaped(up.experts, places), weights]
        operands += [up.weight, laid(down), laid(self.gate), *biases, combination.bias]
        new = MoeOp.make(operands, self.properties)
        value, root = add(new), combination.root
        if combination.onto is not None:
            value = add(AddOp.of(combination.onto, value))
        if value.type != root.results[0].type:
            add(ReshapeOp.make([value], {}, [root.results[0].type]))
        substitute(root, made, self.ops, f"made one forge.moe of {self.chosen} experts for each row")


def _scaled(value: SSAValue) -> tuple[SSAValue, SSAValue, str] | None:
    """``x``, the weights and the dtype of their product, if ``value`` is x times one number for each row, rounded to
    the dtype of x."""
    cast = made_by(value, CastOp)
    op = made_by(value if cast is None else cast.input, MulOp)
    if op is None:
        return None
    for rows, weights in pairs(op):
        if types.shape(weights) != (*types.shape(rows)[:-1], 1):
            continue
        wide = made_by(rows, CastOp)
        inner, dtype = rows if wide is None else wide.input, types.dtype(op.result)
        if types.dtype(inner) == types.dtype(value) and types.promote(types.dtype(inner), dtype) == dtype:
            return inner, weights, dtype
    return None


def _activation(op: Operation) -> tuple[str, SSAValue, list[Operation]] | None:
    """The name of an activation that ``forge.moe`` has, its operand, and its ops."""
    if type(op) in PLAIN:
        return PLAIN[type(op)], op.operands[0], [op]
    if isinstance(op, GeluOp):
        return "gelu" if op.approximate.data == "none" else "gelu_tanh", op.input, [op]
    if isinstance(op, SwishOp) and op.beta.value == 1:
        return "silu", op.input, [op]
    squared = None
    if isinstance(op, MulOp) and op.lhs is op.rhs:
        squared = made_by(op.lhs, ReluOp)
    elif isinstance(op, PowOp):
        found = with_number(op)
        squared = made_by(found[0], ReluOp) if found is not None and found[0] is op.lhs and found[1] == 2 else None
    return None if squared is None else (SQUARED, squared.input, [op, squared])

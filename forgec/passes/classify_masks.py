"""Masks of attention as what they mean: causal, a window, chunks, a prefix, keys to keep, and a bias."""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects.builtin import IntAttr, ModuleOp, StringAttr, UnitAttr
from xdsl.ir import Attribute, Operation, SSAValue
from xdsl.passes import ModulePass

from forgec.ir import types
from forgec.ir.attributes import ExtentAttr, IntsAttr, ScalarAttr
from forgec.ir.ops.attention import AttentionOp
from forgec.ir.ops.binary import AddOp, LogicalAndOp, LogicalOrOp
from forgec.ir.ops.creation import FullOp
from forgec.ir.ops.select import WhereOp
from forgec.ir.ops.shape import BroadcastOp, ReshapeOp, SliceOp, TransposeOp
from forgec.ir.ops.unary import LogicalNotOp
from forgec.passes.mask_elements import Element, Elements, Leaf, Linear, Node, Number
from forgec.passes.mask_levels import levels
from forgec.passes.mask_structure import Classifier, Condition, Structure, conditions, tensor_of
from forgec.passes.number_ranges import masks, swallows
from forgec.passes.patterns import missed, substitute
from forgec.passes.rewriting import blocks
from forgec.runtime.symbolic import Extent, is_nonnegative

_INFINITY = float("inf")


@dataclass(frozen=True)
class ClassifyMasks(ModulePass):
    """Read what the mask of a ``forge.attention`` keeps from how it was computed, and say it by the op's own words.

    Before::

        %i = forge.iota from 0 step 1 : tensor<9xi64>
        %r = forge.reshape %i : (tensor<9xi64>) -> tensor<9x1xi64>
        %m = forge.le %i, %r : (tensor<9xi64>, tensor<9x1xi64>) -> tensor<9x9xi1>
        %0 = forge.attention %q, %k, %v mask %m : (…, tensor<9x9xi1>) -> tensor<1x4x9x8xf32>

    After::

        %0 = forge.attention %q, %k, %v causal : (…) -> tensor<1x4x9x8xf32>

    Comparisons of positions become ``causal`` (with the ``offset`` of a cache), ``window`` and ``chunk``; columns that
    are kept whatever these say become ``prefix``; conditions on
    columns alone, as padding is, become ``keys``; what is left of a mask stays, without those parts. A mask that adds
    the least finite number makes ``empty_row`` "uniform", and one that leaves every row a column makes it "zero".
    Where a row may be empty, masks stay that add more than one number, or one that does not swallow scores in the
    dtype of the softmax (float16 has none). Each mask is read once, whatever the number of layers.

    Order: after ``fuse-attention``, which hands on masks as they are, and before ``constant-fold``, which would make
    numbers of small ones.
    """

    name = "classify-masks"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for block in blocks(op):
            reader = _Reader()
            for current in list(block.ops):
                if isinstance(current, AttentionOp) and current.mask is not None:
                    reader.rewrite(current, current.mask)


@dataclass
class _Meaning:
    """What a mask says: properties and operands of attention. ``fill`` is what masked scores get."""

    properties: dict[str, Attribute]
    mask: SSAValue | None
    keys: SSAValue | None
    prefix: SSAValue | None
    fill: float | None
    certain: bool  # no row is empty


class _Unknown(Exception):
    """A mask that the op has no words for."""


class _Reader:
    def __init__(self) -> None:
        self.elements: dict[tuple[Extent, ...], Elements] = {}
        self.known: dict[tuple[SSAValue, tuple[Extent, ...], str], _Meaning | str] = {}
        self.new: list[Operation] = []

    def rewrite(self, op: AttentionOp, mask: SSAValue) -> None:
        if op.is_structured:
            missed(op, "its mask stays as it is: the op says already which columns it keeps")
            return
        shape = (*types.shape(op.result)[:-1], types.shape(op.key)[-2])
        self.new = []
        key = (mask, shape, op.softmax_dtype.data)
        if key not in self.known:
            try:
                self.known[key] = self._read(*key)
            except _Unknown as exc:
                for new in reversed(self.new):
                    new.erase()
                self.new = []
                self.known[key] = str(exc)
        meaning = self.known[key]
        if isinstance(meaning, str):
            missed(op, f"its mask stays as it is: {meaning}")
            return
        if meaning.mask is mask and not meaning.properties and meaning.keys is None:
            return
        self._apply(op, meaning)

    def _apply(self, op: AttentionOp, meaning: _Meaning) -> None:
        properties = {**op.properties, **meaning.properties}
        finite = meaning.fill is not None and meaning.fill != -_INFINITY
        if meaning.certain or op.sinks is not None:
            properties["empty_row"] = StringAttr("zero")
        elif finite:
            properties["empty_row"] = StringAttr("uniform")
        operands = [op.query, op.key, op.value, meaning.mask, op.sinks, meaning.keys, meaning.prefix, op.replaced]
        new = AttentionOp.make(operands, properties, [op.result.type])
        words = [name for name in ("causal", "offset", "window", "chunk") if name in meaning.properties]
        words += [name for name in ("prefix", "keys") if getattr(meaning, name) is not None]
        substitute(op, [*self.new, new], what=_told(words, meaning.mask))

    def _read(self, mask: SSAValue, shape: tuple[Extent, ...], work: str) -> _Meaning:
        rank = len(shape)
        element = element_of(mask, shape, self.elements.setdefault(shape, Elements(shape)))
        kept: list[Condition] = []
        biases: list[Element] = []
        if types.dtype(mask) == "i1":
            kept += conditions(element)
        else:
            _take_terms(element, types.dtype(mask), kept, biases)
        if not kept:
            return _Meaning({}, None if not biases else mask, None, None, None, not biases)
        found = Classifier(shape).sort(iter(kept))
        if found.nothing:
            raise _Unknown("it keeps nothing")
        properties = _properties(found)
        columns = [*range(rank - 3), rank - 1]
        keys = self._joined(found.keys, columns, shape)
        prefix = self._joined(list(found.prefix), columns, shape, LogicalOrOp)
        left = self._joined(found.rest, list(range(rank)), shape)
        certain = left is None and keys is None and not biases and _always_keeps(properties, shape)
        boolean = certain or types.dtype(mask) == "i1"
        fill = -_INFINITY if boolean else _fill_of_empty_rows(element, types.dtype(mask), work)
        meaning = _Meaning(properties, None, keys, prefix, fill, certain)
        meaning.mask = self._bias(biases, left, shape)
        return meaning

    def _joined(
        self,
        parts: list[Condition],
        axes: list[int],
        shape: tuple[Extent, ...],
        connective: type[LogicalAndOp | LogicalOrOp] = LogicalAndOp,
    ) -> SSAValue | None:
        """Conditions as one tensor over these axes."""
        joined: SSAValue | None = None
        for part in parts:
            value = tensor_of(part, axes, shape, self._insert)
            if value is None:
                raise _Unknown("a part of it is no slice of a tensor")
            joined = value if joined is None else self._op(connective.make([joined, value]))
        if joined is not None and len(axes) < len(shape):  # keys: one rank, the last extent in full
            target = [*types.shape(joined)[:-1], shape[-1]]
            joined = self._insert("broadcast", joined, target)
        return joined

    def _bias(self, biases: list[Element], left: SSAValue | None, shape: tuple[Extent, ...]) -> SSAValue | None:
        total: SSAValue | None = None
        for bias in biases:
            if not isinstance(bias, (Leaf, Node)):
                raise _Unknown("a part of it is no tensor")
            value = tensor_of(Condition(bias), list(range(len(shape))), shape, self._insert)
            if value is None:
                raise _Unknown("a part of it is no slice of a tensor")
            if types.dtype(value) not in types.FLOATS:
                raise _Unknown("a part of it is no floating-point number")
            total = value if total is None else self._op(AddOp.make([total, value]))
        if total is None or left is None:
            return left if total is None else total
        dtype = types.dtype(total)
        least = FullOp.create(properties={"value": ScalarAttr.of(-_INFINITY)}, result_types=[types.tensor(dtype, ())])
        return self._op(WhereOp.make([left, total, self._op(least)]))

    def _op(self, op: Operation) -> SSAValue:
        self.new.append(op)
        return op.results[0]

    def _insert(self, kind: str, value: SSAValue, *what) -> SSAValue:
        """An op that rearranges or negates; nothing where it would change nothing."""
        shape, strides, dtype = list(types.shape(value)), list(types.strides(value)), types.dtype(value)
        if kind == "not":
            return self._op(LogicalNotOp.make([value]))
        if kind == "slice":
            dim, start, count = what
            shape[dim] = count
            place = {"dim": IntAttr(dim), "start": ExtentAttr(start), "step": ExtentAttr(1)}
            return self._made(SliceOp, value, types.tensor(dtype, shape, strides), **place)
        (target,) = what
        if kind == "transpose":
            if target == sorted(target):
                return value
            result = types.tensor(dtype, [shape[d] for d in target], [strides[d] for d in target])
            return self._made(TransposeOp, value, result, permutation=IntsAttr(target))
        if target == shape:
            return value
        return self._made(ReshapeOp if kind == "reshape" else BroadcastOp, value, types.tensor(dtype, target))

    def _made(self, cls: type[Operation], value: SSAValue, kind: Attribute, **properties: Attribute) -> SSAValue:
        return self._op(cls.create(operands=[value], properties=properties, result_types=[kind]))


def _told(words: list[str], left: SSAValue | None) -> str:
    """What became of a mask, for the user."""
    if left is None:
        return f"the mask is {' '.join(words)}" if words else "the mask keeps everything, and is not read"
    kind = "a tensor of booleans" if types.dtype(left) == "i1" else "a bias that is added to scores"
    if not words:
        return f"the mask stays {kind}: no part of it says causal, window, chunk or keys"
    return f"the mask is {' '.join(words)}; what else it says stays {kind}"


def element_of(mask: SSAValue, shape: tuple[Extent, ...], elements: Elements) -> Element:
    """The element of a mask that belongs to one of scores [*B, H, S, T]."""
    rank = len(shape)
    return elements(mask, tuple(Linear(((axis, 1),)) for axis in range(rank - types.rank(mask), rank)))


def keeps_every_row(mask: SSAValue, shape: tuple[Extent, ...], elements: Elements) -> bool:
    """True if it is certain that a mask over scores of a shape leaves something of each row: without biases, and by
    positions alone.
    """
    biases: list[Element] = []
    kept: list[Condition] = []
    element = element_of(mask, shape, elements)
    if types.dtype(mask) == "i1":
        kept += conditions(element)
    else:
        _take_terms(element, types.dtype(mask), kept, biases)
    found = Classifier(shape).sort(iter(kept))
    try:
        return not (biases or found.nothing or found.keys or found.rest) and _always_keeps(_properties(found), shape)
    except _Unknown:
        return False


def _fill_of_empty_rows(element: Element, dtype: str, work: str) -> float:
    """What each score of a row becomes of which nothing is kept, whatever the scores: its mask is added in ``work``."""
    fills = {fill for fill in levels(element, dtype) if masks(fill, dtype) or fill != fill}
    if len(fills) != 1:
        raise _Unknown("it masks more than once, and what is left of an empty row depends on how often")
    (fill,) = fills
    if not swallows(fill, work):
        raise _Unknown(f"it adds {fill:g}, which leaves an empty row some of its scores")
    return fill


def _take_terms(element: Element, dtype: str, kept: list[Condition], biases: list[Element]) -> None:
    """The conditions and the biases of a sum of masks."""
    match element:
        case Number(value=value) if value == 0:
            return
        case Node(name="add", arguments=arguments):
            conditions_before, parts = len(kept), []
            for argument in arguments:
                _take_terms(argument, dtype, kept, parts)
            biases += parts if len(kept) > conditions_before else [element]
        case Node(name="where", arguments=(condition, then, otherwise)):
            for inner, filled, negated in ((then, otherwise, False), (otherwise, then, True)):
                if isinstance(filled, Number) and masks(filled.value, dtype):
                    kept += conditions(condition, negated)
                    _take_terms(inner, dtype, kept, biases)
                    return
            biases.append(element)
        case _:
            biases.append(element)


def _properties(found: Structure) -> dict[str, Attribute]:
    """Bounds as the op's properties."""
    ahead, behind = found.ahead, found.behind
    properties: dict[str, Attribute] = {}
    offset: Extent = 0
    if ahead is not None and ahead == behind:
        if not isinstance(ahead, int) or ahead < 0:
            raise _Unknown("its window has no fixed size")
        properties["window"] = IntAttr(ahead + 1)
    elif ahead is not None:
        properties["causal"], offset = UnitAttr(), ahead
        if behind is not None:
            size = behind + ahead + 1
            if not isinstance(size, int) or size < 1:
                raise _Unknown("its window has no fixed size")
            properties["window"] = IntAttr(size)
    elif behind is not None:
        raise _Unknown("it looks ahead without end, but not back")
    if found.chunk is not None:
        size, start = found.chunk
        if properties and start != offset:
            raise _Unknown("its chunks start elsewhere than its positions")
        properties["chunk"], offset = IntAttr(size), start
    if offset != 0:
        properties["offset"] = ExtentAttr(offset)
    return properties


def _always_keeps(properties: dict[str, Attribute], shape: tuple[Extent, ...]) -> bool:
    """True if these properties leave every row a column, because its own position is one."""
    offset = properties.get("offset")
    start = offset.data if isinstance(offset, ExtentAttr) else 0
    inside = is_nonnegative(shape[-1] - shape[-2] - start)
    unbounded = "window" not in properties and "chunk" not in properties
    return is_nonnegative(start) and (inside or unbounded)

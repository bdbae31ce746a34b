"""What kernels cost, from the types of their ops: operations, bytes at each level of memory, bytes of live tiles.

All of it are extents over the kernel's symbols, and over its tile parameters where it is not bound yet: one walk
serves every choice of tile extents. Loops count by their turns; a bound that depends on the program (causal attention)
counts as in the middle of the grid; a loop whose turns only the data tells counts once, as does a ``scf.while``. Of a
``scf.if`` the dearer branch counts; one that holds for some of the programs alone, a section, has costs of its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, reduce
from math import prod

from xdsl.dialects import arith, scf
from xdsl.dialects.builtin import AnyTensorType, IndexType, IntegerType
from xdsl.ir import Attribute, Block, Operation, SSAValue

from forgec.ir import types
from forgec.ir.layout import stored_bytes
from forgec.ir.tile import compute, memory
from forgec.ir.tile.elementwise import CmpiOp
from forgec.ir.tile.kernel import KernelOp, ProgramIdOp
from forgec.ir.tile.places import Places
from forgec.ir.tile.types import block_type, element, extents
from forgec.runtime.symbolic import Extent, evaluate, substitute, sym_max, sym_min

SORT_OPS = 4
"""Operations for each byte of an element that is sorted."""
LINE_BYTES = 64
"""What memory moves at once: a cache line of x86-64 and arm64, two sectors of an NVIDIA GPU."""
PAIR_BYTES = 128
"""What memory moves well: caches fetch the neighbour of a line with it."""
KEPT_BYTES = 64 << 10
"""A parameter of so many bytes stays in a cache while programs read it: a bias, the scale of a norm."""
DOT_COLUMNS = 16
"""Columns of a product that are computed at once, however few there are: lanes of float32 in a vector of 64 bytes, the
least extent of a product in Triton.
"""
INDEX_BYTES = 8


@dataclass(frozen=True)
class ProgramCost:
    """The cost of one program.

    ``dot_flops`` are those of products (a multiply-add counts two), ``flops`` the other operations on floats, one for
    each element; ``element_ops`` all operations on elements but the products'. ``bytes_read`` and ``bytes_written`` are
    those of memory, once for each element that a program loads or stores inside its block; ``line_bytes`` the same in
    whole lines of ``LINE_BYTES``, and ``far_bytes`` those of them that a cache does not keep from one program to the
    next: of parameters of more than ``KEPT_BYTES``; ``far_runs`` are the rows of elements side by side that they are
    in. ``tile_bytes`` are the bytes of tiles that ops take and yield: the
    traffic of registers, or of the first level of cache. ``dot_work`` are the operations of products as machines carry
    them out, ``DOT_COLUMNS`` columns at a time.
    """

    dot_flops: Extent = 0
    flops: Extent = 0
    element_ops: Extent = 0
    bytes_read: Extent = 0
    bytes_written: Extent = 0
    line_bytes: Extent = 0
    tile_bytes: Extent = 0
    far_bytes: Extent = 0
    dot_work: Extent = 0
    far_runs: Extent = 0

    def __add__(self, other: ProgramCost) -> ProgramCost:
        return ProgramCost(*(a + b for a, b in zip(self.parts, other.parts, strict=True)))

    def times(self, count: Extent) -> ProgramCost:
        """The cost of ``count`` such programs, or turns of a loop."""
        return ProgramCost(*(part * count for part in self.parts))

    def dearer(self, other: ProgramCost) -> ProgramCost:
        """The larger one, measure by measure."""
        return ProgramCost(*(sym_max(a, b) for a, b in zip(self.parts, other.parts, strict=True)))

    def at(self, values: Mapping[str, Extent]) -> ProgramCost:
        """The same with symbols replaced."""
        if not values:
            return self
        return ProgramCost(*(substitute(part, values) for part in self.parts))

    @property
    def parts(self) -> tuple[Extent, ...]:
        """The measures in order."""
        return (
            self.dot_flops, self.flops, self.element_ops, self.bytes_read, self.bytes_written, self.line_bytes,
            self.tile_bytes, self.far_bytes, self.dot_work, self.far_runs,
        )  # fmt: skip


@dataclass
class KernelCost:
    """The cost of a kernel: for each of its sections (one, for most kernels) that of a program, and how many programs
    there are.

    ``live`` are the sums of the bytes of tiles that are alive together, at each op where the sum differs;
    ``dot_operands`` the bytes of both operands of each product, ``dot_code`` the multiply-adds of all products, each
    product counted once however often it is carried out. ``footprint_bytes`` are those of the parameters, each once:
    what a launch must move at least, if it reads and writes all of them. A parameter whose elements are only gathered
    counts as what is gathered where that is less: an embedding reads a few rows of its table.
    """

    sections: tuple[tuple[ProgramCost, Extent], ...]
    programs: Extent
    footprint_bytes: Extent
    live: tuple[Extent, ...]
    dot_operands: tuple[Extent, ...] = ()
    dot_code: Extent = 0
    is_exact: bool = True

    def at(self, values: Mapping[str, Extent]) -> KernelCost:
        """The same with symbols replaced."""
        return KernelCost(
            tuple((program.at(values), substitute(count, values)) for program, count in self.sections),
            substitute(self.programs, values),
            substitute(self.footprint_bytes, values),
            tuple(dict.fromkeys(substitute(size, values) for size in self.live)),
            tuple(dict.fromkeys(substitute(size, values) for size in self.dot_operands)),
            substitute(self.dot_code, values),
            self.is_exact,
        )

    @cached_property
    def launch(self) -> ProgramCost:
        """The cost of all programs."""
        first, *others = (program.times(count) for program, count in self.sections)
        return sum(others, start=first)

    @cached_property
    def program(self) -> ProgramCost:
        """The cost of one program, of the dearest section measure by measure."""
        first, *others = (program for program, _ in self.sections)
        return reduce(ProgramCost.dearer, others, first)

    @property
    def live_bytes(self) -> Extent:
        """The most bytes of tiles that are alive together."""
        return sym_max(*self.live) if self.live else 0

    def live_bytes_at(self, values: Mapping[str, int]) -> int:
        """The same for values of all symbols."""
        return max((evaluate(size, values) for size in self.live), default=0)

    def dot_bytes_at(self, values: Mapping[str, int]) -> int:
        """The most bytes that both operands of one product have."""
        return max((evaluate(size, values) for size in self.dot_operands), default=0)


def kernel_cost(kernel: KernelOp) -> KernelCost:
    """The cost of a kernel, bound or not."""
    return _Walk(kernel).cost()


def section_programs(op: Operation) -> Extent | None:
    """How many programs run a section: an ``scf.if`` of a kernel's own block that holds for the programs from one
    number on to another. None for any other op.
    """
    if not isinstance(op, scf.IfOp) or not isinstance(op.parent_op(), KernelOp) or op.false_region.blocks:
        return None
    condition = op.cond.owner
    if not isinstance(condition, arith.AndIOp):
        return None
    limits: dict[str, Extent] = {}
    for compared in (condition.lhs.owner, condition.rhs.owner):
        if isinstance(compared, CmpiOp):
            program, limit = compared.lhs.owner, compared.rhs.owner
            if isinstance(program, ProgramIdOp) and isinstance(limit, compute.IndexOp) and not limit.operands:
                limits[arith.CMPI_COMPARISON_OPERATIONS[compared.predicate.value.data]] = limit.expression.data
    return limits["slt"] - limits["sge"] if limits.keys() == {"slt", "sge"} else None


def tile_bytes(value: SSAValue | Attribute) -> Extent:
    """Bytes of a tile, 0 for a scalar or a block."""
    return _tile_bytes(value.type if isinstance(value, SSAValue) else value)


@lru_cache(maxsize=1 << 14)
def _tile_bytes(kind: Attribute) -> Extent:
    shape = extents(kind)
    return prod(shape, start=1) * item_bytes(element(kind)) if shape else 0


def _total(amounts: Iterable[Extent]) -> Extent:
    """The sum, with terms that are equal counted first: costs of ops are few different ones."""
    counts = Counter(amounts)
    return sum((amount * count for amount, count in counts.items()), start=0)


def item_bytes(kind: Attribute) -> int:
    """Bytes of one element of a tile."""
    return INDEX_BYTES if isinstance(kind, IndexType) else types.ITEM_BYTES[types.dtype(types.tensor(kind, ()))]


class _Walk:
    def __init__(self, kernel: KernelOp) -> None:
        self.kernel = kernel
        self.places = Places(kernel)
        self.live: dict[Extent, None] = {}
        self.dots: dict[Extent, None] = {}
        self.dot_code: Extent = 0
        self.sections: list[tuple[ProgramCost, Extent]] = []
        self.is_exact = True
        self.repeated: Extent = 1
        self.gathered: dict[SSAValue, list[Extent]] = {}
        self.whole: set[SSAValue] = set()

    def cost(self) -> KernelCost:
        values: dict[str, Extent] = dict(self.kernel.bindings)
        programs = prod((substitute(extent, values) for extent in self.kernel.grid.data), start=1)
        common = self.block(self.kernel.body.block, 0)
        sections = [(common + cost, count) for cost, count in self.sections] or [(common, programs)]
        footprint = sum((self._footprint(parameter, programs, values) for parameter in self.kernel.parameters), start=0)
        footprint += sum(
            (stored_bytes(block_type(self.kernel.parameters[n])) for n in self.kernel.updates.data), start=0
        )
        live = tuple(substitute(size, values) for size in self.live)
        dots = tuple(substitute(size, values) for size in self.dots)
        found = tuple((cost.at(values), substitute(count, values)) for cost, count in sections)
        return KernelCost(found, programs, footprint, live, dots, substitute(self.dot_code, values), self.is_exact)

    def _footprint(self, parameter: SSAValue, programs: Extent, values: Mapping[str, Extent]) -> Extent:
        stored = stored_bytes(block_type(parameter))
        if parameter in self.whole or parameter not in self.gathered:
            return stored
        return sym_min(stored, programs * substitute(_total(self.gathered[parameter]), values))

    def block(self, block: Block, around: Extent) -> ProgramCost:
        """The cost of one execution. ``around`` are the bytes of tiles that live on outside."""
        found: list[ProgramCost] = []
        dying = _last_uses(block)
        alive = around + sum((tile_bytes(argument) for argument in block.args), start=0)
        for op in block.ops:
            count = section_programs(op)
            if count is None:
                found.append(self.op(op, alive))
            else:
                self.sections.append((self.block(op.regions[0].block, alive), count))
            alive = alive + sum((tile_bytes(result) for result in op.results), start=0)
            self.live[alive] = None
            alive = alive - sum((tile_bytes(value) for value in dying.get(op, ())), start=0)
        return ProgramCost(*map(_total, zip(*(cost.parts for cost in found), strict=True))) if found else ProgramCost()

    def op(self, op: Operation, alive: Extent) -> ProgramCost:
        match op:
            case scf.ForOp():
                turns = self.places.turns(op)
                if turns is None:
                    turns = self._turns_if_any(op)
                self.is_exact &= turns is not None and self.places.middle(turns) == turns
                times = 1 if turns is None else self.places.middle(turns)
                outside, self.repeated = self.repeated, self.repeated * times
                body = self.block(op.body.block, alive)
                self.repeated = outside
                return body.times(times)
            case scf.IfOp():
                self.is_exact = False
                branches = [self.block(r.block, alive) for r in (op.true_region, op.false_region) if r.blocks]
                return branches[0] if len(branches) == 1 else branches[0].dearer(branches[1])
            case scf.WhileOp():
                self.is_exact = False
                return self.block(op.before_region.block, alive) + self.block(op.after_region.block, alive)
            case memory.LoadOp():
                return self._moved(op.block, op.result, read=True)
            case memory.StoreOp():
                return self._moved(op.block, op.value, read=False)
            case memory.GatherOp():
                return self._elements(op, op.result, reads=True, writes=False)
            case memory.ScatterOp():
                return self._elements(op, op.value, reads=op.combine is not None, writes=True)
            case memory.SortOp():
                return self._sorted(op)
            case compute.DotOp():
                self.dots[tile_bytes(op.lhs) + tile_bytes(op.rhs)] = None
                (rows, inner), columns = extents(op.lhs), extents(op.result)[1]
                if op.rows and op.band is None:
                    rows = self._share(op, rows)
                self.dot_code = self.dot_code + rows * columns * inner
                work = 2 * rows * inner * (-(-columns // DOT_COLUMNS) * DOT_COLUMNS)
                return ProgramCost(dot_flops=2 * rows * columns * inner, tile_bytes=_touched(op), dot_work=work)
            case compute.ReduceOp() | compute.ScanOp():
                return self._computed(op, op.input)
            case compute.TileOp() if not isinstance(op, (compute.PadOp, compute.IndexOp)):
                return ProgramCost(tile_bytes=_touched(op))
            case arith.ConstantOp():
                return ProgramCost()
        return self._computed(op, op.results[0]) if op.results else ProgramCost()

    def _turns_if_any(self, loop: scf.ForOp) -> Extent | None:
        """How often a loop runs whose end is a choice between a place that is known and nothing."""
        end, first, step = loop.ub.owner, self.places.of(loop.lb), self.places.of(loop.step)
        if not isinstance(end, arith.SelectOp) or first != 0 or step is None:
            return None
        most, least = self.places.of(end.lhs), self.places.of(end.rhs)
        return (most + step - 1) // step if most is not None and least == 0 else None

    def _share(self, op: compute.DotOp, rows: Extent) -> Extent:
        """The rows that a product of some of them adds to, which the turns of the outermost loop share."""
        outer = op.parent_op()
        while outer is not None and isinstance(above := outer.parent_op(), scf.ForOp):
            outer = above
        turns = self.places.turns(outer) if isinstance(outer, scf.ForOp) else None
        return rows if turns is None else (rows + turns - 1) // sym_max(turns, 1)

    def _computed(self, op: Operation, value: SSAValue) -> ProgramCost:
        """One operation for each element of a value; on floats, if it is one of those."""
        if isinstance(op, memory.ViewOp):
            return ProgramCost()
        count = prod(extents(value), start=1)
        moves = isinstance(op, (compute.PadOp, arith.SelectOp, arith.BitcastOp))
        floats = not isinstance(element(value), (IndexType, IntegerType)) and not moves
        return ProgramCost(flops=count if floats else 0, element_ops=count, tile_bytes=_touched(op))

    def _moved(self, block: SSAValue, value: SSAValue, *, read: bool) -> ProgramCost:
        """A tile of a block: what is outside, or in the same place, is moved once."""
        parameter = _parameter(block)
        count, lines, far, traffic, runs = _access(block_type(block), value.type)
        if self._is_chosen(block):
            self.gathered.setdefault(parameter, []).append(count * self.repeated)
        else:
            self.whole.add(parameter)
        if _is_kept(parameter):
            far = runs = 0
        read_bytes, written_bytes = (count, 0) if read else (0, count)
        return ProgramCost(
            bytes_read=read_bytes, bytes_written=written_bytes, line_bytes=lines, tile_bytes=traffic,
            far_bytes=far, far_runs=runs,
        )  # fmt: skip

    def _is_chosen(self, block: SSAValue) -> bool:
        """True if data tell which part of a parameter a block is."""
        while isinstance(view := block.owner, memory.ViewOp):
            if self.places.of(view.offset) is None:
                return True
            block = view.source
        return False

    def _sorted(self, op: memory.SortOp) -> ProgramCost:
        kind = block_type(op.block)
        (count,), size = types.shape(kind), types.ITEM_BYTES[types.dtype(kind)]
        read, written = size * count, 8 * count
        return ProgramCost(
            element_ops=SORT_OPS * size * count, bytes_read=read, bytes_written=written, line_bytes=read + written,
            tile_bytes=2 * size * written,
        )  # fmt: skip

    def _elements(
        self, op: memory.GatherOp | memory.ScatterOp, value: SSAValue, *, reads: bool, writes: bool
    ) -> ProgramCost:
        count = prod(extents(value), start=1)
        size = count * item_bytes(element(value))
        lines = _gathered_lines(op, value)
        self.gathered.setdefault(_parameter(op.block), []).append(size * self.repeated)
        return ProgramCost(
            bytes_read=size if reads else 0,
            bytes_written=size if writes else 0,
            line_bytes=lines * (reads + writes),
            far_bytes=0 if _is_kept(_parameter(op.block)) else lines * (reads + writes),
            element_ops=count,
            tile_bytes=tile_bytes(value),
        )


def _parameter(block: SSAValue) -> SSAValue:
    """The parameter that a block is a part of."""
    while isinstance(view := block.owner, memory.ViewOp):
        block = view.source
    return block


def _is_kept(parameter: SSAValue) -> bool:
    size = stored_bytes(block_type(parameter))
    return isinstance(size, int) and size <= KEPT_BYTES


def _gathered_lines(op: memory.GatherOp | memory.ScatterOp, value: SSAValue) -> Extent:
    """Bytes of the lines that elements touch: those that count along the tile's last axis stand side by side, others
    have a line each.
    """
    shape, item = extents(value), item_bytes(element(value))
    if not shape:
        return LINE_BYTES
    if not _counts(op.indices[-1], len(shape) - 1, value):
        return prod(shape, start=1) * LINE_BYTES
    return prod(shape[:-1], start=1) * sym_max(shape[-1] * item, LINE_BYTES)


def _counts(index: SSAValue, axis: int, value: SSAValue) -> bool:
    """True if an index grows along an axis by what the kernel counts, not by what it reads."""
    if len(extents(index)) != len(extents(value)):
        return False
    owner = index.owner
    match owner:
        case compute.RangeOp():
            return True
        case compute.BroadcastOp():
            along = list(owner.along.data)
            return axis in along and _counts_alone(owner.input, along.index(axis))
        case compute.IndexOp():
            return any(_counts(operand, axis, value) for operand in owner.inputs)
    return False


def _counts_alone(index: SSAValue, axis: int) -> bool:
    return bool(extents(index)) and _counts(index, axis, index)


@lru_cache(maxsize=1 << 12)
def _access(kind: AnyTensorType, moved: Attribute) -> tuple[Extent, Extent, Extent, Extent, Extent]:
    """What moving a tile of a block costs: its bytes inside the block, those of the lines, of pairs of lines where its
    elements are apart, and those of the tile; and in how many rows of its closest elements it is.
    """
    sizes = extents(moved) or (1,) * types.rank(kind)
    item = types.ITEM_BYTES[types.dtype(kind)]
    dims = [
        (sym_min(size, extent), stride)
        for size, extent, stride in zip(sizes, types.shape(kind), types.strides(kind), strict=True)
        if stride != 0
    ]
    count = prod((size for size, _ in dims), start=1)
    lines, pairs = (_line_bytes(dims, item, size) for size in (LINE_BYTES, PAIR_BYTES))
    return count * item, lines, pairs, tile_bytes(moved), _runs(dims)


def _runs(dims: Sequence[tuple[Extent, Extent]]) -> Extent:
    """The rows of a tile in which elements stand side by side."""
    closest = next((place for place, (_, stride) in enumerate(dims) if stride == 1), None)
    return prod((size for place, (size, _) in enumerate(dims) if place != closest), start=1)


def _line_bytes(dims: Sequence[tuple[Extent, Extent]], item: int, line: int) -> Extent:
    """Bytes of the lines that a tile of a block touches, by the extent of its closest elements."""
    steps = [(stride, size) for size, stride in dims if isinstance(stride, int)]
    count = prod((size for size, _ in dims), start=1)
    if not steps:
        return count * line if dims else line
    stride, run = min(steps, key=lambda step: step[0])
    rows = prod((size for size, other in dims if other != stride), start=1)
    apart = stride * item
    if apart >= line:
        return count * line
    return rows * sym_max(run * apart, line) if rows != 1 else sym_max(run * apart, LINE_BYTES)


def _touched(op: Operation) -> Extent:
    return sum((tile_bytes(value) for value in (*op.operands, *op.results)), start=0)


def _last_uses(block: Block) -> dict[Operation, list[SSAValue]]:
    """For each op of a block the block's values that nothing uses after it."""
    last: dict[SSAValue, Operation] = {}
    inside: set[SSAValue] = set(block.args)
    for op in block.ops:
        inside.update(op.results)
        last.update((operand, op) for nested in op.walk() for operand in nested.operands if operand in inside)
        last.update((result, op) for result in op.results)
    dying: dict[Operation, list[SSAValue]] = {}
    for value, op in last.items():
        dying.setdefault(op, []).append(value)
    return dying

"""Tile parameters become numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects.arith import AndIOp
from xdsl.dialects.builtin import DictionaryAttr, IntAttr, ModuleOp
from xdsl.ir import Operation, SSAValue
from xdsl.passes import ModulePass

from forgec.diagnostics import error
from forgec.ir import types
from forgec.ir.attributes import IntsAttr
from forgec.ir.tile.compute import BroadcastOp, IndexOp, PadOp, RangeOp
from forgec.ir.tile.elementwise import CmpiOp
from forgec.ir.tile.kernel import KernelOp
from forgec.ir.tile.memory import GatherOp, LoadOp, StoreOp
from forgec.ir.tile.places import Places
from forgec.ir.tile.substitution import substitute_symbols
from forgec.ir.tile.types import block_type, extents
from forgec.passes.patterns import missed
from forgec.passes.rewriting import erase_unused, replace
from forgec.passes.tile_choices import Choice, note
from forgec.passes.tile_machines import TileMachine, machine_of
from forgec.passes.tile_sizes import SymbolUse, estimates, symbol_uses
from forgec.runtime.symbolic import is_nonnegative, symbol

SIGNED_LESS = 2
"""``slt`` of ``arith.cmpi``."""


@dataclass(frozen=True)
class BindTiles(ModulePass):
    """Choose the extents of every kernel's tiles for a target, and use what follows from them.

    Before::

        tile.kernel @scale(%x: !tile.block<tensor<64xf32>>, %y: !tile.block<tensor<64xf32>>) writes [1]
            tiles [BM over 64] grid [floordiv(63, BM) + 1] {
          %p = tile.program_id 0
          %o = tile.index BM * p0(%p) : (index) -> index
          %v = tile.load %x[%o] : !tile.block<tensor<64xf32>> -> tensor<?xf32, #forge.tensor<[BM]>>
          …

    After::

        tile.kernel @scale(%x: !tile.block<tensor<64xf32>>, %y: !tile.block<tensor<64xf32>>) writes [1]
            tiles [BM over 64] grid [2] bound {BM = 32} {
          %p = tile.program_id 0
          %o = tile.index p0 * 32(%p) : (index) -> index
          %v = tile.load %x[%o] in_bounds [0] : !tile.block<tensor<64xf32>> -> tensor<32xf32>
          …

    ``tiles`` (``"BM=32,BN=64"``) fixes extents; the others are the best candidate of ``tile_sizes.candidates``.
    Afterwards a ``tile.pad`` that is certain to be inside is gone, so are masks of ``tile.gather`` that are certain to
    hold everywhere, and loads and stores list the dimensions along which
    they are certain to be in bounds, for all programs and all values of the kernel's symbols. A kernel that must hold a
    whole axis without an upper bound in one tile is left alone, with a remark. Kernels that are bound already stay as
    they are.

    Requires: kernels as lowering leaves them. Ensures: no tile parameter in a bound kernel's types.

    Order: after ``lower-to-tile``, before a backend takes the kernels.
    """

    name = "bind-tiles"

    target: str = "cpu"
    tiles: str = ""

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        machine, fixed = machine_of(self.target), _parse(self.tiles)
        for kernel in op.ops:
            if isinstance(kernel, KernelOp) and (kernel.bound is None or not kernel.is_bound):
                _bind(kernel, op, machine, fixed)


def _parse(text: str) -> dict[str, int]:
    """``BM=32,BN=64`` as numbers by name. Raises FORGE-P002 for anything else."""
    found: dict[str, int] = {}
    for part in filter(None, (item.strip() for item in text.split(","))):
        name, _, number = (piece.strip() for piece in part.partition("="))
        if not name.isidentifier() or not number.isdecimal() or int(number) < 1:
            raise error("FORGE-P002", f"{part!r} is no tile extent", help="write tiles as in BM=32,BN=64")
        found[name] = int(number)
    return found


def _bind(kernel: KernelOp, module: ModuleOp, machine: TileMachine, fixed: Mapping[str, int]) -> None:
    uses = symbol_uses(kernel, module)
    cost, table = estimates(kernel, machine, uses, fixed)
    if not table:
        whole = ", ".join(str(parameter) for parameter in kernel.tiles.data if parameter.whole)
        missed(kernel, f"{kernel.sym_name.data} has no tile extents", f"no tile is certain to hold all of {whole}")
        return
    best = table[0]
    if best.limit is not None:
        missed(kernel, f"{kernel.sym_name.data} fits {machine.name} with no tile extents", best.limit)
    kind = "" if kernel.kind is None else kernel.kind.data
    typical = {name: uses.get(name, SymbolUse()).typical for name in kernel.symbol_names}
    note(Choice(kernel.sym_name.data, kind, typical, cost, table))
    bind(kernel, best.bindings)


def bind(kernel: KernelOp, bindings: Mapping[str, int]) -> None:
    """Give the tile parameters of a kernel these extents, and fold what follows from them.

    Every parameter that the kernel does not bind yet has one. Extents of ``whole`` parameters are as large as the axis
    for all values of the symbols: the caller knows.
    """
    values = {p.name: kernel.bindings.get(p.name, bindings.get(p.name, 0)) for p in kernel.tiles.data}
    assert all(extent > 0 for extent in values.values()), "each tile parameter has an extent"
    kernel.bound = DictionaryAttr({name: IntAttr(extent) for name, extent in values.items()})
    substitute_symbols(kernel, values)
    places = Places(kernel)
    for op in list(kernel.body.walk()):
        if isinstance(op, PadOp):
            _drop_pad(op, places)
        elif isinstance(op, (LoadOp, StoreOp)):
            _mark_in_bounds(op, places)
        elif isinstance(op, GatherOp) and op.mask is not None and _is_everywhere(op.mask, places):
            _drop_mask(op)


def _drop_pad(op: PadOp, places: Places) -> None:
    """A pad that finds nothing outside is its operand."""
    sizes = zip(op.offsets, extents(op.input), op.bounds.data, strict=True)
    if not all(places.is_inside(offset, size, bound, below_too=False) for offset, size, bound in sizes):
        return
    offsets = list(op.offsets)
    replace(op, [op.input])
    for offset in offsets:
        erase_unused(offset, Operation)


def _is_everywhere(mask: SSAValue, places: Places) -> bool:
    """True if a mask of places that lie below an extent is certain to hold for all elements."""
    op = mask.owner
    if isinstance(op, AndIOp):
        return all(_is_everywhere(operand, places) for operand in op.operands)
    if isinstance(op, BroadcastOp):
        return _is_everywhere(op.input, places)
    if not isinstance(op, CmpiOp) or op.predicate.value.data != SIGNED_LESS:
        return False
    place, bound = op.lhs.owner, op.rhs.owner
    bound = bound.input.owner if isinstance(bound, BroadcastOp) else bound
    if not isinstance(bound, IndexOp) or bound.inputs or not isinstance(place, (IndexOp, RangeOp)):
        return False
    if isinstance(place, RangeOp):
        return is_nonnegative(bound.expression.data - extents(place.result)[0])
    if len(place.inputs) != 2 or place.expression.data != symbol("p0") + symbol("p1"):
        return False
    offset, within = place.inputs
    if not isinstance(within.owner, RangeOp):
        return False
    return places.is_inside(offset, extents(within)[0], bound.expression.data, below_too=False)


def _drop_mask(op: GatherOp) -> None:
    mask = op.mask
    assert mask is not None, "the caller has seen it"
    made = GatherOp(op.block, list(op.indices), op.result.type, None, op.other)
    made.attributes = dict(op.attributes)
    replace(op, [made.result], [made])
    erase_unused(mask, Operation)


def _mark_in_bounds(op: LoadOp | StoreOp, places: Places) -> None:
    block = block_type(op.block)
    moved = op.result if isinstance(op, LoadOp) else op.value
    sizes = extents(moved) or (1,) * types.rank(block)
    known = () if op.in_bounds is None else op.in_bounds.data
    found = [
        dim
        for dim, (offset, size, extent) in enumerate(zip(op.offsets, sizes, types.shape(block), strict=True))
        if dim in known or places.is_inside(offset, size, extent)
    ]
    if found:
        op.in_bounds = IntsAttr(found)

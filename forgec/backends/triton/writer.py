"""The function that is being written: its lines, its names, and which text each value of the kernel has."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

from xdsl.ir import Attribute, Operation, SSAValue

from forgec.backends.triton.helpers import HELPERS
from forgec.backends.triton.ranges import IndexRanges
from forgec.backends.triton.text import (
    Level,
    Names,
    Text,
    binary,
    call,
    conjunction,
    dtype_name,
    float8_bits,
    joined,
    literal,
    mangled,
)
from forgec.diagnostics import ForgeError, Location, error
from forgec.diagnostics.render import source_line
from forgec.ir.locations import location_of
from forgec.ir.tile.kernel import KernelOp
from forgec.ir.tile.types import block_type, element, extents
from forgec.runtime.symbolic import Bounds, Extent, SymExpr, bounds, substitute
from forgec.runtime.symbolic.atoms import Atom

MAX_TILE_ELEMENTS = 1 << 20
"""Triton refuses larger tiles."""
INLINE = 56
"""The longest text of a value that is written where it is used, once, and not assigned to a name."""


WIDTH = 120
"""Columns of a line."""


def _comment(place: Location, indentation: str) -> str:
    """``# model.py:44: y = torch.relu(x)``; without the text where the file is not at hand."""
    name, text = re.split(r"[/\\]", place.file)[-1], (source_line(place) or "").strip()
    whole = f"{indentation}# {name}:{place.line}{': ' if text else ''}{text}"
    whole = "".join(character if character.isprintable() else " " for character in whole)
    return whole if len(whole) <= WIDTH else f"{whole[: WIDTH - 1].rstrip()}…"


def refusal(op: Operation, reason: str) -> ForgeError:
    """FORGE-B005 with the user's line."""
    return error("FORGE-B005", reason, location=location_of(op))


class Writer:
    """``index`` is Triton's dtype of indices: int32, or int64 in a kernel whose tensors may be large."""

    def __init__(self, kernel: KernelOp, ranges: Mapping[str, Bounds], index: str) -> None:
        self.kernel = kernel
        self.bindings = kernel.bindings
        self.ranges = IndexRanges(kernel, ranges)
        self.index = index
        self.names = Names((*kernel.symbol_names, *self.bindings, *HELPERS))
        self.lines: list[str] = []
        self.helpers: dict[str, None] = {}
        self.checks: dict[int, str] = {}
        self.programs: dict[str, Text] = {}
        self.error_pointer = "error_ptr"
        self._depth = 1
        self._values: dict[SSAValue, Text] = {}
        self._shared: list[dict[tuple[object, ...], Text]] = [{}]  # of each open block, the outermost first
        self._headers: list[int] = []  # where the statements begin whose bodies are open
        self._level: dict[str, int] = {}  # the number of the open blocks around a variable's
        self._place: object = None

    # Lines ------------------------------------------------------------------------------------------------------------

    def line(self, code: str, op: Operation | None = None) -> int:
        """Adds a statement; before it, the line of the user's program, where that is another than before. Returns where
        the statement, with that comment, begins.
        """
        start = len(self.lines)
        place = None if op is None else location_of(op)
        if place is not None and place.line and (place.file, place.line) != self._place:
            self._place = (place.file, place.line)
            self.lines.append(_comment(place, "    " * self._depth))
        self.lines.append("    " * self._depth + code)
        return start

    @contextmanager
    def indented(self, header: int) -> Iterator[None]:
        """The body of the compound statement that begins at this line."""
        self._depth += 1
        self._shared.append({})
        self._headers.append(header)
        before = len(self.lines)
        yield
        if all(line.lstrip().startswith("#") for line in self.lines[before:]):
            self.line("pass")
        self._headers.pop()
        self._shared.pop()
        self._depth -= 1

    # Values -----------------------------------------------------------------------------------------------------------

    def __getitem__(self, value: SSAValue) -> Text:
        return self._values[value]

    def set(self, value: SSAValue, text: Text) -> None:
        """Says what a value is written as, without a statement."""
        self._values[value] = text

    def define(self, value: SSAValue, text: Text, op: Operation, wish: str = "t", *, inline: bool = True) -> None:
        """Gives a value its text: where it is used, if that is once and short, else by way of a name."""
        if text.literal is not None or text.code.isidentifier() or (inline and self._is_inline(value, text)):
            self._values[value] = text
            return
        self._values[value] = self.named(value.name_hint or wish, text, op)

    def named(self, wish: str, text: Text, op: Operation | None = None) -> Text:
        """Assigns a text to a new name."""
        name = self.fresh(wish)
        self.line(f"{name} = {text.code}", op)
        return Text(name, text.shape)

    def fresh(self, wish: str) -> str:
        """A new name for a variable of the block that is being written."""
        name = self.names.fresh(wish)
        self._level[name] = len(self._shared) - 1
        return name

    @contextmanager
    def changing(self, names: Sequence[str], header: int) -> Iterator[None]:
        """The body of a loop that assigns these variables again: what is computed from them belongs into it."""
        with self.indented(header):
            self._level.update(dict.fromkeys(names, len(self._shared) - 1))
            yield
        self._level.update(dict.fromkeys(names, len(self._shared) - 1))

    @contextmanager
    def forgetting(self) -> Iterator[None]:
        """What is shared within, in the block that is being written, is not shared with what follows."""
        kept = dict(self._shared[-1])
        yield
        self._shared[-1] = kept

    def shared(self, key: tuple[object, ...], wish: str, text: Text) -> Text:
        """As ``named``, but one name for one key, assigned in the outermost block that has all that the text uses."""
        for known in self._shared:
            if key in known:
                return known[key]
        level = max((self._level.get(name, 0) for name in re.findall(r"[A-Za-z_]\w*", text.code)), default=0)
        name = self.names.fresh(wish)
        self._level[name] = level
        self._shared[level][key] = Text(name, text.shape)
        if level == len(self._shared) - 1:
            self.line(f"{name} = {text.code}")
        else:
            place = self._headers[level]
            self.lines.insert(place, f"{'    ' * (level + 1)}{name} = {text.code}")
            self._headers[level:] = [header + 1 for header in self._headers[level:]]
        return self._shared[level][key]

    def _is_inline(self, value: SSAValue, text: Text) -> bool:
        uses = list(value.uses)
        if len(uses) != 1:
            return False
        user = uses[0].operation
        if user.parent is not value.owner.parent if isinstance(value.owner, Operation) else True:
            return False
        if user.name == "scf.yield" and len(user.operands) == 1:
            return len(text.code) <= 2 * INLINE
        return value.name_hint is None and len(text.code) <= INLINE

    # Types and extents ------------------------------------------------------------------------------------------------

    def number(self, extent: Extent) -> int:
        """The value of an extent of tiles. FORGE-B005 where it has none."""
        found = substitute(extent, self.bindings)
        if not isinstance(found, int):
            raise refusal(self.kernel, f"the extent {extent} of a tile of kernel {self.name} is not bound")
        return found

    @property
    def name(self) -> str:
        return self.kernel.sym_name.data

    def shape(self, value: SSAValue | Attribute) -> tuple[int, ...]:
        """The extents of a tile in numbers; () of a scalar."""
        return tuple(self.number(extent) for extent in extents(value))

    def extent_code(self, extent: Extent) -> str:
        """An extent of tiles as text; by name where the type still says it by name."""
        return str(extent) if isinstance(extent, int) else self.expression(extent).code

    def shape_code(self, value: SSAValue | Attribute) -> str:
        codes = [self.extent_code(extent) for extent in extents(value)]
        return f"({codes[0]},)" if len(codes) == 1 else f"({', '.join(codes)})"

    def dtype(self, value: SSAValue | Attribute) -> str:
        """Triton's dtype of the elements of a value (``float32``). FORGE-B005 for those it does not have."""
        found = dtype_name(element(value), self.index)
        if found is None:
            raise refusal(self.kernel, f"Triton has no elements of type {element(value)}")
        return found

    def element_of(self, kind: Attribute, number: bool | int | float) -> bool | int | float:
        """What a number of the IR is as an element: an integer by its lowest bits, as a signed number."""
        dtype = self.dtype(kind)
        if "float" in dtype:
            return float(number)
        if dtype == "int1":
            return bool(number)
        width = int(dtype.removeprefix("int"))
        low = int(number) % (1 << width)
        return low - (1 << width) if low >> (width - 1) else low

    def pointer_type(self, parameter: SSAValue) -> str:
        """The type of a kernel's parameter in Triton's signatures: ``*fp32``."""
        return f"*{mangled(self.dtype(block_type(parameter)))}"

    # Forms that the ops ask for ---------------------------------------------------------------------------------------

    def helper(self, name: str) -> str:
        """The name of a device function of ``HELPERS``, which the source then brings along."""
        self.helpers[name] = None
        return name

    def typed(self, text: Text, kind: Attribute) -> Text:
        """The text with the dtype of its value, also where it is a constant."""
        dtype = f"tl.{self.dtype(kind)}"
        if text.literal is not None:
            return self._constant("()", text, dtype)
        return call("tl.cast", text.code, dtype) if text.plain else text

    def full(self, text: Text, kind: Attribute) -> Text:
        """The text with all the extents of its type, and its dtype."""
        shape = self.shape(kind)
        if not shape:
            return self.typed(text, kind)
        if text.shape == shape:
            return text
        if text.literal is not None:
            return replace(self._constant(self.shape_code(kind), text, f"tl.{self.dtype(kind)}"), shape=shape)
        if text.plain:
            text = self.typed(text, kind)
        return call("tl.broadcast_to", text.code, self.shape_code(kind), shape=shape)

    def _constant(self, shape: str, text: Text, dtype: str) -> Text:
        if dtype in ("tl.float8e4nv", "tl.float8e5"):  # by its bits: Triton has no such constants but by casts
            bits = float8_bits(float(text.literal or text.code), dtype.removeprefix("tl."))
            return Text(f"tl.full({shape}, {bits}, tl.int8).to({dtype}, bitcast=True)")
        if text.code == "-0.0":  # tl.full makes 0.0 of it
            return Text(f"-1.0 * tl.full({shape}, 0.0, {dtype})", (), Level.PRODUCT)
        if text.literal == 0 and shape != "()" and not isinstance(text.literal, bool):
            return call("tl.zeros", shape, dtype)
        return call("tl.full", shape, text.code, dtype)

    def carried(self, text: Text, kind: Attribute) -> Text:
        """The text as what a variable holds that is assigned again: of one type always."""
        if extents(kind):
            text = self.full(text, kind)
        elif text.literal is not None or text.plain:
            natural = self.dtype(kind) in ("int32", "float32") and not isinstance(text.literal, bool)
            if text.literal is None or not natural or text.code == "-0.0":
                text = self.typed(text, kind)
        return text

    def cast(self, text: Text, source: Attribute, dtype: str, *, bitcast: bool = False) -> Text:
        """``text.to(tl.dtype)``; ``source`` is the type that the text has."""
        if text.literal is not None or text.plain:
            text = self.typed(text, source)
        arguments = f"tl.{dtype}, bitcast=True" if bitcast else f"tl.{dtype}"
        return Text(f"{text.at(Level.ATOM)}.to({arguments})", text.shape)

    # Index arithmetic -------------------------------------------------------------------------------------------------

    def symbols(self) -> dict[str, Text]:
        """The kernel's symbols and tile parameters as text."""
        found = {name: Text(name) for name in self.kernel.symbol_names}
        found.update({name: Text(name, literal=value, plain=True) for name, value in self.bindings.items()})
        return found

    def expression(
        self, extent: Extent, operands: Mapping[str, Text] | None = None, ranges: Mapping[str, Bounds] | None = None
    ) -> Text:
        """A symbolic expression as text; ``operands`` are what its names stand for, ``ranges`` their bounds."""
        names = self.symbols() if operands is None else operands
        if isinstance(extent, int):
            return literal(extent)
        known = self.ranges.symbols if ranges is None else ranges
        rounded_up = self._rounded_up(extent, names, known)
        if rounded_up is not None:
            return rounded_up
        total: Text | None = None
        for monomial, coefficient in sorted(extent.terms, key=lambda term: term[1] < 0):  # what is subtracted last
            factors = [self._atom(atom, names, known) for atom in monomial]
            scale = abs(coefficient)
            if not factors or scale != 1:
                factors.append(literal(scale))
            term = factors[0]
            for factor in factors[1:]:
                term = binary("*", term, factor)
            if total is None:
                total = term if coefficient > 0 else binary("*", term, literal(-1))
                if coefficient < 0 and not monomial:
                    total = literal(coefficient)
            else:
                total = binary("+" if coefficient > 0 else "-", total, term)
        assert total is not None, "a symbolic expression has terms"
        value = substitute(extent, self.bindings)
        return replace(total, literal=value, plain=True) if isinstance(value, int) else total

    def _rounded_up(self, extent: SymExpr, names: Mapping[str, Text], ranges: Mapping[str, Bounds]) -> Text | None:
        """``floordiv(n - 1, b) + 1`` as ``tl.cdiv(n, b)``, where n is not negative."""
        if len(extent.terms) != 2 or extent.terms[1] != ((), 1) or extent.terms[0][1] != 1:
            return None
        (atom, *others), _ = extent.terms[0]
        if others or atom.op != "floordiv":
            return None
        total, divisor = atom.args[0] + 1, atom.args[1]
        low, least = (bounds(substitute(e, self.bindings), ranges)[0] for e in (total, divisor))
        if low is None or low < 0 or least is None or least < 0:
            return None
        parts = [self.expression(e, names, ranges) for e in (total, divisor)]
        return call("tl.cdiv", *(part.code for part in parts), shape=joined(*parts))

    def _atom(self, atom: Atom, names: Mapping[str, Text], ranges: Mapping[str, Bounds]) -> Text:
        if atom.op == "symbol":
            return names[atom.text]
        parts = [self.expression(argument, names, ranges) for argument in atom.args]
        if atom.op in ("max", "min"):
            function = "tl.maximum" if atom.op == "max" else "tl.minimum"
            found = parts[0]
            for part in parts[1:]:
                found = call(function, found.code, part.code, shape=joined(found, part))
            return found
        low, least = (bounds(substitute(argument, self.bindings), ranges)[0] for argument in atom.args)
        if low is not None and low >= 0 and least is not None and least >= 0:  # a divisor of 0 is undefined
            return binary("//" if atom.op == "floordiv" else "%", *parts)
        function = self.helper("floor_div" if atom.op == "floordiv" else "floor_mod")
        return call(function, *(part.code for part in parts), shape=joined(*parts))

    def places(self, offset: Text, extent: Extent, axis: int, rank: int) -> Text:
        """The indices along one axis of a tile that begins at ``offset``: a vector of this extent, or a scalar of 1."""
        size = self.number(extent)
        if size == 1:
            return offset
        steps = call("tl.arange", "0", self.extent_code(extent), shape=(size,))
        if self.index == "int64":
            steps = Text(f"{steps.code}.to(tl.int64)", steps.shape)
        text = steps if offset.literal == 0 else binary("+", offset, steps)
        wish = "offs" if rank == 1 else "cols" if axis == rank - 1 else "rows" if axis == rank - 2 else f"places_{axis}"
        return self.shared(("places", offset.code, size), wish, text)

    def inside(
        self, place: Text, offset: SSAValue, size: int, bound: Extent, axis: int, rank: int, *, low: bool = True
    ) -> Text | None:
        """Whether the places along an axis are at least 0 and below ``bound``; None where they certainly are."""
        least, most = self.ranges.of(offset)
        limit = self.ranges.extent(bound)[0]
        conditions = []
        if low and (least is None or least < 0):
            conditions.append(binary(">=", place, literal(0)))
        if most is None or limit is None or most + size > limit:
            conditions.append(binary("<", place, self.expression(bound)))
        found = conjunction(conditions)
        return None if found is None else found.subscript([axis], rank)

    def everything_inside(
        self, places: Sequence[Text], offsets: Sequence[SSAValue], shape: Sequence[int], limits: Sequence[Extent],
        certain: Sequence[int] = (),
    ) -> Text | None:  # fmt: skip
        """The mask of a tile whose places along each axis are these, but for the axes ``certain``."""
        rank = len(shape) or 1
        found = []
        for axis, (place, offset, limit) in enumerate(zip(places, offsets, limits, strict=True)):
            if axis in certain:
                continue
            size = shape[axis] if shape else 1
            condition = self.inside(place, offset, size, limit, axis, rank)
            if condition is not None:
                found.append(condition)
        return self.mask(found)

    def mask(self, conditions: Sequence[Text]) -> Text | None:
        """All of these conditions, by a name where that is shorter; None of none."""
        found = conjunction(conditions)
        if found is None or len(found.code) <= 20:
            return found
        return self.shared(("mask", found.code), "mask", found)

"""Kernels, their launches, and where a program of the grid finds itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from xdsl.dialects.builtin import (
    AnyTensorTypeConstr,
    DictionaryAttr,
    IntAttr,
    StringAttr,
    SymbolNameConstraint,
    SymbolRefAttr,
)
from xdsl.ir import Attribute, Block, OpResult, Region, SSAValue
from xdsl.irdl import (
    IRDLOperation,
    irdl_attr_definition,
    irdl_op_definition,
    opt_prop_def,
    prop_def,
    region_def,
    result_def,
    traits_def,
    var_operand_def,
    var_result_def,
)
from xdsl.parser import AttrParser, Parser
from xdsl.printer import Printer
from xdsl.traits import IsolatedFromAbove, IsTerminator, Pure, SymbolOpInterface
from xdsl.utils.exceptions import VerifyException

from forgec.ir import types
from forgec.ir.attributes import BareAttr, ExtentsAttr, IntsAttr
from forgec.ir.ops.base import ForgeOp, TensorSpec
from forgec.ir.ops.format import Bare
from forgec.ir.text import parse_extent
from forgec.ir.tile.types import INDEX, block_type
from forgec.runtime.symbolic import Extent, free_symbols, substitute

if TYPE_CHECKING:
    from forgec.ir.evaluator import Evaluator


@dataclass(frozen=True, slots=True)
class TileParameter:
    """An extent of tiles that each target chooses: ``BM over n0`` (some number of the ``n0`` elements of an axis), or
    ``BD whole 576`` (at least all of them, so that a row is in one tile).
    """

    name: str
    extent: Extent
    whole: bool = False

    def __str__(self) -> str:
        return f"{self.name} {'whole' if self.whole else 'over'} {self.extent}"


@irdl_attr_definition
class TileParametersAttr(BareAttr[tuple[TileParameter, ...]]):
    """``[BM over n0, BD whole 576]``: the tile parameters of a kernel."""

    name = "tile.parameters"

    @classmethod
    def parse_text(cls, parser: AttrParser) -> tuple[TileParameter, ...]:
        def one() -> TileParameter:
            name = parser.parse_identifier()
            whole = parser.parse_optional_keyword("whole") is not None
            if not whole:
                parser.parse_keyword("over")
            return TileParameter(name, parse_extent(parser), whole)

        return tuple(parser.parse_comma_separated_list(parser.Delimiter.SQUARE, one))

    def text(self) -> str:
        return f"[{', '.join(map(str, self.data))}]"


class Kernel(IRDLOperation):
    """What a kernel says of itself, before and after it is scheduled (``tile.kernel``, ``warp.kernel``)."""

    sym_name = prop_def(SymbolNameConstraint())
    symbols = prop_def(ExtentsAttr)
    writes = prop_def(IntsAttr)
    updates = prop_def(IntsAttr)
    tiles = prop_def(TileParametersAttr)
    grid = prop_def(ExtentsAttr)
    bound = opt_prop_def(DictionaryAttr)
    kind = opt_prop_def(StringAttr)
    body = region_def("single_block")

    traits = traits_def(SymbolOpInterface(), IsolatedFromAbove())

    @property
    def parameters(self) -> Sequence[SSAValue]:
        """The blocks that a launch passes."""
        return self.body.block.args

    @property
    def symbol_names(self) -> tuple[str, ...]:
        """The names of the symbols in the order in which a launch gives their values."""
        return tuple(str(extent) for extent in self.symbols.data)

    @property
    def bindings(self) -> dict[str, int]:
        """The chosen tile extents; empty before ``bind-tiles``."""
        found = {} if self.bound is None else self.bound.data
        return {name: value.data for name, value in found.items() if isinstance(value, IntAttr)}

    @property
    def is_bound(self) -> bool:
        """True if every tile parameter has a value."""
        return all(parameter.name in self.bindings for parameter in self.tiles.data)

    def programs(self, values: dict[str, int]) -> tuple[int, ...]:
        """The extents of the grid for values of the symbols."""
        found = [substitute(extent, {**self.bindings, **values}) for extent in self.grid.data]
        assert all(isinstance(extent, int) for extent in found), "every symbol and tile parameter has a value"
        return tuple(extent for extent in found if isinstance(extent, int))

    def verify_(self) -> None:
        block = self.body.block
        if not isinstance(block.last_op, ReturnOp):
            raise VerifyException("a kernel ends with tile.return")
        known = {*self.symbol_names, *(parameter.name for parameter in self.tiles.data)}
        for position, argument in enumerate(block.args):
            tensor = block_type(argument)
            used = {name for extent in (*types.shape(tensor), *types.strides(tensor)) for name in free_symbols(extent)}
            if not used <= set(self.symbol_names):
                raise VerifyException(f"parameter {position} has extents that are no symbols of the kernel")
        for extent in self.grid.data:
            if not free_symbols(extent) <= known:
                raise VerifyException(f"the grid's extent {extent} uses names that the kernel does not have")
        for position in (*self.writes.data, *self.updates.data):
            if not 0 <= position < len(block.args):
                raise VerifyException(f"there is no parameter {position}")
        if not set(self.updates.data) <= set(self.writes.data):
            raise VerifyException("what a kernel updates it writes")
        if self.bound is not None:
            self._check_bindings({parameter.name for parameter in self.tiles.data}, self.bound.data)

    def _check_bindings(self, tiles: set[str], bound: Mapping[str, Attribute]) -> None:
        for name, value in bound.items():
            if name not in tiles:
                raise VerifyException(f"{name} is bound and is no tile parameter of the kernel")
            if not isinstance(value, IntAttr) or value.data < 1:
                found = value.data if isinstance(value, IntAttr) else value
                raise VerifyException(f"the tile parameter {name} is bound to {found}, at least 1 is needed")

    def print(self, printer: Printer) -> None:
        printer.print_string(" ")
        printer.print_symbol_name(self.sym_name.data)
        with printer.in_parens():
            printer.print_list(self.body.block.args, lambda argument: _print_parameter(argument, printer))
        for name, value in (
            ("symbols", self.symbols), ("writes", self.writes), ("updates", self.updates), ("tiles", self.tiles)
        ):  # fmt: skip
            if value.data:
                printer.print_string(f" {name} {value.text()}")
        printer.print_string(f" grid {self.grid.text()}")
        if self.kind is not None:
            printer.print_string(" kind ")
            printer.print_string_literal(self.kind.data)
        if self.bound is not None:
            printer.print_string(" bound ")
            text = ", ".join(f"{name} = {value}" for name, value in self.bindings.items())
            printer.print_string("{" + text + "}")
        self.print_more(printer)
        printer.print_op_attributes(self.attributes, print_keyword=True)
        printer.print_string(" ")
        printer.print_region(self.body, print_entry_block_args=False)

    def print_more(self, printer: Printer) -> None:
        """Print what one kind of kernel says beyond the others."""

    @classmethod
    def parse_more(cls, parser: Parser) -> Mapping[str, Attribute]:
        """Parse what ``print_more`` prints, as properties."""
        return {}

    @classmethod
    def parse(cls, parser: Parser) -> Self:
        name = parser.parse_symbol_name()
        arguments = parser.parse_comma_separated_list(
            parser.Delimiter.PAREN, lambda: parser.parse_argument(expect_type=True)
        )
        properties: dict[str, Attribute] = {
            "sym_name": name,
            "symbols": ExtentsAttr(()),
            "writes": IntsAttr(()),
            "updates": IntsAttr(()),
            "tiles": TileParametersAttr(()),
        }
        for key, kind in (
            ("symbols", ExtentsAttr), ("writes", IntsAttr), ("updates", IntsAttr), ("tiles", TileParametersAttr)
        ):  # fmt: skip
            if parser.parse_optional_keyword(key) is not None:
                properties[key] = kind.new(kind.parse_text(parser))
        parser.parse_keyword("grid")
        properties["grid"] = ExtentsAttr.new(ExtentsAttr.parse_text(parser))
        if parser.parse_optional_keyword("kind") is not None:
            properties["kind"] = StringAttr(parser.parse_str_literal())
        if parser.parse_optional_keyword("bound") is not None:

            def binding() -> tuple[str, Attribute]:
                bound = parser.parse_identifier()
                parser.parse_punctuation("=")
                return bound, IntAttr(parser.parse_integer())

            properties["bound"] = DictionaryAttr(
                dict(parser.parse_comma_separated_list(parser.Delimiter.BRACES, binding))
            )
        properties |= cls.parse_more(parser)
        attributes = parser.parse_optional_attr_dict_with_keyword()
        region = parser.parse_region(arguments)
        return cls.create(
            properties=properties, attributes={} if attributes is None else attributes.data, regions=[region]
        )


@irdl_op_definition
class KernelOp(Kernel):
    """A kernel: what one program of a grid does with blocks of memory.

    ::

        tile.kernel @scale(%x : !tile.block<…>, %y : !tile.block<…>) symbols [n0] writes [1]
            tiles [BM over n0] grid [floordiv(n0 + BM - 1, BM)] { … }

    Extents in the types of parameters, and ``grid``, are expressions in ``symbols``, whose values a launch gives, and
    in the tile parameters. ``writes`` are the parameters that the kernel writes and ``updates`` those of them that it
    also reads or writes in part; no two programs of a grid write one element, but by ``tile.scatter`` with ``combine``.
    The programs of a grid may run in any order. ``bound`` holds the tile extents that were chosen (``bind-tiles``);
    ``tiles`` then says what they were chosen for.
    """

    name = "tile.kernel"

    @staticmethod
    def of(
        name: str,
        block: Block,
        symbols: Sequence[Extent],
        writes: Sequence[int],
        updates: Sequence[int],
        tiles: Sequence[TileParameter],
        grid: Sequence[Extent],
        kind: str | None = None,
    ) -> KernelOp:
        """Build a kernel around its block."""
        properties: dict[str, Attribute] = {
            "sym_name": StringAttr(name),
            "symbols": ExtentsAttr(symbols),
            "writes": IntsAttr(writes),
            "updates": IntsAttr(updates),
            "tiles": TileParametersAttr(tuple(tiles)),
            "grid": ExtentsAttr(grid),
        }
        if kind is not None:
            properties["kind"] = StringAttr(kind)
        return KernelOp.create(properties=properties, regions=[Region(block)])


def _print_parameter(parameter: SSAValue, printer: Printer) -> None:
    """``%x: type``; a parameter has no location of its own."""
    printer.print_ssa_value(parameter)
    printer.print_string(": ")
    printer.print_attribute(parameter.type)


@irdl_op_definition
class ReturnOp(IRDLOperation):
    """Ends a kernel."""

    name = "tile.return"

    traits = traits_def(IsTerminator())

    assembly_format = "attr-dict"


@irdl_op_definition
class ProgramIdOp(IRDLOperation):
    """Which program of the grid this is, along one of the grid's axes."""

    name = "tile.program_id"

    axis = prop_def(IntAttr)
    result = result_def(INDEX)

    custom_directives = (Bare,)

    traits = traits_def(Pure())

    assembly_format = "custom<Bare>($axis) attr-dict"

    def __init__(self, axis: int) -> None:
        super().__init__(properties={"axis": IntAttr(axis)}, result_types=[INDEX])

    def verify_(self) -> None:
        kernel = self.parent_op()
        while kernel is not None and not isinstance(kernel, Kernel):
            kernel = kernel.parent_op()
        count = None if kernel is None else len(kernel.grid.data)
        if self.axis.data < 0 or (count is not None and self.axis.data >= count):
            raise VerifyException(f"there is no axis {self.axis.data}: the kernel's grid has {count}")


@irdl_op_definition
class LaunchOp(ForgeOp):
    """Runs a kernel on tensors: ``%y = tile.launch @scale(%x) [s0 * 2] : (tensor<…>) -> tensor<…>``.

    The operands are the kernel's parameters that it does not write, and those that it updates, in order; the results
    are the parameters that it writes. A result whose parameter is updated is the operand as it has become.
    ``extents`` are the values of the kernel's symbols.
    """

    name = "tile.launch"

    kernel = prop_def(SymbolRefAttr)
    extents = prop_def(ExtentsAttr)
    writes = prop_def(IntsAttr)
    updates = prop_def(IntsAttr)
    inputs = var_operand_def(AnyTensorTypeConstr)
    outputs = var_result_def(AnyTensorTypeConstr)

    assembly_format = (
        "$kernel `(` $inputs `)` custom<Bare>($extents) `writes` custom<Bare>($writes) "
        "`updates` custom<Bare>($updates) attr-dict `:` functional-type($inputs, $outputs)"
    )

    def infer(self) -> Sequence[TensorSpec]:
        return [(types.dtype(result), types.shape(result)) for result in self.results]

    def parameters(self) -> list[tuple[SSAValue | None, int | None]]:
        """For each parameter of the kernel: the operand that is passed, and the number of the result that it is."""
        operands = iter(self.inputs)
        numbers = {position: number for number, position in enumerate(self.writes.data)}
        count = len(self.inputs) + len(self.outputs) - len(self.updates.data)
        found: list[tuple[SSAValue | None, int | None]] = []
        for position in range(count):
            passed = position not in numbers or position in self.updates.data
            found.append((next(operands) if passed else None, numbers.get(position)))
        return found

    def is_updated(self, index: int) -> bool:
        """True if an operand is one that the kernel updates."""
        operands = [result for operand, result in self.parameters() if operand is not None]
        return operands[index] is not None

    def changed(self, result: SSAValue) -> SSAValue | None:
        """The operand that a result is, as the kernel has changed it; None of a result with memory of its own."""
        assert isinstance(result, OpResult), "it is one of this op's"
        return next(operand for operand, found in self.parameters() if found == result.index)

    def reference(self, ev: Evaluator, *inputs: Any) -> Any:
        from forgec.ir.tile.interpreter import run_launch

        return run_launch(self, ev, inputs)

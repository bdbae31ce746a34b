"""Small passes and modules for testing what runs passes."""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects import arith
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation
from xdsl.passes import ModulePass
from xdsl.rewriter import Rewriter

from forgec.diagnostics import Diagnostic, error
from forgec.ir.locations import location_of
from forgec.passes import ir_source, remarks
from forgec.passes.ir_source import Piece

ADDS = """\
func.func @f(%a : i32) -> i32 {
  %x = arith.addi %a, %a : i32
  %y = arith.addi %x, %a : i32
  func.return %y : i32
}
"""


def parse(text: str = ADDS, name: str = "test.mlir") -> ModuleOp:
    """A module from text."""
    return ir_source.parse(Piece(name, text, 1), ir_source.context()).module


def adds(module: ModuleOp) -> list[arith.AddiOp]:
    """The module's additions in order."""
    return [op for op in module.walk() if isinstance(op, arith.AddiOp)]


@dataclass(frozen=True)
class Leave(ModulePass):
    """Does nothing."""

    name = "leave"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        pass


@dataclass(frozen=True)
class Wait(ModulePass):
    """Does nothing, and takes numbers for it."""

    name = "wait"
    seconds: float = 1.0
    pauses: tuple[float, ...] = ()
    either: int | float | None = None

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        pass


@dataclass(frozen=True)
class SubtractInstead(ModulePass):
    """Replaces the last ``count`` additions by subtractions: valid IR, other results."""

    name = "subtract-instead"
    count: int = 1

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for add in adds(op)[-self.count :]:
            replace(add, arith.SubiOp(add.lhs, add.rhs))


@dataclass(frozen=True)
class SwapAttribute(ModulePass):
    """Sets an attribute on an op: no op comes or goes."""

    name = "swap-attribute"
    value: str = "new"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        from xdsl.dialects.builtin import StringAttr

        adds(op)[0].attributes["tag"] = StringAttr(self.value)


@dataclass(frozen=True)
class BreakTypes(ModulePass):
    """Makes the function return a value of another type than it declares."""

    name = "break-types"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        last = adds(op)[-1]
        replace(last, arith.ConstantOp.from_int_and_width(1, 64))


@dataclass(frozen=True)
class Crash(ModulePass):
    """Raises an exception when there is something to add."""

    name = "crash"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        if adds(op):
            raise ZeroDivisionError("no way\nto go on")


@dataclass(frozen=True)
class Refuse(ModulePass):
    """Reports an error of the user's, at the first addition."""

    name = "refuse"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        raise error("FORGE-B001", "arith.addi has no native kernel", location=location_of(adds(op)[0]))


@dataclass(frozen=True)
class Remark(ModulePass):
    """Leaves a remark for each addition."""

    name = "remark"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for add in adds(op):
            remarks.emit(Diagnostic("FORGE-B001", "not fused", location_of(add), severity="remark"))


ALL = (Wait, Leave, SubtractInstead, SwapAttribute, BreakTypes, Crash, Refuse, Remark)


def replace(old: Operation, new: Operation) -> None:
    """Replaces an op and gives the new one its location."""
    new.location = old.location
    Rewriter.replace_op(old, new)

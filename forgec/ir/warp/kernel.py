"""Scheduled kernels, and the groups of warps that run them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Self

from xdsl.dialects.builtin import IntAttr, StringAttr
from xdsl.ir import Attribute, Block, Region
from xdsl.irdl import IRDLOperation, irdl_op_definition, opt_prop_def, prop_def, region_def, traits_def
from xdsl.parser import Parser
from xdsl.printer import Printer
from xdsl.traits import HasParent, NoTerminator
from xdsl.utils.exceptions import VerifyException

from forgec.ir.tile.kernel import Kernel
from forgec.ir.warp.types import ScheduleAttr


@irdl_op_definition
class KernelOp(Kernel):
    """A kernel that says which group of warps does what, and when.

    ::

        warp.kernel @attention(%q : !tile.block<…>, …) writes [3] grid [4, 8]
            schedule #warp.schedule<ii = 2048, bound = 2048, binding = "unit sfu", stages = 2, status = optimal> {
          %keys = aref.create depth 2 readers 2 in "shared" : !aref.ring<tensor<128x64xbf16>>
          warp.group "load" warps 1 registers 24 { … }
          warp.group "consumer.0" warps 4 registers 240 { … }
          tile.return
        }

    Parameters, symbols and grid are those of ``tile.kernel``, and launches name it alike. What stands outside of groups
    is the same for all of them: places, views, numbers that say how often loops run (with the tiles that they are
    computed of), and the channels through which they hand each other tiles. Groups run
    at once, each in its own order; nothing but channels orders what one does against another. A program is over when
    all its groups are.
    """

    name = "warp.kernel"

    schedule = opt_prop_def(ScheduleAttr)

    @property
    def groups(self) -> Iterator[GroupOp]:
        """The groups in their order."""
        return (op for op in self.body.block.ops if isinstance(op, GroupOp))

    def print_more(self, printer: Printer) -> None:
        if self.schedule is not None:
            printer.print_string(" schedule ")
            printer.print_attribute(self.schedule)

    @classmethod
    def parse_more(cls, parser: Parser) -> Mapping[str, Attribute]:
        if parser.parse_optional_keyword("schedule") is None:
            return {}
        found = parser.parse_attribute()
        if not isinstance(found, ScheduleAttr):
            parser.raise_error("expected #warp.schedule<…>")
        return {"schedule": found}


@irdl_op_definition
class GroupOp(IRDLOperation):
    """Warps that run one stream of ops: ``warp.group "load" warps 1 registers 24 { … }``.

    ``registers`` are those of each thread. The region sees what stands before it in the kernel, and yields nothing:
    what a group computes leaves it by a channel or by a store.
    """

    name = "warp.group"

    group_name = prop_def(StringAttr)
    warps = prop_def(IntAttr)
    registers = prop_def(IntAttr)
    body = region_def("single_block")

    traits = traits_def(NoTerminator(), HasParent(KernelOp))

    def __init__(self, name: str, warps: int, registers: int, body: Region) -> None:
        properties = {"group_name": StringAttr(name), "warps": IntAttr(warps), "registers": IntAttr(registers)}
        super().__init__(properties=properties, regions=[body])

    def verify_(self) -> None:
        if self.warps.data < 1 or self.registers.data < 1:
            raise VerifyException("a group has at least one warp, and its threads at least one register")
        if self.body.block.args:
            raise VerifyException("a group takes no arguments: it sees what stands before it in the kernel")

    def print(self, printer: Printer) -> None:
        printer.print_string(" ")
        printer.print_string_literal(self.group_name.data)
        printer.print_string(f" warps {self.warps.data} registers {self.registers.data}")
        printer.print_op_attributes(self.attributes, print_keyword=True)
        printer.print_string(" ")
        printer.print_region(self.body, print_entry_block_args=False, print_empty_block=False)

    @classmethod
    def parse(cls, parser: Parser) -> Self:
        name = parser.parse_str_literal()
        parser.parse_keyword("warps")
        warps = parser.parse_integer()
        parser.parse_keyword("registers")
        registers = parser.parse_integer()
        attributes = parser.parse_optional_attr_dict_with_keyword()
        region = parser.parse_region()
        if not region.blocks:
            region.add_block(Block())
        found = cls(name, warps, registers, region)
        found.attributes = {} if attributes is None else dict(attributes.data)
        return found

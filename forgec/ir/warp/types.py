"""Types of the warp level: tokens of asynchronous ops, channels between groups, and what is known of a schedule."""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.ir import Attribute
from xdsl.irdl import irdl_attr_definition
from xdsl.parser import AttrParser

from forgec.ir.attributes import BareAttr, DialectType

MEMORIES = ("register", "shared", "tensor")
"""Where a tile lies."""


@irdl_attr_definition
class TokenType(DialectType):
    """``!warp.token``: stands for an asynchronous op that may not be done yet."""

    name = "warp.token"


@irdl_attr_definition
class RingType(DialectType):
    """``!aref.ring<tensor<128x64xbf16>>``: a channel of a fixed number of slots, each of which holds such a value."""

    name = "aref.ring"

    value: Attribute


TOKEN = TokenType()


@dataclass(frozen=True)
class ScheduleSummary:
    """What a reader of a scheduled kernel wants to know: the interval in cycles, the bound below it and what it comes
    from, and how many iterations are under way at once.
    """

    ii: int
    bound: int
    binding: str
    stages: int


@irdl_attr_definition
class ScheduleAttr(BareAttr[ScheduleSummary]):
    """``#warp.schedule<ii = 2048, bound = 2048, binding = "unit tensor_core", stages = 2>``: cycles between the begins
    of two iterations, the largest lower bound of that, what the bound comes from, and how many iterations are under way
    at once.
    """

    name = "warp.schedule"

    @classmethod
    def parse_text(cls, parser: AttrParser) -> ScheduleSummary:
        def number(name: str) -> int:
            parser.parse_keyword(name)
            parser.parse_punctuation("=")
            return parser.parse_integer(allow_boolean=False, allow_negative=False)

        ii = number("ii")
        parser.parse_punctuation(",")
        bound = number("bound")
        parser.parse_punctuation(",")
        parser.parse_keyword("binding")
        parser.parse_punctuation("=")
        binding = parser.parse_str_literal()
        parser.parse_punctuation(",")
        return ScheduleSummary(ii, bound, binding, number("stages"))

    def text(self) -> str:
        found = self.data
        return f'ii = {found.ii}, bound = {found.bound}, binding = "{found.binding}", stages = {found.stages}'

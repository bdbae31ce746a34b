"""Types of the warp level: tokens of asynchronous ops, channels between groups, and what is known of a schedule."""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.ir import Attribute
from xdsl.irdl import irdl_attr_definition
from xdsl.parser import AttrParser

from forgec.ir.attributes import BareAttr, DialectType

MEMORIES = ("register", "shared", "tensor")
"""Where a tile lies."""
STATUSES = ("optimal", "feasible", "timeout")
"""What is proved of a schedule."""


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
    from, how many iterations are under way at once, and what is proved: ``optimal`` (there is no better one),
    ``feasible`` (none of a shorter interval), ``timeout`` (the time for it was over).
    """

    ii: int
    bound: int
    binding: str
    stages: int
    status: str


@irdl_attr_definition
class ScheduleAttr(BareAttr[ScheduleSummary]):
    """``#warp.schedule<ii = 2048, bound = 2048, binding = "unit tensor_core", stages = 2, status = optimal>``: cycles
    between the begins of two iterations, the largest lower bound of that, what the bound comes from, how many
    iterations are under way at once, and what is proved (``optimal``, ``feasible`` or ``timeout``).
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
        stages = number("stages")
        parser.parse_punctuation(",")
        parser.parse_keyword("status")
        parser.parse_punctuation("=")
        status = parser.parse_identifier()
        if status not in STATUSES:
            parser.raise_error(f"expected one of {', '.join(STATUSES)}")
        if ii < bound:
            parser.raise_error(f"the interval {ii} is below its bound {bound}")
        return ScheduleSummary(ii, bound, binding, stages, status)

    def text(self) -> str:
        found = self.data
        numbers = f'ii = {found.ii}, bound = {found.bound}, binding = "{found.binding}", stages = {found.stages}'
        return f"{numbers}, status = {found.status}"

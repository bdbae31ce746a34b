"""Source locations: as attributes, as text, and fused."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from xdsl.dialects.builtin import UnknownLoc
from xdsl.dialects.func import FuncOp
from xdsl.ir import Operation

from forgec.diagnostics import Location
from forgec.ir.locations import UNKNOWN, from_attribute, fuse, inherit, is_known, location_of, to_attribute
from forgec.ir.ops.unary import NegOp, SiluOp
from tests.ir.build import parse, text_of

PLACE = Location("models/llama.py", 42, "Attention.forward", "layers.3.attn")
OTHER = Location("models/llama.py", 43, "Attention.forward", "layers.3.attn")

places = st.builds(Location, st.text(min_size=1), st.integers(0, 10**6), st.text(), st.text())


@given(places)
def test_a_place_survives_as_attribute(place: Location) -> None:
    assert from_attribute(to_attribute(place)) == (place,)


@given(st.lists(places, min_size=1, max_size=3, unique=True))
def test_places_survive_as_text(where: list[Location]) -> None:
    module = _module()
    op = _op(module)
    op.location = fuse(to_attribute(place) for place in where)
    back = _op(parse(text_of(module, print_debuginfo=True)))
    assert back.location == op.location
    assert from_attribute(back.location) == tuple(where)


def test_locations_read_well_and_are_printed_on_request_only() -> None:
    module = _module()
    _op(module).location = to_attribute(PLACE)
    shown = 'loc("layers.3.attn"("Attention.forward"("models/llama.py":42:0)))'
    assert shown in text_of(module, print_debuginfo=True)
    assert "loc(" not in text_of(module)


def test_fused_locations_are_flat_and_without_duplicates_and_unknowns() -> None:
    first, second = to_attribute(PLACE), to_attribute(OTHER)
    assert fuse([]) == UNKNOWN
    assert fuse([UNKNOWN, first, UnknownLoc(), first]) == first
    both = fuse([first, second])
    assert fuse([both, first]) == both
    assert from_attribute(fuse([second, both])) == (OTHER, PLACE)


def test_plain_mlir_locations_are_understood() -> None:
    text = """
func.func @f(%x : tensor<4xf32>) {
  %a = forge.neg %x : (tensor<4xf32>) -> tensor<4xf32> loc("m.py":7:3)
  %b = forge.neg %x : (tensor<4xf32>) -> tensor<4xf32> loc("attn"("m.py":8:0))
  %c = forge.neg %x : (tensor<4xf32>) -> tensor<4xf32> loc(callsite("m.py":9:0 at "n.py":1:0))
  %d = forge.neg %x : (tensor<4xf32>) -> tensor<4xf32> loc("just a name")
  %e = forge.neg %x : (tensor<4xf32>) -> tensor<4xf32>
  func.return
}"""
    ops = [op for op in parse(text).walk() if isinstance(op, NegOp)]
    expected = [Location("m.py", 7), Location("m.py", 8, "", "attn"), Location("m.py", 9), None, None]
    assert [location_of(op) for op in ops] == expected


def test_an_op_inherits_the_locations_of_what_it_replaces_unless_it_has_one() -> None:
    old, older = _op(_module()), _op(_module())
    old.location, older.location = to_attribute(PLACE), to_attribute(OTHER)
    new = SiluOp.make([old.operands[0]])
    assert not is_known(new)
    inherit(new, old, older)
    assert from_attribute(new.location) == (PLACE, OTHER)
    inherit(new, older)
    assert from_attribute(new.location) == (PLACE, OTHER)


def test_make_takes_a_location() -> None:
    op = _op(_module())
    assert location_of(NegOp.make([op.operands[0]], location=to_attribute(PLACE))) == PLACE


def _module():
    return parse(
        "func.func @f(%x : tensor<4xf32>) -> tensor<4xf32> {\n"
        "%r = forge.neg %x : (tensor<4xf32>) -> tensor<4xf32>\nfunc.return %r : tensor<4xf32>\n}"
    )


def _op(module) -> Operation:
    (function,) = module.ops
    assert isinstance(function, FuncOp)
    first = function.body.block.first_op
    assert first is not None
    return first

"""Text of kernels and launches, and what their verifiers refuse."""

from __future__ import annotations

import pytest
from xdsl.utils.exceptions import VerifyException

from forgec.diagnostics import ForgeError
from forgec.ir.verify import verify_module
from tests.ir.build import parse, text_of
from tests.ir.tile.kernels import MATMUL, MATMUL_TYPES, SCALE, SCALE_TYPES, SOFTMAX, SOFTMAX_TYPES, module_of

STRIDED = "!tile.block<tensor<2x?xf32, #forge.tensor<[n0], strides = [n0 * 2, 1]>>>"
ELEMENTS = f"""
tile.kernel @elements(%x: {STRIDED}, %y: !tile.block<tensor<8xf32>>) symbols [n0] writes [1] updates [1] grid [1]
    kind "elements" {{
  %z = arith.constant 0 : index
  %o = tile.index n0 * 2 () : () -> index
  %w = tile.view %x[%o] : {STRIDED} to !tile.block<tensor<?xf32, #forge.tensor<[n0]>>>
  %i = tile.range : tensor<8xindex>
  %n = tile.index n0 () : () -> index
  %l = tile.broadcast %n along [] : index -> tensor<8xindex>
  %m = arith.cmpi slt, %i, %l : tensor<8xindex>
  %g = tile.gather %w[%i] mask %m other 1.0 : !tile.block<tensor<?xf32, #forge.tensor<[n0]>>>, tensor<8xindex> mask tensor<8xi1> -> tensor<8xf32>
  %s = tile.scan "add" %g axis 0 : tensor<8xf32>
  tile.scatter %s, %y[%i] mask %m combine "add" : tensor<8xf32>, !tile.block<tensor<8xf32>>, tensor<8xindex> mask tensor<8xi1>
  tile.check %m, 1 "out of range" : tensor<8xi1>
  tile.return
}}"""  # noqa: E501 - as it prints


@pytest.mark.parametrize(
    ("text", "types"),
    [(SCALE, SCALE_TYPES), (SOFTMAX, SOFTMAX_TYPES), (MATMUL, MATMUL_TYPES), (ELEMENTS, {})],
    ids=["scale", "softmax", "matmul", "elements"],
)
def test_kernels_survive_printing_and_parsing(text: str, types: dict[str, str]) -> None:
    module = module_of(text, types)
    verify_module(module)
    printed = text_of(module)
    assert text_of(parse(printed)) == printed
    assert text_of(parse(text_of(module, print_generic_format=True))) == printed


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("writes [1]", "writes [2]", "there is no parameter 2"),
        ("writes [1]", "updates [1]", "what a kernel updates it writes"),
        ("symbols [n0]", "symbols [n1]", "parameter 0 has extents that are no symbols of the kernel"),
        ("grid [floordiv(n0 + BM - 1, BM)]", "grid [BX]", "the grid's extent BX uses names that the kernel does not"),
        ("  tile.return\n", "", "is not a terminator"),
        ("p0 * BM (%p)", "p1 * BM (%p)", "BM \\* p1 names an operand that is not there"),
        ("%x[%o] :", "%x[%o, %o] :", "tile.load takes one offset for each dimension of the block"),
        ("along []", "along [0]", "along names an axis of the result for each axis of the operand"),
    ],
)
def test_broken_kernels(old: str, new: str, message: str) -> None:
    assert old in SCALE
    with pytest.raises(VerifyException, match=message):
        module_of(SCALE.replace(old, new), SCALE_TYPES)


DYNAMIC = "tensor<?xf32, #forge.tensor<[s0 * 2]>>"
LAUNCH = "tile.launch @scale(%a) [s0 * 2] writes [1] updates []"


def called(launch: str, operand: str = DYNAMIC, result: str = DYNAMIC) -> str:
    return f"""
func.func @forward(%a : {operand}) -> {result} {{
  %y = {launch} : ({operand}) -> {result}
  func.return %y : {result}
}}"""


def test_a_launch_that_fits() -> None:
    verify_module(module_of(SCALE + called(LAUNCH), SCALE_TYPES))


TWICE = called(LAUNCH.replace("(%a)", "(%a, %a)")).replace(f": ({DYNAMIC})", f": ({DYNAMIC}, {DYNAMIC})")
STEPS = "tensor<?xf32, #forge.tensor<[s0 * 2], strides = [2]>>"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (called(LAUNCH.replace("@scale", "@other")), "the module has no kernel other"),
        (called(LAUNCH.replace("[s0 * 2]", "[s0, 1]")), "scale has 1 symbols, found 2 extents"),
        (called(LAUNCH.replace("updates []", "updates [1]")), r"scale writes \[1\] and updates \[\]"),
        (TWICE, "takes 1 tens"),
        (called(LAUNCH.replace("[s0 * 2]", "[s0]")), r"parameter 0 of scale is tensor<\?xf32, #forge.tensor<\[s0\]>>"),
        (called(LAUNCH, operand=DYNAMIC.replace("f32", "f16")), "parameter 0 of scale is .*, found .*f16"),
        (called(LAUNCH, operand=STEPS), r"parameter 0 of scale is .*, found .*strides = \[2\]"),
        (called(LAUNCH, result=STEPS), r"parameter 1 of scale is .*, found .*strides = \[2\]"),
    ],
)
def test_launches_that_do_not_fit(call: str, message: str) -> None:
    with pytest.raises(ForgeError, match=message) as caught:
        verify_module(module_of(SCALE + call, SCALE_TYPES))
    assert caught.value.diagnostics[0].code == "FORGE-I002"

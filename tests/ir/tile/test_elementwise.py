"""The elementwise ops on tiles: what they mean bit by bit, and which types they take."""

from __future__ import annotations

import math

import pytest
import torch
from xdsl.utils.exceptions import VerifyException

from forgec.ir.evaluator import Evaluator
from forgec.ir.tile.interpreter import run_kernel
from forgec.runtime.dtypes import torch_dtype
from tests.ir.build import parse
from tests.ir.tile.kernels import kernel_of

NAN, INF = float("nan"), float("inf")


def computed(op: str, inputs: list[list[float]], kind: str, result: str = "", float64: bool = False) -> list[float]:
    """The elements that ``op`` (operands %a, %b, %c; types !T and !R) makes of tiles."""
    count, names = len(inputs[0]), "abc"[: len(inputs)]
    result = result or kind
    parameters = ", ".join(f"%m{name} : !B" for name in names)
    loads = "\n".join(f"%{name} = tile.load %m{name}[%z] : !B -> !T" for name in names)
    text = f"""
tile.kernel @k({parameters}, %y : !Y) writes [{len(inputs)}] grid [1] {{
%z = arith.constant 0 : index
{loads}
%r = {op}
tile.store %r, %y[%z] : !R, !Y
tile.return
}}"""
    tiles = {"T": f"tensor<{count}x{kind}>", "R": f"tensor<{count}x{result}>"}
    kernel = kernel_of(text, {**tiles, "B": f"!tile.block<{tiles['T']}>", "Y": f"!tile.block<{tiles['R']}>"})
    ev = Evaluator(float64=float64)
    y = torch.zeros(count, dtype=ev.dtype(result))
    run_kernel(kernel, [*(torch.tensor(x, dtype=ev.dtype(kind)) for x in inputs), y], [], float64=float64)
    return y.tolist()


def same(found: list[float], expected: list[float]) -> None:
    """Equal, signs of zeros included; NaN is NaN."""
    assert [str(float(x)) for x in found] == [str(float(x)) for x in expected]


@pytest.mark.parametrize(
    ("op", "a", "b", "expected"),
    [
        ("addi", [127, -128], [1, -1], [-128, 127]),
        ("muli", [100, -3], [3, 5], [44, -15]),
        ("divsi", [7, -7, 7], [2, 2, -2], [3, -3, -3]),
        ("remsi", [7, -7, 7], [2, 2, -2], [1, -1, 1]),
        ("floordivsi", [7, -7], [2, 2], [3, -4]),
        ("ceildivsi", [7, -7], [2, 2], [4, -3]),
        ("divui", [-1, 7], [2, 2], [127, 3]),
        ("remui", [-1, 7], [16, 4], [15, 3]),
        ("maxsi", [-1, 3], [1, 2], [1, 3]),
        ("maxui", [-1, 3], [1, 2], [-1, 3]),
        ("minui", [-1, 3], [1, 2], [1, 2]),
        ("shli", [3, -1], [6, 1], [-64, -2]),
        ("shrsi", [-8, 8], [1, 1], [-4, 4]),
        ("shrui", [-8, 8], [1, 1], [124, 4]),
        ("xori", [5, -1], [3, 1], [6, -2]),
    ],
)
def test_integers_of_8_bits(op: str, a: list[float], b: list[float], expected: list[float]) -> None:
    assert computed(f"arith.{op} %a, %b : !T", [a, b], "i8") == expected


@pytest.mark.parametrize(("op", "a", "b"), [("divsi", 1, 0), ("remui", 1, 0), ("divsi", -128, -1)])
def test_divisions_without_a_result_are_errors(op: str, a: int, b: int) -> None:
    with pytest.raises(Exception, match="divided by"):
        computed(f"arith.{op} %a, %b : !T", [[a], [b]], "i8")


@pytest.mark.parametrize(
    ("op", "expected"),
    [
        ("maximumf", [2.0, NAN, NAN, 0.0, 0.0]),
        ("minimumf", [1.0, NAN, NAN, -0.0, -0.0]),
        ("maxnumf", [2.0, 3.0, 3.0, 0.0, 0.0]),
        ("minnumf", [1.0, 3.0, 3.0, 0.0, 0.0]),
    ],
)
def test_largest_and_smallest_of_floats(op: str, expected: list[float]) -> None:
    found = computed(f"arith.{op} %a, %b : !T", [[1.0, NAN, 3.0, 0.0, -0.0], [2.0, 3.0, NAN, -0.0, 0.0]], "f32")
    zeros = slice(3) if "num" in op else slice(None)  # either zero will do
    same(found[zeros], expected[zeros])


@pytest.mark.parametrize(
    ("predicate", "expected"),
    [
        ("oeq", [False, True, False]),
        ("ueq", [False, True, True]),
        ("one", [True, False, False]),
        ("une", [True, False, True]),
        ("olt", [True, False, False]),
        ("uge", [False, True, True]),
        ("ord", [True, True, False]),
        ("uno", [False, False, True]),
        ("true", [True, True, True]),
        ("false", [False, False, False]),
    ],
)
def test_comparisons_of_floats(predicate: str, expected: list[bool]) -> None:
    assert computed(f"arith.cmpf {predicate}, %a, %b : !T", [[1, 2, NAN], [2, 2, 2]], "f32", "i1") == expected


@pytest.mark.parametrize(
    ("predicate", "expected"), [("slt", [True, False]), ("ult", [False, False]), ("ne", [True, False])]
)
def test_comparisons_of_integers(predicate: str, expected: list[bool]) -> None:
    assert computed(f"arith.cmpi {predicate}, %a, %b : !T", [[-1, 2], [1, 2]], "i64", "i1") == expected


@pytest.mark.parametrize(
    ("op", "source", "target", "values", "expected"),
    [
        ("fptosi", "f32", "i8", [1.9, -1.9, 300.0, -INF, NAN], [1, -1, 127, -128, 0]),
        ("fptosi", "f64", "i64", [1e30, -1e30, 2.5], [2**63 - 1, -(2**63), 2]),
        ("fptoui", "f32", "i8", [200.0, -1.0, 300.0], [-56, 0, -1]),
        ("sitofp", "i8", "f32", [-1, 5], [-1.0, 5.0]),
        ("uitofp", "i8", "f32", [-1, 5], [255.0, 5.0]),
        ("sitofp", "i1", "f32", [True, False], [-1.0, 0.0]),
        ("uitofp", "i1", "f32", [True, False], [1.0, 0.0]),
        ("extsi", "i8", "i32", [-1, 5], [-1, 5]),
        ("extui", "i8", "i32", [-1, 5], [255, 5]),
        ("extui", "i1", "i32", [True, False], [1, 0]),
        ("trunci", "i32", "i8", [255, 130], [-1, -126]),
        ("trunci", "i32", "i1", [3, 2], [True, False]),
        ("bitcast", "f32", "i32", [1.0, -0.0], [0x3F800000, -(2**31)]),
        ("truncf", "f32", "bf16", [1.00390625, 1e39], [1.0, INF]),
        ("extf", "f16", "f32", [1.5, NAN], [1.5, NAN]),
    ],
)
def test_casts(op: str, source: str, target: str, values: list[float], expected: list[float]) -> None:
    found = computed(f"arith.{op} %a : !T to !R", [values], source, target)
    assert str(found) == str(torch.tensor(expected, dtype=torch_dtype(target)).tolist())


def test_unsigned_bytes_are_signless_in_tiles() -> None:
    text = """
tile.kernel @k(%x : !tile.block<tensor<2xui8>>, %y : !tile.block<tensor<2xi32>>, %z : !tile.block<tensor<2xui8>>)
    writes [1, 2] grid [1] {
  %o = arith.constant 0 : index
  %a = tile.load %x[%o] : !tile.block<tensor<2xui8>> -> tensor<2xi8>
  %r = arith.extui %a : tensor<2xi8> to tensor<2xi32>
  tile.store %r, %y[%o] : tensor<2xi32>, !tile.block<tensor<2xi32>>
  tile.store %a, %z[%o] : tensor<2xi8>, !tile.block<tensor<2xui8>>
  tile.return
}"""
    x, y = torch.tensor([200, 3], dtype=torch.uint8), torch.zeros(2, dtype=torch.int32)
    z = torch.zeros(2, dtype=torch.uint8)
    run_kernel(kernel_of(text), [x, y, z], [])
    assert y.tolist() == z.tolist() == [200, 3]


VALUES = [-2.5, -0.5, -0.0, 0.3, 1.0, 2.5, 50.0, INF, NAN]


@pytest.mark.parametrize(
    ("name", "reference"),
    [
        (name, getattr(torch, name))
        for name in (
            "acos", "acosh", "asin", "asinh", "atan", "atanh", "ceil", "cos", "cosh", "erf", "exp", "exp2", "expm1",
            "floor", "log", "log10", "log1p", "log2", "rsqrt", "sin", "sinh", "sqrt", "tan", "tanh", "trunc",
        )
    ]
    + [("absf", torch.abs), ("roundeven", torch.round)],
)  # fmt: skip
def test_functions_of_floats(name: str, reference) -> None:
    wide = reference(torch.tensor(VALUES, dtype=torch.float64))
    torch.testing.assert_close(
        torch.tensor(computed(f"math.{name} %a : !T", [VALUES], "f32")), wide.float(), equal_nan=True
    )
    exact = torch.tensor(computed(f"math.{name} %a : !T", [VALUES], "f32", float64=True), dtype=torch.float64)
    torch.testing.assert_close(exact, wide, equal_nan=True, rtol=1e-12, atol=0)


def test_other_functions() -> None:
    same(computed("math.round %a : !T", [[0.5, -0.5, 2.5, -0.2, INF]], "f32"), [1.0, -1.0, 3.0, -0.0, INF])
    same(computed("math.copysign %a, %b : !T", [[1.0, NAN], [-0.0, 1.0]], "f32"), [-1.0, NAN])
    same(computed("math.powf %a, %b : !T", [[2.0, -8.0], [3.0, 0.5]], "f32"), [8.0, NAN])
    same(computed("math.atan2 %a, %b : !T", [[0.0], [-1.0]], "f32"), [torch.tensor(math.pi).item()])
    same(computed("math.cbrt %a : !T", [[-8.0, 27.0]], "f32"), [-2.0, 3.0])
    rounded = 1 + 2.0**-12  # its square does not fit float32
    fused = [rounded * rounded - (1 + 2.0**-11)]
    same(computed("math.fma %a, %b, %c : !T", [[rounded], [rounded], [-(1 + 2.0**-11)]], "f32"), fused)
    assert computed("math.ipowi %a, %b : !T", [[3, -1, 2], [4, 3, -1]], "i32") == [81, -1, 0]
    assert computed("math.ctlz %a : !T", [[1, 0, -1]], "i8") == [7, 8, 0]
    assert computed("math.cttz %a : !T", [[4, 0]], "i8") == [2, 8]
    assert computed("math.ctpop %a : !T", [[-1, 5]], "i8") == [8, 2]
    assert computed("arith.select %a, %a, %b : !T, !T", [[True, False], [True, True]], "i1") == [True, True]


@pytest.mark.parametrize(
    ("op", "message"),
    [
        ("arith.cmpf olt, %i, %i : tensor<4xi32>", "compares floats of one type"),
        ("arith.cmpi slt, %f, %f : tensor<4xf32>", "compares integers of one type"),
        ("arith.select %m, %i, %i : tensor<3xi1>, tensor<4xi32>", "takes a boolean, or a tile of booleans"),
        ("arith.fptosi %i : tensor<4xi32> to tensor<4xi8>", "does not make i8 of i32"),
        ("arith.trunci %i : tensor<4xi32> to tensor<4xi64>", "yields a narrower integer"),
        ("arith.extui %i : tensor<4xi32> to tensor<4xi8>", "yields a wider integer"),
        ("arith.sitofp %i : tensor<4xi32> to tensor<3xf32>", "but the result has type tensor<3xf32>"),
        ("arith.index_cast %i : tensor<4xi32> to tensor<4xi64>", "casts between index and integers"),
    ],
)
def test_types_that_do_not_fit(op: str, message: str) -> None:
    block = "!tile.block<tensor<4xi32>>"
    text = f"""
tile.kernel @k(%x : {block}, %w : !tile.block<tensor<4xf32>>, %u : !tile.block<tensor<3xi1>>) grid [1] {{
%z = arith.constant 0 : index
%i = tile.load %x[%z] : {block} -> tensor<4xi32>
%f = tile.load %w[%z] : !tile.block<tensor<4xf32>> -> tensor<4xf32>
%m = tile.load %u[%z] : !tile.block<tensor<3xi1>> -> tensor<3xi1>
%r = {op}
tile.return
}}"""
    with pytest.raises(VerifyException, match=message):
        parse(text)

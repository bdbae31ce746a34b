"""The reference meaning of kernels, and what is an error."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from forgec.diagnostics import ForgeError
from forgec.ir.interpreter import interpret
from forgec.ir.tile.interpreter import run_kernel
from tests.ir.tile.kernels import (
    MATMUL,
    MATMUL_TYPES,
    SCALE,
    SCALE_TYPES,
    SOFTMAX,
    SOFTMAX_TYPES,
    kernel_of,
    module_of,
    run,
)

NAN = float("nan")


def poisoned(*shape: int) -> torch.Tensor:
    return torch.full(shape, NAN)


@pytest.mark.parametrize("shape", [(0, 3), (1, 1), (5, 7), (4, 8)])
@pytest.mark.parametrize("bindings", [{"BM": 1, "BN": 8}, {"BM": 3, "BN": 9}, {"BM": 8, "BN": 16}])
def test_softmax(shape: tuple[int, int], bindings: dict[str, int]) -> None:
    x = torch.randn(shape)
    (y,) = run(kernel_of(SOFTMAX, SOFTMAX_TYPES), [x], [poisoned(*shape)], shape, bindings)
    torch.testing.assert_close(y, x.softmax(1))


def test_matmul_in_any_order_of_programs() -> None:
    kernel, a, b = kernel_of(MATMUL, MATMUL_TYPES), torch.randn(3, 7), torch.randn(7, 5)
    found = [
        run(kernel, [a, b], [poisoned(3, 5)], [3, 5, 7], {"BM": 2, "BN": 4, "BK": 3}, order)[0]
        for order in itertools.permutations(range(4))
    ]
    torch.testing.assert_close(found[0], a @ b)
    assert all(torch.equal(found[0], other) for other in found)


def test_a_product_over_nothing_is_the_accumulator() -> None:
    kernel = kernel_of(MATMUL, MATMUL_TYPES)
    (y,) = run(kernel, [torch.ones(3, 0), torch.ones(0, 2)], [poisoned(3, 2)], [3, 2, 0], {"BM": 2, "BN": 2, "BK": 4})
    assert torch.equal(y, torch.zeros(3, 2))


def one_program(parameters: str, writes: str, body: str, updates: str = "") -> str:
    """A kernel of one program with constants %c0, %c1 of type index."""
    constants = "%c0 = arith.constant 0 : index\n%c1 = arith.constant 1 : index\n"
    clause = f"updates [{updates}] " if updates else ""
    return f"tile.kernel @k({parameters}) writes [{writes}] {clause}grid [1] {{\n{constants}{body}\ntile.return\n}}"


def of_rows(op: str, result: str, stored: str | None = None) -> str:
    """A kernel that applies an op to a tile of 2 by 4 of %x."""
    kind = stored or result
    return one_program(
        f"%x : !tile.block<tensor<2x4xf32>>, %y : !tile.block<{kind}>",
        "1",
        f"%t = tile.load %x[%c0, %c0] : !tile.block<tensor<2x4xf32>> -> tensor<2x4xf32>\n{op}\n"
        f"tile.store %r, %y[{', '.join(['%c0'] * kind.count('x'))}] : {result}, !tile.block<{kind}>",
    )


X = torch.tensor([[1.0, 4.0, 4.0, -2.0], [3.0, NAN, -math.inf, NAN]])


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("add", [7.0, NAN]),
        ("mul", [-32.0, NAN]),
        ("max", [4.0, NAN]),
        ("min", [-2.0, NAN]),
    ],
)
def test_reductions_of_floats(kind: str, expected: list[float]) -> None:
    kernel = kernel_of(
        of_rows(f'%r = tile.reduce "{kind}" %t axis 1 : tensor<2x4xf32> -> tensor<2xf32>', "tensor<2xf32>")
    )
    (y,) = run(kernel, [X], [poisoned(2)], [])
    torch.testing.assert_close(y, torch.tensor(expected), equal_nan=True)


@pytest.mark.parametrize(("kind", "expected"), [("argmax", [1, 1]), ("argmin", [3, 1])])
def test_places_of_the_first_extreme_element_with_nan_beyond_all(kind: str, expected: list[int]) -> None:
    body = (
        f'%i = tile.reduce "{kind}" %t axis 1 : tensor<2x4xf32> -> tensor<2xindex>\n'
        "%r = arith.index_cast %i : tensor<2xindex> to tensor<2xi64>"
    )
    (y,) = run(kernel_of(of_rows(body, "tensor<2xi64>")), [X], [torch.zeros(2, dtype=torch.int64)], [])
    assert y.tolist() == expected


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("add", [[1, 5, 9, 7], [3, NAN, NAN, NAN]]),
        ("max", [[1, 4, 4, 4], [3, NAN, NAN, NAN]]),
        ("min", [[1, 1, 1, -2], [3, NAN, NAN, NAN]]),
        ("mul", [[1, 4, 16, -32], [3, NAN, NAN, NAN]]),
    ],
)
def test_scans(kind: str, expected: list[list[float]]) -> None:
    kernel = kernel_of(of_rows(f'%r = tile.scan "{kind}" %t axis 1 : tensor<2x4xf32>', "tensor<2x4xf32>"))
    (y,) = run(kernel, [X], [poisoned(2, 4)], [])
    torch.testing.assert_close(y, torch.tensor(expected, dtype=torch.float32), equal_nan=True)


def test_pad_replaces_what_is_not_below_the_bounds() -> None:
    body = "%r = tile.pad %t[%c1, %c1] within [2, 3] other -inf : tensor<2x4xf32>"
    (y,) = run(kernel_of(of_rows(body, "tensor<2x4xf32>")), [torch.zeros(2, 4)], [poisoned(2, 4)], [])
    assert y.tolist() == [[0.0, 0.0, -math.inf, -math.inf], [-math.inf] * 4]


def test_loads_outside_the_block_are_other_and_stores_outside_are_left_out() -> None:
    block = "!tile.block<tensor<2x3xf32>>"
    body = (
        f"%t = tile.load %x[%c1, %c1] other 9.0 : {block} -> tensor<2x4xf32>\n"
        f"tile.store %t, %y[%c0, %c0] : tensor<2x4xf32>, {block}"
    )
    kernel = kernel_of(one_program(f"%x : {block}, %y : {block}", "1", body))
    (y,) = run(kernel, [torch.arange(6.0).reshape(2, 3)], [poisoned(2, 3)], [])
    assert y.tolist() == [[4.0, 5.0, 9.0], [9.0, 9.0, 9.0]]


# Elements ------------------------------------------------------------------------------------------------------------

ROWS = "!tile.block<tensor<4x2xf32>>"
COUNT = "!tile.block<tensor<3xi64>>"
INDICES = (
    f"%n = tile.load %i[%c0] : {COUNT} -> tensor<3xi64>\n%p = arith.index_cast %n : tensor<3xi64> to tensor<3xindex>\n"
)


def scattering(combine: str) -> str:
    how = f'combine "{combine}" ' if combine else ""
    body = (
        f"{INDICES}%v = tile.load %x[%c0] : !tile.block<tensor<3xf32>> -> tensor<3xf32>\n"
        f"tile.scatter %v, %y[%p, %c1] {how}: tensor<3xf32>, {ROWS}, tensor<3xindex>, index"
    )
    return one_program(f"%x : !tile.block<tensor<3xf32>>, %i : {COUNT}, %y : {ROWS}", "2", body, updates="2")


def test_gather_reads_where_the_mask_is_true() -> None:
    body = (
        f"{INDICES}%four = arith.constant 4 : index\n%l = tile.broadcast %four along [] : index -> tensor<3xindex>\n"
        "%m = arith.cmpi slt, %p, %l : tensor<3xindex>\n"
        f"%v = tile.gather %x[%p, %c1] mask %m other 7.0 : {ROWS}, tensor<3xindex>, index mask tensor<3xi1> "
        "-> tensor<3xf32>\n"
        "tile.store %v, %y[%c0] : tensor<3xf32>, !tile.block<tensor<3xf32>>"
    )
    kernel = kernel_of(one_program(f"%x : {ROWS}, %i : {COUNT}, %y : !tile.block<tensor<3xf32>>", "2", body))
    (y,) = run(kernel, [torch.arange(8.0).reshape(4, 2), torch.tensor([3, 99, 0])], [poisoned(3)], [])
    assert y.tolist() == [7.0, 7.0, 1.0]


@pytest.mark.parametrize(("combine", "expected"), [("add", 13.0), ("max", 10.0), ("min", 1.0)])
def test_elements_of_a_scatter_meet_where_they_are_combined(combine: str, expected: float) -> None:
    inputs = [torch.tensor([1.0, 2.0, 5.0]), torch.tensor([2, 2, 0])]
    (y,) = run(kernel_of(scattering(combine)), inputs, [torch.full((4, 2), 10.0)], [])
    assert y[2, 1] == expected
    assert y[1, 1] == 10.0


def test_elements_of_a_scatter_must_not_meet_otherwise() -> None:
    inputs = [torch.ones(3), torch.tensor([2, 2, 0])]
    with pytest.raises(ForgeError, match="program 0 writes two elements of one tile to one element of %y"):
        run(kernel_of(scattering("")), inputs, [torch.zeros(4, 2)], [])


def test_an_index_outside_the_block_is_an_error() -> None:
    inputs = [torch.ones(3), torch.tensor([1, -1, 0])]
    with pytest.raises(ForgeError, match="index -1 is outside dimension 0 of %y, which has 4 elements"):
        run(kernel_of(scattering("add")), inputs, [torch.zeros(4, 2)], [])


# What a kernel must not do -------------------------------------------------------------------------------------------

V8 = "!tile.block<tensor<8xf32>>"


def of_programs(body: str, updates: str = "") -> str:
    """Four programs over blocks of 8 elements; %o is two times the program's number."""
    clause = f"updates [{updates}] " if updates else ""
    return (
        f"tile.kernel @k(%x : {V8}, %y : {V8}) writes [1] {clause}grid [4] {{\n%p = tile.program_id 0\n"
        f"%o = tile.index p0 * 2 (%p) : (index) -> index\n{body}\ntile.return\n}}"
    )


def fails(text: str, message: str, y: torch.Tensor | None = None) -> None:
    x = torch.arange(8.0)
    with pytest.raises(ForgeError, match=message) as caught:
        run_kernel(kernel_of(text), [x, torch.zeros(8) if y is None else y], [])
    assert caught.value.diagnostics[0].code == "FORGE-X001"


def test_two_programs_must_not_write_one_element() -> None:
    body = f"%t = tile.load %x[%o] : {V8} -> tensor<3xf32>\ntile.store %t, %y[%o] : tensor<3xf32>, {V8}"
    fails(of_programs(body), "program 1 writes an element of %y which program 0 writes too")


def test_a_program_must_not_read_what_another_one_writes() -> None:
    body = f"%t = tile.load %y[%o] : {V8} -> tensor<4xf32>\n%s = tile.load %x[%o] : {V8} -> tensor<2xf32>\n"
    body += f"tile.store %s, %y[%o] : tensor<2xf32>, {V8}"
    fails(of_programs(body, updates="1"), "program 1 writes an element of %y which others read")


def test_what_nothing_has_written_must_not_be_read() -> None:
    body = f"%t = tile.load %y[%o] : {V8} -> tensor<2xf32>\ntile.store %t, %y[%o] : tensor<2xf32>, {V8}"
    fails(of_programs(body), "program 0 reads what nothing has written of %y, which it does not update")
    run_kernel(kernel_of(of_programs(body, updates="1")), [torch.zeros(8), torch.zeros(8)], [])


def test_a_program_may_read_what_it_has_written() -> None:
    body = f"%t = tile.load %x[%o] : {V8} -> tensor<2xf32>\ntile.store %t, %y[%o] : tensor<2xf32>, {V8}\n"
    body += f"%u = tile.load %y[%o] : {V8} -> tensor<2xf32>\n%v = arith.addf %u, %u : tensor<2xf32>\n"
    body += f"tile.store %v, %y[%o] : tensor<2xf32>, {V8}"
    (y,) = run(kernel_of(of_programs(body)), [torch.arange(8.0)], [poisoned(8)], [])
    assert torch.equal(y, 2 * torch.arange(8.0))


def test_only_what_the_kernel_says_is_written() -> None:
    body = f"%t = tile.load %x[%o] : {V8} -> tensor<2xf32>\ntile.store %t, %x[%o] : tensor<2xf32>, {V8}"
    fails(of_programs(body), "writes %x, which is not among the parameters that it says it writes")


def test_in_bounds_must_be_true() -> None:
    body = f"%t = tile.load %x[%o] in_bounds [0] : {V8} -> tensor<3xf32>"
    fails(of_programs(body), r"program 3: elements 6 to 9 of dimension 0 of %x are not in bounds of its 8")


def test_a_view_must_stay_in_its_source() -> None:
    view = "!tile.block<tensor<2x3xf32, #forge.tensor<[], strides = [1, 3]>>>"
    body = f"%w = tile.view %x[%o] : {V8} to {view}\n%c0 = arith.constant 0 : index\n"
    body += f"%t = tile.load %w[%c0, %c0] : {view} -> tensor<2x3xf32>"
    fails(of_programs(body), "program 1 reads 8 elements after the beginning of %x, outside it")


def test_the_gaps_between_rows_are_not_the_block() -> None:
    gaps = "!tile.block<tensor<2x2xf32, #forge.tensor<[], strides = [4, 1]>>>"
    body = f"%w = tile.view %x[%c0] : {gaps} to !tile.block<tensor<6xf32>>\n"
    body += "%t = tile.load %w[%c0] : !tile.block<tensor<6xf32>> -> tensor<4xf32>\n"
    body += f"tile.store %t, %y[%c0] : tensor<4xf32>, {V8}"
    kernel = kernel_of(one_program(f"%x : {gaps}, %y : {V8}", "1", body))
    with pytest.raises(ForgeError, match="program 0 reads 2 elements after the beginning of %x, outside it"):
        run_kernel(kernel, [torch.zeros(2, 4)[:, :2], torch.zeros(8)], [])


def test_parameters_that_share_memory_conflict() -> None:
    body = f"%q = tile.index 6 - p0 * 2 (%p) : (index) -> index\n%t = tile.load %x[%q] : {V8} -> tensor<2xf32>\n"
    body += f"tile.store %t, %y[%o] : tensor<2xf32>, {V8}"
    shared = torch.zeros(8)
    with pytest.raises(ForgeError, match=r"reads an element of %x which program|writes an element of %y which program"):
        run_kernel(kernel_of(of_programs(body)), [shared, shared], [])


def test_a_check_that_fails_stops_the_launch_with_its_message() -> None:
    body = '%f = arith.constant false\ntile.check %f, 1 "index out of range" : i1'
    with pytest.raises(ForgeError, match="index out of range") as caught:
        run_kernel(kernel_of(of_programs(body)), [torch.zeros(8), torch.zeros(8)], [])
    assert caught.value.diagnostics[0].code == "FORGE-R007"


@pytest.mark.parametrize(
    ("block", "bindings", "message"),
    [
        (torch.zeros(8, dtype=torch.float64), {"BM": 2}, "%x has dtype torch.float64, the kernel says f32"),
        (torch.zeros(7), {"BM": 2}, r"%x has shape \[7\], the kernel says \[8\]"),
        (torch.zeros(16)[::2], {"BM": 2}, r"%x has strides \[2\], the kernel says \[1\]"),
        (torch.zeros(8), {}, "tile parameter BM of scale has no extent"),
        (torch.zeros(8), {"BM": 0}, "the extent 0 of tile parameter BM over n0 is below 1"),
    ],
)
def test_parameters_that_do_not_fit(block: torch.Tensor, bindings: dict[str, int], message: str) -> None:
    with pytest.raises(ForgeError, match=message):
        run_kernel(kernel_of(SCALE, SCALE_TYPES), [block, torch.zeros(8)], [8], bindings)


def test_a_whole_axis_needs_a_tile_that_holds_it() -> None:
    with pytest.raises(ForgeError, match="the extent 4 of tile parameter BN whole n1 is below 5"):
        run(kernel_of(SOFTMAX, SOFTMAX_TYPES), [torch.zeros(2, 5)], [poisoned(2, 5)], [2, 5], {"BM": 1, "BN": 4})


# Launches ------------------------------------------------------------------------------------------------------------

DYNAMIC = "tensor<?xf32, #forge.tensor<[s0]>>"
CALL = f"""
func.func @forward(%a : {DYNAMIC}) -> {DYNAMIC} {{
  %y = tile.launch @scale(%a) [s0] writes [1] updates [] : ({DYNAMIC}) -> {DYNAMIC}
  func.return %y : {DYNAMIC}
}}"""


@pytest.mark.parametrize("size", [0, 1, 70])
@pytest.mark.parametrize("float64", [False, True])
def test_launches_run_in_functions(size: int, float64: bool) -> None:
    x = torch.randn(size)
    (y,) = interpret(module_of(SCALE + CALL, SCALE_TYPES), [x], float64=float64)
    assert torch.equal(y, 2 * (x.double() if float64 else x))


def test_a_launch_updates_a_copy() -> None:
    kernel = of_programs(
        f"%a = tile.load %x[%o] : {V8} -> tensor<2xf32>\n%b = tile.load %y[%o] : {V8} -> tensor<2xf32>\n"
        f"%c = arith.addf %a, %b : tensor<2xf32>\ntile.store %c, %y[%o] : tensor<2xf32>, {V8}",
        updates="1",
    )
    call = """
func.func @forward(%a : tensor<8xf32>, %b : tensor<8xf32>) -> tensor<8xf32> {
  %y = tile.launch @k(%a, %b) [] writes [1] updates [1] : (tensor<8xf32>, tensor<8xf32>) -> tensor<8xf32>
  func.return %y : tensor<8xf32>
}"""
    a, b = torch.arange(8.0), torch.ones(8)
    (y,) = interpret(module_of(kernel + call), [a, b])
    assert torch.equal(y, a + 1)
    assert torch.equal(b, torch.ones(8))


def test_a_launch_that_leaves_elements_unwritten_is_an_error() -> None:
    body = f"%t = tile.load %x[%o] : {V8} -> tensor<1xf32>\ntile.store %t, %y[%o] : tensor<1xf32>, {V8}"
    call = """
func.func @forward(%a : tensor<8xf32>) -> tensor<8xf32> {
  %y = tile.launch @k(%a) [] writes [1] updates [] : (tensor<8xf32>) -> tensor<8xf32>
  func.return %y : tensor<8xf32>
}"""
    with pytest.raises(ForgeError, match="k leaves 4 elements of %y unwritten, and does not update it"):
        interpret(module_of(of_programs(body) + call), [torch.zeros(8)])

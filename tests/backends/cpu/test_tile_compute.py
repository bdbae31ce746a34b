"""Products, reductions, scans, control flow: machine code against the interpreter."""

from __future__ import annotations

import pytest
import torch

from tests.backends.cpu.launch import DTYPES, agree, compiled
from tests.backends.cpu.test_tile_memory import numbers

FLOATS = ("f64", "f32", "f16", "bf16")


def whole(dtype: str, shape: tuple[int, ...]) -> str:
    return f"!tile.block<tensor<{'x'.join([*map(str, shape), dtype])}>>"


def tile(dtype: str, shape: tuple[int, ...]) -> str:
    return f"tensor<{'x'.join([*map(str, shape), dtype])}>" if shape else dtype


def reduction(name: str, op: str, dtype: str, shape: tuple[int, ...], axis: int, scan: bool) -> tuple[str, str]:
    """Reduces a whole block; the text and the dtype of the result."""
    rest = shape if scan else shape[:axis] + shape[axis + 1 :]
    out = "i64" if op.startswith("arg") else dtype
    zeros = ", ".join(["%z"] * len(shape))
    cast = ""
    kind = tile("index" if op.startswith("arg") else dtype, rest)
    if op.startswith("arg"):
        cast = f"%w = arith.index_cast %r : {kind} to {tile(out, rest)}"
    else:
        cast = f"%w = arith.bitcast %r : {kind} to {kind}"
    word = f"tile.scan \"{op}\" %v axis {axis} : {tile(dtype, shape)}" if scan else (
        f"tile.reduce \"{op}\" %v axis {axis} : {tile(dtype, shape)} -> {kind}"
    )  # fmt: skip
    target = rest or (1,)
    return (
        f"""
tile.kernel @{name}(%x : {whole(dtype, shape)}, %y : {whole(out, target)}) writes [1] grid [1] {{
  %z = arith.constant 0 : index
  %v = tile.load %x[{zeros}] : {whole(dtype, shape)} -> {tile(dtype, shape)}
  %r = {word}
  {cast}
  tile.store %w, %y[{", ".join(["%z"] * len(target))}] : {tile(out, rest)}, {whole(out, target)}
  tile.return
}}""",
        out,
    )


SHAPES = ((16,), (1,), (37,), (3, 5), (4, 32), (5, 1), (1, 70), (2, 3, 4))


def special(dtype: str, shape: tuple[int, ...], seed: int) -> torch.Tensor:
    """Numbers some of which are equal, NaN and infinite."""
    found = numbers(dtype, *shape, seed=seed)
    if DTYPES[dtype].is_floating_point:
        found = torch.round(found * 4) / 4
        flat = found.reshape(-1)
        if seed % 3 == 1:
            flat[seed % flat.numel()] = float("nan")
            flat[(seed + 5) % flat.numel()] = float("inf")
        if seed % 3 == 2:
            flat[:] = -float("inf")
    return found


def _cases(dtype: str) -> list[tuple[str, bool]]:
    if dtype == "i1":
        return [("and", False), ("or", False)]
    kinds = ["add", "mul", "max", "min", "argmax", "argmin"]
    bitwise = [] if dtype in FLOATS else ["and", "or"]
    return [(kind, False) for kind in (*kinds, *bitwise)] + [(kind, True) for kind in ("add", "mul", "max", "min")]


@pytest.mark.parametrize("dtype", ["f32", "f64", "bf16", "f16", "i64", "i8", "i32", "i1"])
def test_reductions_and_scans(dtype: str) -> None:
    shapes = SHAPES if dtype in ("f32", "i64") else SHAPES[2:5]
    table = {
        f"k{number}": (*reduction(f"k{number}", kind, dtype, shape, axis, scan), kind, shape)
        for number, (kind, scan, shape, axis) in enumerate(
            (kind, scan, shape, axis) for kind, scan in _cases(dtype) for shape in shapes for axis in range(len(shape))
        )
    }
    native, kernels = compiled("".join(text for text, *_ in table.values()))
    for name, (_, out, kind, shape) in table.items():
        kernel = kernels[name]
        target = tuple(int(n) for n in kernel.parameters[1].type.value.get_shape())  # pyright: ignore
        for seed in range(3):
            x = special(dtype, shape, seed) if kind != "mul" else special(dtype, shape, seed) / 2
            x = x.to(DTYPES[dtype])
            try:
                agree(native, kernel, [x, torch.zeros(target, dtype=DTYPES[out])], [], scale=8)
            except Exception as fault:
                raise AssertionError(f"{name}, {kind} of {dtype} {shape}: {fault}") from fault


def test_reductions_of_long_rows_and_of_columns() -> None:
    """Several vectors at a time; and where the elements that are combined are a row apart in memory."""
    shapes = ((3, 128), (2, 192), (1, 64), (2, 80), (33, 64), (20, 128), (7, 20), (5, 1), (64, 48))
    cases = [(kind, shape, turned) for kind in ("add", "max", "argmax") for shape in shapes for turned in (False, True)]
    text = ""
    for number, (kind, (rows, columns), turned) in enumerate(cases):
        out = "i64" if kind == "argmax" else "f32"
        size, extent = (columns, rows) if turned else (rows, columns)
        block = whole("f32", (rows, columns))
        view = f"!tile.block<tensor<{size}x{extent}xf32, #forge.tensor<[], strides = [1, {columns}]>>>"
        view = view if turned else block
        result = tile("index" if kind == "argmax" else "f32", (size,))
        cast = f"arith.index_cast %r : {result} to {tile(out, (size,))}" if kind == "argmax" else (
            f"arith.bitcast %r : {result} to {result}"
        )  # fmt: skip
        text += f"""
tile.kernel @k{number}(%x : {block}, %y : {whole(out, (size,))}) writes [1] grid [1] {{
  %z = arith.constant 0 : index
  %t = tile.view %x[%z] : {block} to {view}
  %v = tile.load %t[%z, %z] : {view} -> {tile("f32", (size, extent))}
  %r = tile.reduce "{kind}" %v axis 1 : {tile("f32", (size, extent))} -> {result}
  %w = {cast}
  tile.store %w, %y[%z] : {tile(out, (size,))}, {whole(out, (size,))}
  tile.return
}}"""
    for cpu in ("x86-64-v3", "x86-64-v4"):
        native, kernels = compiled(text, cpu)
        for number, (kind, shape, turned) in enumerate(cases):
            target = torch.zeros(shape[turned], dtype=DTYPES["i64" if kind == "argmax" else "f32"])
            for seed in range(2):
                agree(native, kernels[f"k{number}"], [special("f32", shape, seed), target], [], scale=8)


def product(name: str, dtype: str, m: int, n: int, k: int, transposed: bool, into: str, unsigned: bool = False) -> str:
    right = (n, k) if transposed else (k, n)
    word = " transposed" if transposed else ""
    types = [whole(dtype, (m, k)), whole(dtype, right), whole(into, (m, n))]
    return f"""
tile.kernel @{name}(%a : {types[0]}, %b : {types[1]}, %c : {types[2]}) writes [2] updates [2] grid [1] {{
  %z = arith.constant 0 : index
  %l = tile.load %a[%z, %z] : {types[0]} -> {tile(dtype, (m, k))}
  %r = tile.load %b[%z, %z] : {types[1]} -> {tile(dtype, right)}
  %acc = tile.load %c[%z, %z] : {types[2]} -> {tile(into, (m, n))}
  %d = tile.dot %l, %r into %acc{word} : {tile(dtype, (m, k))}, {tile(dtype, right)} -> {tile(into, (m, n))}
  tile.store %d, %c[%z, %z] : {tile(into, (m, n))}, {types[2]}
  tile.return
}}"""


EXTENTS = (
    (1, 1, 1), (4, 16, 8), (1, 64, 32), (3, 40, 7), (8, 8, 8), (6, 24, 16), (16, 100, 20), (5, 3, 33), (2, 1, 40),
    (32, 128, 16),
)  # fmt: skip


@pytest.mark.parametrize("cpu", ["x86-64-v3", "host"])
def test_products(cpu: str) -> None:
    types = (("f32", "f32"), ("f64", "f64"), ("bf16", "f32"), ("f16", "f32"), ("i8", "i32"), ("i64", "i64"))
    table = {
        f"dot_{dtype}_{m}_{n}_{k}_{int(transposed)}": (dtype, m, n, k, transposed, into)
        for number, (dtype, into) in enumerate(types)
        for position, (m, n, k) in enumerate(EXTENTS)
        for transposed in (False, True)
        if dtype == "f32" or (position + number) % 3 == 0
    }
    native, kernels = compiled("".join(product(name, *case) for name, case in table.items()), cpu)
    for name, (dtype, m, n, k, transposed, into) in table.items():
        right = (n, k) if transposed else (k, n)
        tensors = [numbers(dtype, m, k, seed=1), numbers(dtype, *right, seed=2), numbers(into, m, n, seed=3)]
        agree(native, kernels[name], tensors, [])


def test_infinities_outside_a_tile_do_not_reach_a_product() -> None:
    """What stands after the end of a row, in memory that the tile may read, is not summed."""
    text = """
    !A = !tile.block<tensor<?x?xf32, #forge.tensor<[n0, n1], strides = [n2, 1]>>>
    !C = !tile.block<tensor<2x3xf32>>
    tile.kernel @part(%a : !A, %b : !A, %c : !C) symbols [n0, n1, n2] writes [2] grid [1] {
      %z = arith.constant 0 : index
      %l = tile.load %a[%z, %z] : !A -> tensor<2x9xf32>
      %r = tile.load %b[%z, %z] : !A -> tensor<3x9xf32>
      %f = arith.constant 0.0 : f32
      %acc = tile.broadcast %f along [] : f32 -> tensor<2x3xf32>
      %d = tile.dot %l, %r into %acc transposed : tensor<2x9xf32>, tensor<3x9xf32> -> tensor<2x3xf32>
      tile.store %d, %c[%z, %z] : tensor<2x3xf32>, !C
      tile.return
    }"""
    native, kernels = compiled(text)
    a = torch.full((3, 16), float("inf"))[:, :5]
    a.copy_(numbers("f32", 3, 5))
    agree(native, kernels["part"], [a, a, torch.zeros(2, 3)], [3, 5, 16])


def row_by_row(name: str, rows: int, columns: int, total: int, piece: int, accumulator: str = "%carried") -> str:
    """A product of any number of rows, so many for each program, summed in pieces; and the sums of its rows."""
    x = f"!tile.block<tensor<?x{total}xf32, #forge.tensor<[n0]>>>"
    y, s = (
        f"!tile.block<tensor<?x{columns}xf32, #forge.tensor<[n0]>>>",
        "!tile.block<tensor<?xf32, #forge.tensor<[n0]>>>",
    )
    w, acc = f"!tile.block<tensor<{total}x{columns}xf32>>", tile("f32", (rows, columns))
    return f"""
tile.kernel @{name}(%x : {x}, %w : {w}, %y : {y}, %s : {s}) symbols [n0] writes [2, 3] tiles []
    grid [floordiv(n0 + {rows - 1}, {rows})] bound {{}} {{
  %p = tile.program_id 0
  %r = tile.index p0 * {rows} (%p) : (index) -> index
  %z = arith.constant 0 : index
  %end = arith.constant {total} : index
  %step = arith.constant {piece} : index
  %f = arith.constant 0.0 : f32
  %zero = tile.broadcast %f along [] : f32 -> {acc}
  %sum = scf.for %k = %z to %end step %step iter_args(%carried = %zero) -> ({acc}) {{
    %a = tile.load %x[%r, %k] : {x} -> {tile("f32", (rows, piece))}
    %b = tile.load %w[%k, %z] : {w} -> {tile("f32", (piece, columns))}
    %d = tile.dot %a, %b into {accumulator} : {tile("f32", (rows, piece))}, {tile("f32", (piece, columns))} -> {acc}
    scf.yield %d : {acc}
  }}
  %t = tile.reduce "add" %sum axis 1 : {acc} -> tensor<{rows}xf32>
  tile.store %t, %s[%r] : tensor<{rows}xf32>, {s}
  tile.store %sum, %y[%r, %z] : {acc}, {y}
  tile.return
}}"""


@pytest.mark.parametrize("cpu", ["x86-64-v3", "host"])
def test_products_of_some_rows(cpu: str) -> None:
    """Rows after the last one are not computed, and are zeros to who reads them; whether the rest fills a block of
    accumulators or not, and where rows begin a page apart as well.
    """
    cases = {
        "narrow": (16, 32, 48, 16, "%carried"), "wide": (40, 80, 24, 24, "%carried"),
        "pages": (48, 32, 1024, 256, "%carried"), "ragged": (64, 33, 10, 4, "%carried"),
        "anew": (20, 32, 8, 8, "%zero"),
    }  # fmt: skip
    native, kernels = compiled("".join(row_by_row(name, *case) for name, case in cases.items()), cpu)
    for name, (_, columns, total, _, _) in cases.items():
        for rows in (0, 1, 3, 4, 13, 14, 15, 29, 65):
            x, w = numbers("f32", rows, total, seed=rows), numbers("f32", total, columns, seed=7)
            agree(native, kernels[name], [x, w, torch.zeros(rows, columns), torch.zeros(rows)], [rows])


CARRIED = """
!X = !tile.block<tensor<?xf32, #forge.tensor<[n0]>>>
!O = !tile.block<tensor<3x8xf32>>
tile.kernel @carried(%x : !X, %y : !O) symbols [n0] writes [1] tiles [BM over n0] grid [1] bound {BM = 8} {
  %z = arith.constant 0 : index
  %one = arith.constant 1 : index
  %two = arith.constant 2 : index
  %step = arith.constant 8 : index
  %end = tile.index n0 () : () -> index
  %f = arith.constant 0.5 : f32
  %a0 = tile.broadcast %f along [] : f32 -> tensor<8xf32>
  %b0 = tile.load %x[%z] : !X -> tensor<8xf32>
  %a, %b, %s, %c = scf.for %i = %z to %end step %step iter_args(%p = %a0, %q = %b0, %t = %f, %r = %b0)
      -> (tensor<8xf32>, tensor<8xf32>, f32, tensor<8xf32>) {
    %v = tile.load %x[%i] : !X -> tensor<8xf32>
    %w = arith.addf %p, %v : tensor<8xf32>
    %range = tile.range : tensor<8xindex>
    %u = tile.reduce "max" %w axis 0 : tensor<8xf32> -> f32
    %next = arith.addf %t, %u : f32
    %m = arith.mulf %q, %p : tensor<8xf32>
    scf.yield %q, %w, %next, %m : tensor<8xf32>, tensor<8xf32>, f32, tensor<8xf32>
  }
  %odd = tile.index mod(n0, 2) () : () -> index
  %is = arith.cmpi eq, %odd, %one : index
  %ss = tile.broadcast %s along [] : f32 -> tensor<8xf32>
  %chosen, %k = scf.if %is -> (tensor<8xf32>, f32) {
    %sum = arith.addf %a, %ss : tensor<8xf32>
    scf.yield %sum, %s : tensor<8xf32>, f32
  } else {
    scf.yield %c, %f : tensor<8xf32>, f32
  }
  %ks = tile.broadcast %k along [] : f32 -> tensor<8xf32>
  %last = arith.addf %c, %ks : tensor<8xf32>
  %r0 = tile.broadcast %chosen along [1] : tensor<8xf32> -> tensor<1x8xf32>
  %r1 = tile.broadcast %b along [1] : tensor<8xf32> -> tensor<1x8xf32>
  %r2 = tile.broadcast %last along [1] : tensor<8xf32> -> tensor<1x8xf32>
  tile.store %r0, %y[%z, %z] : tensor<1x8xf32>, !O
  tile.store %r1, %y[%one, %z] : tensor<1x8xf32>, !O
  tile.store %r2, %y[%two, %z] : tensor<1x8xf32>, !O
  tile.return
}"""


def test_carried_tiles_are_exchanged() -> None:
    native, kernels = compiled(CARRIED)
    for extent in (1, 8, 9, 30, 31, 64):
        agree(native, kernels["carried"], [numbers("f32", extent), torch.zeros(3, 8)], [extent])


def test_a_product_in_place_is_not_seen_by_who_reads_the_old_sum() -> None:
    """The old accumulator is also stored, after the product: it must still be the old one."""
    text = """
    !X = !tile.block<tensor<4x4xf32>>
    !O = !tile.block<tensor<3x4x4xf32>>
    tile.kernel @old(%x : !X, %y : !O) writes [1] updates [1] grid [1] {
      %z = arith.constant 0 : index
      %one = arith.constant 1 : index
      %three = arith.constant 3 : index
      %v = tile.load %x[%z, %z] : !X -> tensor<4x4xf32>
      %end = scf.for %i = %z to %three step %one iter_args(%acc = %v) -> (tensor<4x4xf32>) {
        %half = arith.addf %acc, %acc : tensor<4x4xf32>
        %d = tile.dot %v, %v into %half : tensor<4x4xf32>, tensor<4x4xf32> -> tensor<4x4xf32>
        %row = tile.broadcast %half along [1, 2] : tensor<4x4xf32> -> tensor<1x4x4xf32>
        tile.store %row, %y[%i, %z, %z] : tensor<1x4x4xf32>, !O
        scf.yield %d : tensor<4x4xf32>
      }
      tile.return
    }"""
    native, kernels = compiled(text)
    agree(native, kernels["old"], [numbers("f32", 4, 4), torch.zeros(3, 4, 4)], [])


def test_index_arithmetic() -> None:
    text = (
        """
    !Y = !tile.block<tensor<7x16xi64>>
    tile.kernel @places(%y : !Y) symbols [n0, n1] writes [0] grid [1] {
      %z = arith.constant 0 : index
      %c = tile.index n0 - 20 () : () -> index
    """
        + "".join(
            f"""
      %r{row} = tile.range : tensor<16xindex>
      %e{row} = tile.index {expression} (%r{row}, %c) : (tensor<16xindex>, index) -> tensor<16xindex>
      %i{row} = arith.index_cast %e{row} : tensor<16xindex> to tensor<16xi64>
      %b{row} = tile.broadcast %i{row} along [1] : tensor<16xi64> -> tensor<1x16xi64>
      %o{row} = arith.constant {row} : index
      tile.store %b{row}, %y[%o{row}, %z] : tensor<1x16xi64>, !Y"""
            for row, expression in enumerate(
                (
                    "p0 * 3 + p1",
                    "floordiv(p0 + p1, 3)",
                    "mod(p0 - p1, n1)",
                    "floordiv(p0 * p1, n1)",
                    "min(p0, p1, n0)",
                    "max(p0 * 2 - n0, p1)",
                    "mod(p0, 4) * 8 + floordiv(p0, 4)",
                )
            )
        )
        + "\ntile.return\n}"
    )
    native, kernels = compiled(text)
    for symbols in ([3, 2], [20, 7], [50, 5], [0, 1]):
        agree(native, kernels["places"], [torch.zeros(7, 16, dtype=torch.int64)], symbols)


def test_padding_transposes_and_broadcasts() -> None:
    text = """
    !X = !tile.block<tensor<?x?xf32, #forge.tensor<[n0, n1]>>>
    !Y = !tile.block<tensor<8x3x8xf32>>
    tile.kernel @mix(%x : !X, %y : !Y) symbols [n0, n1] writes [1] grid [1] {
      %z = arith.constant 0 : index
      %o = tile.index n0 - 2 () : () -> index
      %v = tile.load %x[%z, %z] : !X -> tensor<8x3xf32>
      %p = tile.pad %v[%o, %z] within [n0, n1] other -2.5 : tensor<8x3xf32>
      %e = math.exp %p : tensor<8x3xf32>
      %t = tile.transpose %e [1, 0] : tensor<8x3xf32> -> tensor<3x8xf32>
      %a = tile.broadcast %t along [1, 2] : tensor<3x8xf32> -> tensor<8x3x8xf32>
      %s = tile.reduce "add" %e axis 1 : tensor<8x3xf32> -> tensor<8xf32>
      %one = tile.broadcast %s along [0] : tensor<8xf32> -> tensor<8x1xf32>
      %b = tile.broadcast %one along [0, 1] : tensor<8x1xf32> -> tensor<8x3xf32>
      %b3 = tile.broadcast %b along [0, 1] : tensor<8x3xf32> -> tensor<8x3x8xf32>
      %r = arith.mulf %a, %b3 : tensor<8x3x8xf32>
      tile.store %r, %y[%z, %z, %z] : tensor<8x3x8xf32>, !Y
      tile.return
    }"""
    native, kernels = compiled(text)
    for shape in ((8, 3), (5, 2), (2, 9), (11, 1)):
        agree(native, kernels["mix"], [numbers("f32", *shape), torch.zeros(8, 3, 8)], list(shape))

"""Loads, stores, gathers and scatters of tiles: bounds, strides, extents that fill no tile.

No memory outside is touched: every tensor ends where readable memory ends (``launch.Guarded``), so that
a vector that reaches too far is a crash.
"""

from __future__ import annotations

import pytest
import torch

from tests.backends.cpu.launch import DTYPES, agree, compiled, launch

ALL = tuple(DTYPES)


def numbers(dtype: str, *shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    if dtype == "i1":
        return torch.randint(0, 2, shape, generator=generator).bool()
    if DTYPES[dtype].is_floating_point:
        return torch.randn(shape, generator=generator).to(DTYPES[dtype])
    return torch.randint(0, 100, shape, generator=generator).to(DTYPES[dtype])


def copy(dtype: str, *, transposed: bool = False, tile: str = "4x16") -> str:
    """Copies a matrix whose strides are symbols, or its transpose."""
    rows, columns = tile.split("x")
    kind = dtype.removeprefix("u")
    turned = f"{columns}x{rows}"
    body = (
        f"%v = tile.load %x[%r, %c] other {'true' if dtype == 'i1' else 7} : !X{dtype} -> tensor<{tile}x{kind}>\n"
        + (
            f"%w = tile.transpose %v [1, 0] : tensor<{tile}x{kind}> -> tensor<{turned}x{kind}>\n"
            f"tile.store %w, %y[%c, %r] : tensor<{turned}x{kind}>, !Y{dtype}"
            if transposed
            else f"tile.store %v, %y[%r, %c] : tensor<{tile}x{kind}>, !Y{dtype}"
        )
    )
    out = "n1, n0" if transposed else "n0, n1"
    return f"""
!X{dtype} = !tile.block<tensor<?x?x{dtype}, #forge.tensor<[n0, n1], strides = [s0, s1]>>>
!Y{dtype} = !tile.block<tensor<?x?x{dtype}, #forge.tensor<[{out}], strides = [t0, t1]>>>
tile.kernel @copy_{dtype}(%x : !X{dtype}, %y : !Y{dtype}) symbols [n0, n1, s0, s1, t0, t1] writes [1]
    tiles [BM over n0, BN over n1] grid [floordiv(n0 + BM - 1, BM), floordiv(n1 + BN - 1, BN)]
    bound {{BM = {rows}, BN = {columns}}} {{
  %p = tile.program_id 0
  %q = tile.program_id 1
  %r = tile.index p0 * BM (%p) : (index) -> index
  %c = tile.index p0 * BN (%q) : (index) -> index
  {body}
  tile.return
}}"""


@pytest.mark.parametrize("cpu", ["x86-64-v3", "host"])
@pytest.mark.parametrize("transposed", [False, True])
def test_copy(transposed: bool, cpu: str) -> None:
    native, kernels = compiled("".join(copy(dtype, transposed=transposed) for dtype in ALL), cpu)
    for dtype in ALL:
        for shape in ((5, 37), (1, 1), (8, 32), (0, 3), (3, 0), (4, 16)):
            x = numbers(dtype, *shape)
            spread = torch.zeros(max(shape[0], 1) * 2, max(shape[1], 1) * 3, dtype=x.dtype)[
                : 2 * shape[0] : 2, : 3 * shape[1] : 3
            ]
            turned = torch.zeros(shape[::-1], dtype=x.dtype).T
            for source in (x, spread.copy_(x), turned.copy_(x)):
                y = torch.zeros(shape[::-1] if transposed else shape, dtype=x.dtype)
                for target in (y, torch.zeros(y.shape[::-1], dtype=x.dtype).T):
                    symbols = [*shape, *source.stride(), *target.stride()]
                    agree(native, kernels[f"copy_{dtype}"], [source, target], symbols)


def test_rows_that_are_repeated() -> None:
    native, kernels = compiled(copy("f32"))
    x = numbers("f32", 1, 37).expand(5, 37)
    agree(native, kernels["copy_f32"], [x, torch.zeros(5, 37)], [5, 37, 0, 1, 37, 1])
    x = numbers("f32", 5, 1).expand(5, 37)
    agree(native, kernels["copy_f32"], [x, torch.zeros(5, 37)], [5, 37, 1, 0, 37, 1])


@pytest.mark.parametrize("tile", ["1x1", "3x5", "1x64", "64x1", "2x128", "7x9"])
def test_tiles_of_any_extents(tile: str) -> None:
    native, kernels = compiled("".join(copy(dtype, tile=tile) for dtype in ("f32", "bf16", "i1")))
    for dtype in ("f32", "bf16", "i1"):
        x = numbers(dtype, 13, 43)
        agree(native, kernels[f"copy_{dtype}"], [x, torch.zeros_like(x)], [13, 43, 43, 1, 43, 1])


@pytest.mark.parametrize("dtype", ["f32", "f16", "i8", "i1", "f64"])
def test_window_that_begins_outside(dtype: str) -> None:
    """A tile that begins before the block, as convolutions read it."""
    block = f"!tile.block<tensor<?x{dtype}, #forge.tensor<[n0]>>>"
    text = f"""
    tile.kernel @window(%x : {block}, %y : {block}) symbols [n0, n1] writes [1] tiles [BM over n0]
        grid [floordiv(n0 + BM - 1, BM)] bound {{BM = 8}} {{
      %p = tile.program_id 0
      %o = tile.index p0 * BM - n1 (%p) : (index) -> index
      %v = tile.load %x[%o] other {"true" if dtype == "i1" else 3} : {block} -> tensor<8x{dtype}>
      %t = tile.index p0 * BM (%p) : (index) -> index
      tile.store %v, %y[%t] : tensor<8x{dtype}>, {block}
      tile.return
    }}"""
    native, kernels = compiled(text)
    for extent in (1, 8, 13, 40):
        for before in (0, 1, 3, 8, 11, 100):
            x = numbers(dtype, extent)
            agree(native, kernels["window"], [x, torch.zeros_like(x)], [extent, before])


def test_store_that_begins_outside() -> None:
    text = """
    !X = !tile.block<tensor<?xf32, #forge.tensor<[n0]>>>
    tile.kernel @shift(%x : !X, %y : !X) symbols [n0, n1] writes [1] updates [1] tiles [BM whole n0] grid [1]
        bound {BM = 32} {
      %z = arith.constant 0 : index
      %v = tile.load %x[%z] : !X -> tensor<32xf32>
      %o = tile.index 0 - n1 () : () -> index
      tile.store %v, %y[%o] : tensor<32xf32>, !X
      tile.return
    }"""
    native, kernels = compiled(text)
    for extent in (1, 5, 20, 32):
        for before in (0, 1, 7, 40):
            x = numbers("f32", extent)
            agree(native, kernels["shift"], [x, torch.ones(extent)], [extent, before])


def gather(dtype: str) -> str:
    return f"""
!W{dtype} = !tile.block<tensor<?x?x{dtype}, #forge.tensor<[n0, n1]>>>
!I{dtype} = !tile.block<tensor<?xi64, #forge.tensor<[n2]>>>
!O{dtype} = !tile.block<tensor<?x?x{dtype}, #forge.tensor<[n2, n1]>>>
tile.kernel @gather_{dtype}(%w : !W{dtype}, %i : !I{dtype}, %y : !O{dtype}) symbols [n0, n1, n2] writes [2]
    tiles [BM over n2, BN over n1] grid [floordiv(n2 + BM - 1, BM), floordiv(n1 + BN - 1, BN)]
    bound {{BM = 4, BN = 16}} {{
  %p = tile.program_id 0
  %q = tile.program_id 1
  %r = tile.index p0 * 4 (%p) : (index) -> index
  %c = tile.index p0 * 16 (%q) : (index) -> index
  %ids = tile.load %i[%r] : !I{dtype} -> tensor<4xi64>
  %at = arith.index_cast %ids : tensor<4xi64> to tensor<4xindex>
  %end = tile.index n0 () : () -> index
  %ends = tile.broadcast %end along [] : index -> tensor<4xindex>
  %fine = arith.cmpi ult, %at, %ends : tensor<4xindex>
  tile.check %fine, 1 "an index is out of range" : tensor<4xi1>
  %rows = tile.broadcast %at along [0] : tensor<4xindex> -> tensor<4x16xindex>
  %range = tile.range : tensor<16xindex>
  %places = tile.index p0 + p1 (%range, %c) : (tensor<16xindex>, index) -> tensor<16xindex>
  %columns = tile.broadcast %places along [1] : tensor<16xindex> -> tensor<4x16xindex>
  %width = tile.index n1 () : () -> index
  %widths = tile.broadcast %width along [] : index -> tensor<4x16xindex>
  %mask = arith.cmpi slt, %columns, %widths : tensor<4x16xindex>
  %v = tile.gather %w[%rows, %columns] mask %mask other {"true" if dtype == "i1" else 5} :
      !W{dtype}, tensor<4x16xindex>, tensor<4x16xindex> mask tensor<4x16xi1> -> tensor<4x16x{dtype.removeprefix("u")}>
  tile.store %v, %y[%r, %c] : tensor<4x16x{dtype.removeprefix("u")}>, !O{dtype}
  tile.return
}}"""


def test_gather_of_rows_and_its_check() -> None:
    native, kernels = compiled("".join(map(gather, ALL)))
    for dtype in ALL:
        for count, width in ((6, 40), (1, 1), (4, 16), (3, 5)):
            w = numbers(dtype, 11, width)
            ids = numbers("i64", count, seed=2) % 11
            y = torch.zeros(count, width, dtype=w.dtype)
            agree(native, kernels[f"gather_{dtype}"], [w, ids, y], [11, width, count])
    for wrong in (11, -1, 2**40):
        code, _ = launch(
            native, kernels["gather_f32"],
            [numbers("f32", 11, 16), torch.tensor([0, wrong]), torch.zeros(2, 16)], [11, 16, 2],
        )  # fmt: skip
        assert code == 1


def elementwise_gather(dtype: str, combine: str | None = None) -> str:
    """``y[i[t]] = x[i[t]]``, or combined: places that are next to each other only by chance."""
    kind = f"tensor<16x{dtype.removeprefix('u')}>"
    word = "" if combine is None else f' combine "{combine}"'
    block = f"!tile.block<tensor<?x{dtype}, #forge.tensor<[n0]>>>"
    return f"""
tile.kernel @permute_{dtype}_{combine}(%x : {block}, %i : !tile.block<tensor<?xi32, #forge.tensor<[n1]>>>, %y : {block})
    symbols [n0, n1] writes [2] updates [2] tiles [BM over n1] grid [floordiv(n1 + BM - 1, BM)] bound {{BM = 16}} {{
  %p = tile.program_id 0
  %o = tile.index p0 * 16 (%p) : (index) -> index
  %ids = tile.load %i[%o] : !tile.block<tensor<?xi32, #forge.tensor<[n1]>>> -> tensor<16xi32>
  %at = arith.index_cast %ids : tensor<16xi32> to tensor<16xindex>
  %range = tile.range : tensor<16xindex>
  %place = tile.index p0 + p1 (%range, %o) : (tensor<16xindex>, index) -> tensor<16xindex>
  %end = tile.index n1 () : () -> index
  %ends = tile.broadcast %end along [] : index -> tensor<16xindex>
  %mask = arith.cmpi slt, %place, %ends : tensor<16xindex>
  %v = tile.gather %x[%at] mask %mask : {block}, tensor<16xindex> mask tensor<16xi1> -> {kind}
  tile.scatter %v, %y[%at] mask %mask{word} : {kind}, {block}, tensor<16xindex> mask tensor<16xi1>
  tile.return
}}"""


def test_scatter() -> None:
    plain = [elementwise_gather(dtype) for dtype in ALL]
    kinds = [(d, c) for d in ALL if d not in ("i1", "ui8") for c in ("add", "max", "min")]
    native, kernels = compiled("".join([*plain, *(elementwise_gather(d, c) for d, c in kinds)]))
    for dtype in ALL:
        for count in (1, 16, 37):
            x = numbers(dtype, 50)
            places = torch.randperm(50, generator=torch.Generator().manual_seed(1))[:count].int()
            agree(native, kernels[f"permute_{dtype}_None"], [x, places, numbers(dtype, 50, seed=3)], [50, count])
    for dtype, combine in kinds:
        x = numbers(dtype, 50)
        places = torch.randint(0, 9, (37,), generator=torch.Generator().manual_seed(1)).int()
        start = numbers(dtype, 50, seed=3)
        agree(native, kernels[f"permute_{dtype}_{combine}"], [x, places, start], [50, 37], scale=4)


def test_loads_stay_before_the_writes_of_the_same_block() -> None:
    text = """
    !X = !tile.block<tensor<?xf32, #forge.tensor<[n0]>>>
    tile.kernel @swap(%x : !X) symbols [n0] writes [0] updates [0] grid [1] {
      %z = arith.constant 0 : index
      %h = arith.constant 16 : index
      %a = tile.load %x[%z] : !X -> tensor<16xf32>
      %b = tile.load %x[%h] : !X -> tensor<16xf32>
      tile.store %b, %x[%z] : tensor<16xf32>, !X
      tile.store %a, %x[%h] : tensor<16xf32>, !X
      tile.return
    }"""
    native, kernels = compiled(text)
    x = numbers("f32", 32)
    code, (found,) = launch(native, kernels["swap"], [x], [32])
    assert code == 0
    assert torch.equal(found, torch.cat([x[16:], x[:16]]))


def test_views_and_scalars() -> None:
    text = """
    !X = !tile.block<tensor<?x?xf32, #forge.tensor<[n0, n1]>>>
    !V = !tile.block<tensor<?x2xf32, #forge.tensor<[n0], strides = [n1, 3]>>>
    !S = !tile.block<tensor<f32>>
    tile.kernel @views(%x : !X, %s : !S, %y : !V) symbols [n0, n1] writes [2] tiles [BM over n0]
        grid [floordiv(n0 + BM - 1, BM)] bound {BM = 8} {
      %p = tile.program_id 0
      %z = arith.constant 0 : index
      %one = arith.constant 1 : index
      %o = tile.index p0 * BM (%p) : (index) -> index
      %view = tile.view %x[%one] : !X to !V
      %v = tile.load %view[%o, %z] : !V -> tensor<8x2xf32>
      %f = tile.load %s[] : !S -> f32
      %fs = tile.broadcast %f along [] : f32 -> tensor<8x2xf32>
      %w = arith.mulf %v, %fs : tensor<8x2xf32>
      tile.store %w, %y[%o, %z] : tensor<8x2xf32>, !V
      tile.return
    }"""
    native, kernels = compiled(text)
    for rows in (1, 8, 13):
        x = numbers("f32", rows, 7)
        y = torch.zeros(rows * 7).as_strided((rows, 2), (7, 3))
        agree(native, kernels["views"], [x, torch.tensor(2.5), y], [rows, 7])


@pytest.mark.parametrize("dtype", ["f32", "f64", "i32", "i8"])
def test_lanes_that_are_certain_to_be_outside(dtype: str) -> None:
    """Half of the lanes of a masked load have no element in any row: LLVM must not read them (it did)."""
    block = f"!tile.block<tensor<2x2x{dtype}>>"
    text = f"""
    tile.kernel @narrow(%x : {block}, %y : !tile.block<tensor<2x{dtype}>>) writes [1] grid [1] {{
      %z = arith.constant 0 : index
      %v = tile.load %x[%z, %z] other 1 : {block} -> tensor<8x16x{dtype}>
      %r = tile.reduce "max" %v axis 1 : tensor<8x16x{dtype}> -> tensor<8x{dtype}>
      tile.store %r, %y[%z] : tensor<8x{dtype}>, !tile.block<tensor<2x{dtype}>>
      tile.return
    }}"""
    for cpu in ("x86-64-v3", "host"):
        native, kernels = compiled(text, cpu)
        agree(native, kernels["narrow"], [numbers(dtype, 2, 2), torch.zeros(2, dtype=DTYPES[dtype])], [])

"""What the source looks like; ``EXPECTTEST_ACCEPT=1 pytest …`` writes it anew."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("expecttest")

from expecttest import TestCase
from xdsl.dialects.builtin import DictionaryAttr, IntAttr

from forgec.backends.kernel_cache import kernel_key
from forgec.backends.triton import elementwise, printer
from forgec.backends.triton.printer import print_kernel
from forgec.diagnostics import ForgeError, Location
from forgec.ir.locations import to_attribute
from forgec.ir.tile.kernel import KernelOp
from tests.backends.triton.cases import all_cases
from tests.ir.tile.kernels import MATMUL, MATMUL_TYPES, SCALE, SCALE_TYPES, SOFTMAX, SOFTMAX_TYPES, kernel_of

SMALL = {"n0": (0, 4096), "n1": (0, 4096), "n2": (0, 4096)}


def bound(kernel: KernelOp, **extents: int) -> KernelOp:
    kernel.bound = DictionaryAttr({name: IntAttr(value) for name, value in extents.items()})
    return kernel


class Sources(TestCase):
    def test_softmax(self) -> None:
        kernel = bound(kernel_of(SOFTMAX, SOFTMAX_TYPES), BM=4, BN=64)
        for line, op in enumerate(kernel.body.block.ops):
            op.location = to_attribute(Location("/home/user/model.py", 40 + line // 5, "forward", "layers.0"))
        self.assertExpectedInline(
            print_kernel(kernel, SMALL).text,
            """\
import triton
import triton.language as tl


@triton.jit
def maximum(a, b):
    return tl.maximum(a, b, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def softmax(x_ptr, y_ptr, n0, n1, BM: tl.constexpr, BN: tl.constexpr):
    # grid: floordiv(n0 - 1, BM) + 1
    # tiles: BM = 4 over n0, BN = 64 whole n1
    # model.py:40
    p = tl.program_id(0)
    o = BM * p
    rows = o + tl.arange(0, BM)
    cols = tl.arange(0, BN)
    mask = (rows < n0)[:, None] & (cols < n1)[None, :]
    v = tl.load(x_ptr + rows[:, None] * n1 + cols[None, :], mask=mask, other=0.0)
    i = tl.where(mask, v, float("-inf"))
    # model.py:41
    m = tl.reduce(i, axis=1, combine_fn=maximum)
    d = i - m[:, None]
    e = tl.exp(d)
    f = tl.where(mask, e, 0.0)
    # model.py:42
    s = tl.sum(f, axis=1)
    w = tl.div_rn(f, s[:, None])
    tl.store(y_ptr + rows[:, None] * n1 + cols[None, :], w, mask=mask)
""",
        )

    def test_product(self) -> None:
        kernel = bound(kernel_of(MATMUL, MATMUL_TYPES), BM=64, BN=32, BK=16)
        self.assertExpectedInline(
            print_kernel(kernel, SMALL).text,
            """\
import triton
import triton.language as tl


@triton.jit
def matmul(a_ptr, b_ptr, c_ptr, n0, n1, n2, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr):
    # grid: floordiv(n0 - 1, BM) + 1 x floordiv(n1 - 1, BN) + 1
    # tiles: BM = 64 over n0, BN = 32 over n1, BK = 16 over n2
    program = tl.program_id(0)
    p = program // tl.cdiv(n1, BN)
    q = program % tl.cdiv(n1, BN)
    m = BM * p
    n = BN * q
    acc = tl.zeros((BM, BN), tl.float32)
    rows = m + tl.arange(0, BM)
    cols_1 = n + tl.arange(0, BN)
    for k in range(0, n2, BK):
        cols = k + tl.arange(0, BK)
        mask = (rows < n0)[:, None] & (cols < n2)[None, :]
        l = tl.load(a_ptr + rows[:, None] * n2 + cols[None, :], mask=mask, other=0.0)
        mask_1 = (cols < n2)[:, None] & (cols_1 < n1)[None, :]
        r = tl.load(b_ptr + cols[:, None] * n1 + cols_1[None, :], mask=mask_1, other=0.0)
        acc = tl.dot(l, r, acc, input_precision="ieee")
    mask_2 = (rows < n0)[:, None] & (cols_1 < n1)[None, :]
    tl.store(c_ptr + rows[:, None] * n1 + cols_1[None, :], acc, mask=mask_2)
""",
        )

    def test_large_tensors_are_indexed_in_64_bits(self) -> None:
        kernel = bound(kernel_of(SCALE, SCALE_TYPES), BM=128)
        source = print_kernel(kernel)
        assert source.signature == (("x_ptr", "*fp32"), ("y_ptr", "*fp32"), ("n0", "i64"))
        self.assertExpectedInline(
            source.text,
            """\
import triton
import triton.language as tl


@triton.jit
def scale(x_ptr, y_ptr, n0, BM: tl.constexpr):
    # grid: floordiv(n0 - 1, BM) + 1
    # tiles: BM = 128 over n0
    p = tl.program_id(0).to(tl.int64)
    o = BM * p
    offs = o + tl.arange(0, BM).to(tl.int64)
    v = tl.load(x_ptr + offs, mask=offs < n0, other=0.0)
    w = v * 2.0
    tl.store(y_ptr + offs, w, mask=offs < n0)
""",
        )

    def test_checks(self) -> None:
        self.assertExpectedInline(
            all_cases()["checked"].source.text,
            """\
import triton
import triton.language as tl


@triton.jit
def to_place(x):
    # What does not fit is outside every tensor of the kernel, and stays so.
    return tl.minimum(tl.maximum(x, -2147483648), 2147483647).to(tl.int32)


@triton.jit
def checked(count_ptr, ids_ptr, x_ptr, y_ptr, error_ptr):
    # grid: 1
    n = tl.load(count_ptr)
    few = n < 5
    offs = tl.arange(0, 8)
    if not few:  # too many
        tl.store(error_ptr, 1)
    else:
        id_1 = tl.load(ids_ptr + offs)
        good = id_1.to(tl.uint64, bitcast=True) < 5
        w = tl.zeros((8,), tl.float32)
        if few:
            if not tl.min(good.to(tl.int32)) != 0:  # index out of range
                tl.store(error_ptr, 2)
            else:
                at = to_place(id_1)
                v = tl.load(x_ptr + at, mask=(at >= 0) & (at < 5), other=0.0)
                w = v
        else:
            w = tl.zeros((8,), tl.float32)
        tl.store(y_ptr + offs, w)
""",
        )


def test_a_tensor_of_2_to_the_31_elements_is_large() -> None:
    kernel = bound(kernel_of(SCALE, SCALE_TYPES), BM=128)
    assert dict(print_kernel(kernel, {"n0": (0, 2**30)}).signature)["n0"] == "i32"
    assert dict(print_kernel(kernel, {"n0": (0, 2**31)}).signature)["n0"] == "i64"


def test_names_clash_with_nothing() -> None:
    text = SCALE
    for old, new in (("%x", "%tl"), ("%y", "%for"), ("%p", "%range"), ("%w", "%float"), ("%v", "%n0")):
        text = text.replace(f"{old} ", f"{new} ").replace(f"{old}[", f"{new}[").replace(f"({old})", f"({new})")
        text = text.replace(f"{old},", f"{new},")
    source = print_kernel(bound(kernel_of(text.replace("@scale", "@triton"), SCALE_TYPES), BM=128), SMALL)
    compile(source.text, "source", "exec")
    assert source.name == "triton_1"
    assert [name for name, _ in source.signature] == ["tl_ptr", "for_ptr", "n0"]
    for name in ("range", "float", "n0", "tl", "triton"):
        assert f" {name} = " not in source.text


def test_every_rule_is_tested() -> None:
    tested = {op.name for case in all_cases().values() for op in case.kernel.walk()}
    assert {op.name for op in (*printer.RULES, *elementwise.RULES)} - tested == {"math.fpowi"}


def refused(kernel: KernelOp) -> ForgeError:
    with pytest.raises(ForgeError) as found:
        print_kernel(kernel, SMALL)
    assert found.value.code == "FORGE-B005"
    return found.value


def test_extents_that_are_no_powers_of_two_are_refused() -> None:
    kernel = bound(kernel_of(SCALE, SCALE_TYPES), BM=96)
    for op in kernel.body.block.ops:
        op.location = to_attribute(Location("model.py", 7, "forward", ""))
    failure = refused(kernel)
    assert "96, which is no power of 2" in str(failure)
    assert "model.py:7" in str(failure)


def test_comments_hold_the_lines_of_the_model(tmp_path: Path) -> None:
    model = tmp_path / "model.py"
    model.write_text(f"import torch\n\n    y = x\x0c * 2  # é\n    z = {'x + ' * 60}x\n", encoding="utf-8")
    kernel = bound(kernel_of(SCALE, SCALE_TYPES), BM=128)
    for number, op in enumerate(kernel.body.block.ops):
        op.location = to_attribute(Location(str(model), 3 if number < 3 else 4, "forward", ""))
    key, text = kernel_key(kernel), print_kernel(kernel, SMALL).text
    assert "    # model.py:3: y = x  * 2  # é\n" in text
    assert all(len(line) <= 120 for line in text.splitlines())
    assert "    # model.py:4: z = x + x" in text
    model.write_text("BM = libdevice.exp(BN) + tl.dot(BM)\n" * 9, encoding="utf-8")
    kernel.bound = DictionaryAttr({"BM": IntAttr(128), "BN": IntAttr(8)})
    assert print_kernel(kernel, SMALL).constants == (("BM", 128),)
    other = print_kernel(kernel, SMALL).text
    kernel.bound = DictionaryAttr({"BM": IntAttr(128)})
    assert kernel_key(kernel) == key
    without = [[line for line in each.splitlines() if "# model.py" not in line] for each in (text, other)]
    assert without[0] == without[1]


BLOCK = "!tile.block<tensor<?x8xf32, #forge.tensor<[n0]>>>"
TILE = "tensor<?x8xf32, #forge.tensor<[BM]>>"


def test_what_is_known_is_not_written() -> None:
    kernel = kernel_of(
        f"""
tile.kernel @known(%x: {BLOCK}, %y: {BLOCK})
    symbols [n0] writes [1] tiles [BM over n0] grid [floordiv(n0 - 1, BM) + 1, 1] {{
  %p = tile.program_id 0
  %q = tile.program_id 1
  %r = tile.index BM * p0(%p) : (index) -> index
  %c = tile.index p0 * 8(%q) : (index) -> index
  %n = tile.index n0() : () -> index
  %z = arith.constant 0 : index
  %o = arith.cmpi sgt, %n, %z : index
  %m = tile.broadcast %o along [] : i1 -> tensor<?x8xi1, #forge.tensor<[BM]>>
  %v = tile.load %x[%r, %c] : {BLOCK} -> {TILE}
  %s = arith.select %m, %v, %v : tensor<?x8xi1, #forge.tensor<[BM]>>, {TILE}
  tile.store %s, %y[%r, %c] : {TILE}, {BLOCK}
  tile.return
}}""",
        {},
    )
    text = print_kernel(bound(kernel, BM=4), SMALL).text
    assert "n0 > 0" not in text
    assert "0 * 8" not in text
    assert "cols = tl.arange(0, 8)" in text


def test_unbound_kernels_are_refused() -> None:
    assert "not bound" in str(refused(kernel_of(SCALE, SCALE_TYPES)))


def test_tiles_that_are_too_large_are_refused() -> None:
    assert "too many" in str(refused(bound(kernel_of(SCALE, SCALE_TYPES), BM=1 << 21)))


@pytest.mark.parametrize(
    ("element", "combine", "text"),
    [("i8", "add", "no atomic add of i8"), ("bf16", "max", "no atomic max of bf16"), ("c64", "", "complex<f32>")],
)
def test_what_triton_lacks_is_refused(element: str, combine: str, text: str) -> None:
    kind = "complex<f32>" if element == "c64" else element
    block, tile = f"!tile.block<tensor<8x{kind}>>", f"tensor<8x{kind}>"
    how = f'combine "{combine}" ' if combine else ""
    kernel = kernel_of(f"""
tile.kernel @k(%x : {block}, %y : {block}) writes [1] updates [1] grid [1] {{
  %z = arith.constant 0 : index
  %r = tile.range : tensor<8xindex>
  %v = tile.load %x[%z] : {block} -> {tile}
  tile.scatter %v, %y[%r] {how}: {tile}, {block}, tensor<8xindex>
  tile.return
}}""")
    assert text in str(refused(kernel))

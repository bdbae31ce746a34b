"""Groups as coroutines: every order of small kernels, poison where something is read too early, deadlocks."""

from __future__ import annotations

import pytest
import torch

from forgec.diagnostics import ForgeError
from forgec.ir.tile.interpreter import run_kernel
from forgec.ir.warp.interpreter import AllOrders, at_random, in_turn
from forgec.ir.warp.kernel import KernelOp
from tests.ir.build import parse

KERNEL = """
warp.kernel @k(%x: !X, %y: !X) writes [1] grid [1] {
  %z = tile.index 0() : () -> index
  %one = tile.index 1() : () -> index
  %end = tile.index 3() : () -> index
  BODY
  tile.return
}"""
RING = "!aref.ring<tensor<2xf32>>"

COPY = """
  %r = aref.create depth DEPTH in "shared" : !R
  warp.group "load" warps 1 registers 24 {
    scf.for %i = %z to %end step %one {
      %o = tile.index p0 * 2(%i) : (index) -> index
      %v, %t = warp.async_load %x[%o] in "shared" : !X -> tensor<2xf32>
      aref.put %r[%i], %v after %t : !R
    }
  }
  warp.group "store" warps 4 registers 240 {
    scf.for %i = %z to %end step %one {
      %o = tile.index p0 * 2(%i) : (index) -> index
      %v = aref.get %r[%i] : !R
      %w = arith.addf %v, %v : tensor<2xf32>
      aref.consumed %r[%i] : !R
      tile.store %w, %y[%o] : tensor<2xf32>, !X
    }
  }"""


def kernel(body: str) -> KernelOp:
    """A kernel of this body, whose blocks have six elements."""
    text = KERNEL.replace("BODY", body).replace("!X", "!tile.block<tensor<6xf32>>").replace("!R", RING)
    (found,) = parse(text).ops
    assert isinstance(found, KernelOp)
    return found


def run(found: KernelOp, scheduler=in_turn) -> torch.Tensor:
    y = torch.zeros(6)
    run_kernel(found, [torch.arange(1.0, 7.0), y], [], scheduler=scheduler)
    return y


TWICE = 2 * torch.arange(1.0, 7.0)


@pytest.mark.parametrize("depth", [1, 2])
def test_every_order_of_a_small_kernel(depth: int) -> None:
    found = kernel(COPY.replace("DEPTH", str(depth)))
    orders = AllOrders()
    for scheduler in orders:
        assert torch.equal(run(found, scheduler), TWICE)
    assert orders.complete
    assert orders.runs > 20


def test_orders_that_are_too_many_are_not_complete() -> None:
    found = kernel(COPY.replace("DEPTH", "2"))
    orders = AllOrders(most=5)
    for scheduler in orders:
        run(found, scheduler)
    assert (orders.runs, orders.complete) == (5, False)


def test_what_is_not_waited_for_is_poison_in_some_order() -> None:
    found = kernel(COPY.replace("DEPTH", "2").replace("%v after %t", "%v"))
    results = [run(found, at_random(seed)) for seed in range(3)]
    assert any(result.isnan().any() for result in results)
    assert run(found).isnan().all()


def test_what_nothing_puts_cannot_be_read() -> None:
    body = COPY.replace("DEPTH", "2").replace(
        "%v = aref.get %r[%i]", "%b = tile.index p0 - 1(%i) : (index) -> index\n      %v = aref.get %r[%b]"
    )
    with pytest.raises(ForgeError, match="number -1 of %r is read, which nothing puts"):
        run(kernel(body))


def test_what_is_never_freed_is_found_at_the_end() -> None:
    body = (
        COPY.replace("DEPTH", "3")
        .replace("aref.consumed %r[%i]", "aref.consumed %r[%z]")
        .replace("%end step", "%one step")
    )
    assert torch.equal(run(kernel(body))[:2], TWICE[:2])
    body = body.replace(
        '"load" warps 1 registers 24 {\n    scf.for %i = %z to %one',
        '"load" warps 1 registers 24 {\n    scf.for %i = %z to %end',
    )
    with pytest.raises(ForgeError, match="number 1 of %r is still there at the end: nobody has freed it"):
        run(kernel(body))


def test_what_is_freed_is_poison() -> None:
    body = COPY.replace("DEPTH", "2").replace("      aref.consumed %r[%i] : !R\n", "")
    body = body.replace("%w = arith.addf", "aref.consumed %r[%i] : !R\n      %w = arith.addf")
    assert run(kernel(body)).isnan().all()


PAIR = """
  %a = aref.create depth 1 in "shared" : !R
  %b = aref.create depth 1 in "shared" : !R
  warp.group "first" warps 4 registers 64 {
    %v = tile.load %x[%z] : !X -> tensor<2xf32>
    FIRST
    tile.store %w, %y[%z] : tensor<2xf32>, !X
    aref.consumed %b[%z] : !R
  }
  warp.group "second" warps 4 registers 64 {
    %u = aref.get %a[%z] : !R
    aref.put %b[%z], %u : !R
    aref.consumed %a[%z] : !R
  }"""
PUT, GET = "aref.put %a[%z], %v : !R", "%w = aref.get %b[%z] : !R"


def test_a_put_and_a_get_in_the_wrong_order_wait_for_ever() -> None:
    orders = AllOrders()
    for scheduler in orders:
        assert run(kernel(PAIR.replace("FIRST", f"{PUT}\n    {GET}")), scheduler)[:2].tolist() == [1, 2]
    assert orders.complete
    with pytest.raises(ForgeError, match="FORGE-X002") as caught:
        run(kernel(PAIR.replace("FIRST", f"{GET}\n    {PUT}")))
    assert caught.value.diagnostics[0].notes == (
        "group 'first' waits for number 0 of %b",
        "group 'second' waits for number 0 of %a",
    )


BOTH = """
  %two = tile.index 2() : () -> index
  %r = aref.create depth DEPTH in "shared" : !R
  warp.group "load" warps 1 registers 24 {
    scf.for %i = %z to %two step %one {
      %o = tile.index p0 * 2(%i) : (index) -> index
      %v, %t = warp.async_load %x[%o] in "shared" : !X -> tensor<2xf32>
      aref.put %r[%i], %v after %t : !R
    }
  }
  warp.group "two at once" warps 4 registers 64 {
    %v = aref.get %r[%z] : !R
    %w = aref.get %r[%one] : !R
    %s = arith.addf %v, %w : tensor<2xf32>
    tile.store %s, %y[%z] : tensor<2xf32>, !X
    aref.consumed %r[%z] : !R
    aref.consumed %r[%one] : !R
  }"""


def test_a_slot_too_few_is_a_deadlock() -> None:
    for seed in range(6):
        assert run(kernel(BOTH.replace("DEPTH", "2")), at_random(seed))[:2].tolist() == [4, 6]
    with pytest.raises(ForgeError, match="FORGE-X002") as caught:
        run(kernel(BOTH.replace("DEPTH", "1")))
    assert "an empty slot of %r, for number 1" in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("aref.put %r[%i]", "aref.put %r[%end]", "is put to %r out of turn"),
        ("aref.consumed %r[%i]", "aref.consumed %r[%end]", "is freed, which holds another"),
    ],
)
def test_numbers_that_are_wrong_are_errors(old: str, new: str, message: str) -> None:
    with pytest.raises(ForgeError, match=f"FORGE-X001.*{message}"):
        run(kernel(COPY.replace("DEPTH", "2").replace(old, new)))


MMA = """
warp.kernel @mma(%x: !X, %y: !X) writes [1] grid [1] {
  %z = tile.index 0() : () -> index
  warp.group "one" warps 4 registers 64 {
    %a = tile.load %x[%z, %z] : !X -> tensor<4x4xf32>
    %p, %t = warp.mma %a, %a into %a : tensor<4x4xf32>, tensor<4x4xf32> -> tensor<4x4xf32>
    %q, %u = warp.mma %a, %a into %p : tensor<4x4xf32>, tensor<4x4xf32> -> tensor<4x4xf32>
    WAIT
    tile.store %q, %y[%z, %z] : tensor<4x4xf32>, !X
  }
  tile.return
}"""


def test_products_of_a_group_are_done_in_order() -> None:
    x = torch.randn(4, 4, generator=torch.Generator().manual_seed(1))
    expected = (x + x @ x) + x @ x
    for wait, is_waited in (("warp.wait %u", True), ("warp.wait %t", False), ("", False)):
        (found,) = parse(MMA.replace("WAIT", wait).replace("!X", "!tile.block<tensor<4x4xf32>>")).ops
        assert isinstance(found, KernelOp)
        results = []
        for seed in range(6):
            y = torch.zeros(4, 4)
            run_kernel(found, [x, y], [], scheduler=at_random(seed))
            results.append(bool(torch.equal(y, expected)))
        assert all(results) == is_waited

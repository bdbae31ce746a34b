"""What the interpreter of scheduled kernels finds: lowerings that are wrong in one op."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

import pytest
from xdsl.dialects.builtin import IntAttr
from xdsl.ir import Operation

from forgec.diagnostics import ForgeError
from forgec.ir.tile.compute import IndexOp
from forgec.ir.tile.kernel import KernelOp
from forgec.ir.warp.asynchronous import WaitOp
from forgec.ir.warp.channels import ConsumedOp, CreateOp, GetOp, PutOp
from forgec.ir.warp.interpreter import at_random
from forgec.ir.warp.kernel import KernelOp as WarpKernelOp
from forgec.runtime.symbolic import symbol
from tests.passes.schedule.scheduled import is_same, kernels, results, scheduled

ATTENTION = """
func.func @f(%q: tensor<1x1x128x16xbf16>, %k: tensor<1x1x384x16xbf16>, %v: tensor<1x1x384x16xbf16>)
    -> tensor<1x1x128x16xbf16> {
  %y = forge.attention %q, %k, %v
    : (tensor<1x1x128x16xbf16>, tensor<1x1x384x16xbf16>, tensor<1x1x384x16xbf16>) -> tensor<1x1x128x16xbf16>
  func.return %y : tensor<1x1x128x16xbf16>
}"""

SEEDS = range(6)
LATE = range(0, 90, 3)
"""Orders in which asynchronous ops are as late as can be (``at_random``)."""


@pytest.fixture(scope="module")
def attention() -> tuple[KernelOp, WarpKernelOp]:
    """Two sub-tiles of queries, six blocks of keys: as FlashAttention-3 has it."""
    (kernel,) = kernels(ATTENTION, "BM=64,BN=64")
    warp, _, schedule = scheduled(kernel, "sm_90a", 2)
    assert [group.name for group in schedule.groups] == ["load", "consumer.0", "consumer.1"]
    return kernel, warp


def outcome(kernel: KernelOp, warp: WarpKernelOp, seeds: Iterable[int] = SEEDS) -> str:
    """``same``, or what went wrong with the first seed that shows something."""
    expected = results(kernel, [])
    for seed in seeds:
        try:
            found = results(warp, [], at_random(seed))
        except ForgeError as failure:
            return failure.code or ""
        if not is_same(found, expected):
            return "poison" if any(each.isnan().any() for each in found) else "wrong"
    return "same"


Change = Callable[[Operation], None]


def without_tokens(op: Operation) -> None:
    """A put or a freeing that does not wait for the asynchronous op."""
    op.operands = [operand for operand in op.operands if operand not in op.after]  # type: ignore[attr-defined] - of ops with tokens


def of_the_next(op: Operation) -> None:
    """Another iteration's slot."""
    index = IndexOp(symbol("p0") + 1, [op.operands[1]])
    assert op.parent is not None
    op.parent.insert_op_before(index, op)
    op.operands[1] = index.result


def erased(op: Operation) -> None:
    """Not there."""
    op.detach()
    op.erase()


def each(warp: WarpKernelOp, kind: type[Operation], change: Change) -> list[WarpKernelOp]:
    """The kernel with one op of a kind changed, once for each of them."""
    count = sum(isinstance(op, kind) for op in warp.walk())
    found = []
    for number in range(count):
        broken = warp.clone()
        change([op for op in broken.walk() if isinstance(op, kind)][number])
        found.append(broken)
    return found


def found(kernel: KernelOp, broken: list[WarpKernelOp], seeds: Iterable[int] = SEEDS) -> Counter[str]:
    """What becomes of them."""
    return Counter(outcome(kernel, each, seeds) for each in broken)


def test_the_lowering_itself_does_the_same(attention: tuple[KernelOp, WarpKernelOp]) -> None:
    assert outcome(*attention) == "same"


def test_a_dropped_wait_shows(attention: tuple[KernelOp, WarpKernelOp]) -> None:
    outcomes = found(attention[0], each(attention[1], WaitOp, erased), LATE)
    assert set(outcomes) <= {"poison", "same"}
    # Products of a group are done in their order: waiting for a later one is waiting for those before it.
    assert outcomes["poison"] >= 4 * outcomes["same"] > 0


def test_a_slot_that_is_full_too_early_shows(attention: tuple[KernelOp, WarpKernelOp]) -> None:
    outcomes = found(attention[0], each(attention[1], PutOp, without_tokens))
    # A put that waits long for its slot finds the copy done in most orders.
    assert set(outcomes) <= {"poison", "same"}
    assert outcomes["poison"] >= 3 * outcomes["same"]


def test_a_slot_that_is_freed_too_early_shows(attention: tuple[KernelOp, WarpKernelOp]) -> None:
    outcomes = found(attention[0], each(attention[1], ConsumedOp, without_tokens))
    assert set(outcomes) <= {"poison", "wrong"}


def test_what_is_never_put_is_waited_for(attention: tuple[KernelOp, WarpKernelOp]) -> None:
    outcomes = found(attention[0], each(attention[1], PutOp, erased))
    # Where the slot comes round again before anybody waits, the next put finds that it is not its turn.
    assert set(outcomes) <= {"FORGE-X002", "FORGE-X001"}
    assert outcomes["FORGE-X002"] > 0


def test_what_is_never_freed_is_waited_for_or_found_at_the_end(attention: tuple[KernelOp, WarpKernelOp]) -> None:
    outcomes = found(attention[0], each(attention[1], ConsumedOp, erased))
    # Nothing waits for the slots of the last iterations, which are still full when all groups have ended.
    assert outcomes["FORGE-X002"] > outcomes["FORGE-X001"]
    assert set(outcomes) == {"FORGE-X002", "FORGE-X001"}


@pytest.mark.parametrize("kind", [PutOp, GetOp, ConsumedOp])
def test_another_iterations_slot_shows(attention: tuple[KernelOp, WarpKernelOp], kind: type[Operation]) -> None:
    outcomes = found(attention[0], each(attention[1], kind, of_the_next))
    assert outcomes.total() > 0
    assert "same" not in outcomes


def test_fewer_slots_are_never_wrong(attention: tuple[KernelOp, WarpKernelOp]) -> None:
    def fewer(op: Operation) -> None:
        assert isinstance(op, CreateOp)
        assert op.depth.data > 1
        op.depth = IntAttr(op.depth.data - 1)

    outcomes = found(attention[0], each(attention[1], CreateOp, fewer))
    assert set(outcomes) <= {"same", "FORGE-X002"}

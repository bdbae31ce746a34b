"""Tile kernels become groups of warps by an optimal schedule of their loop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects import scf
from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass
from xdsl.rewriter import Rewriter

from forgec.diagnostics import ForgeError, error
from forgec.ir.tile.kernel import KernelOp
from forgec.ir.warp.kernel import KernelOp as WarpKernelOp
from forgec.passes import remarks
from forgec.passes.patterns import missed
from forgec.passes.schedule.body import bounding, loops_around, loops_of
from forgec.passes.schedule.branches import without_branches
from forgec.passes.schedule.extract import MOST_PARTS, Extracted, phases
from forgec.passes.schedule.flow import refusal
from forgec.passes.schedule.lower import lower
from forgec.schedule import machine
from forgec.schedule.machine import Machine
from forgec.schedule.schedule import Schedule
from forgec.schedule.store import solve

DECLINED = ("FORGE-S001", "FORGE-S002", "FORGE-S020", "FORGE-U010")
"""Why a kernel stays as it is: there is no schedule (in time), it cannot be carried out, there is no graph."""


@dataclass(frozen=True)
class ScheduleKernel(ModulePass):
    """Solve when each op of a kernel's loop runs and on which group of warps, and write the kernel so.

    Before::

        tile.kernel @linear(%x: …, %w: …, %y: …) writes [2] … bound {BM = 64, BN = 64, BK = 64} {
          …
          %sum = scf.for %k = %0 to %4096 step %64 iter_args(%acc = %zero) -> (tensor<64x64xf32>) {
            %a = tile.load %x[%m, %k] : … -> tensor<64x64xbf16>
            %b = tile.load %w[%n, %k] : … -> tensor<64x64xbf16>
            %c = tile.dot %a, %b into %acc transposed : …
            scf.yield %c : tensor<64x64xf32>
          }
          …

    After::

        warp.kernel @linear(%x: …, %w: …, %y: …) writes [2] … schedule #warp.schedule<ii = 1024, …> {
          %a_ring = aref.create depth 3 in "shared" : !aref.ring<tensor<64x64xbf16>>
          %b_ring = aref.create depth 3 in "shared" : !aref.ring<tensor<64x64xbf16>>
          warp.group "load" warps 1 registers 24 {
            scf.for %step = %0 to %64 step %1 {
              %a, %t = warp.async_load %x[%m, %k] in "shared" : … -> tensor<64x64xbf16>
              aref.put %a_ring[%step], %a after %t : !aref.ring<tensor<64x64xbf16>>
              …
          warp.group "mma" warps 4 registers 64 {
            …
              %l = aref.get %a_ring[%step] : !aref.ring<tensor<64x64xbf16>>
              %r = aref.get %b_ring[%step] : !aref.ring<tensor<64x64xbf16>>
              %c, %u = warp.mma %l, %r into %acc transposed : …
              aref.consumed %a_ring[%step] after %u : !aref.ring<tensor<64x64xbf16>>
              …

    ``parts`` neighbouring programs become one, which loads once what they share; 0 takes what costs least, or one
    where several cannot be carried out. The innermost loops of a kernel are phases of one schedule; where they cannot
    be, that with the most cycles is scheduled. Loops around them are run by each group that has something to do there.
    Loops that only compute how often others run are computed before the groups. Schedules are looked up among those
    that come with the package and those in the cache folder before they are solved. A kernel without a loop of tiles,
    or whose loop has no schedule on the machine, stays as it is, with a remark, as does one that the schedule cannot be
    carried out on.

    Requires: bound kernels (``bind-tiles``). Ensures: launches fit the kernels as before, and results are the same.

    Order: after ``bind-tiles``, last among the passes on kernels: no other knows groups.
    """

    name = "schedule-kernel"

    target: str = "sm_90a"
    parts: int = 0
    limit: float = 60.0

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        if self.parts < 0 or self.limit <= 0:
            raise error("FORGE-P002", "parts of schedule-kernel are a number from 0 on, and its limit is above 0")
        target = machine.named(self.target)
        for kernel in [each for each in op.ops if isinstance(each, KernelOp)]:
            if not loops_of(kernel):
                continue
            try:
                found = self._lowered(kernel, target)
            except ForgeError as failure:
                if not _is_declined(failure):
                    raise
                reasons = "; ".join(diagnostic.message for diagnostic in failure.diagnostics)
                missed(kernel, f"{kernel.sym_name.data} is not scheduled for {target.name}", reasons)
                continue
            Rewriter.replace_op(kernel, found, [])

    def _lowered(self, kernel: KernelOp, target: Machine) -> WarpKernelOp:
        if any(loop.parent_op() is not kernel for loop in loops_of(kernel)):
            kernel = without_branches(kernel)
        inner = bounding(kernel)
        loops = [
            loop
            for loop in loops_of(kernel)
            if (around := loops_around(loop, kernel)) is not None and inner.isdisjoint([loop, *around])
        ]
        if not loops:
            raise refusal(kernel, "its loop is part of a branch", loops_of(kernel)[0])
        if len(loops) > 1:
            try:
                return self._written(kernel, target, [loops])
            except ForgeError as failure:
                if not _is_declined(failure):
                    raise
        return self._written(kernel, target, [[loop] for loop in loops])

    def _written(self, kernel: KernelOp, target: Machine, choices: Sequence[Sequence[scf.ForOp]]) -> WarpKernelOp:
        """The kernel by the schedule that takes most cycles, of those of several choices of loops. Where what several
        programs do as one cannot be carried out, that of each for itself is.
        """

        def scheduled(parts: int) -> tuple[Sequence[Extracted], Schedule]:
            found = [self._solved(kernel, target, loops, parts) for loops in choices]
            return max(found, key=lambda each: sum(phase.ii * phase.graph.trips for phase in each[1].phases))

        extracted, schedule = scheduled(self.parts)
        try:
            return lower(kernel, extracted, schedule, target)
        except ForgeError as failure:
            if self.parts or extracted[0].parts == 1 or failure.code != "FORGE-S020":
                raise
        return lower(kernel, *scheduled(1), target)

    def _solved(
        self, kernel: KernelOp, target: Machine, loops: Sequence[scf.ForOp], parts: int
    ) -> tuple[Sequence[Extracted], Schedule]:
        choices = [phases(kernel, target, parts=parts or 1, loops=loops)]
        if not parts:
            choices += [each for more in range(2, MOST_PARTS + 1) if (each := _divided(kernel, target, loops, more))]
        answer = solve([[each.graph for each in choice] for choice in choices], target, limit=self.limit)
        for remark in answer.remarks:
            remarks.emit(remark)
        schedule = answer.schedules[0]
        graphs = [phase.graph for phase in schedule.phases]
        return next(choice for choice in choices if [each.graph for each in choice] == graphs), schedule


def _is_declined(failure: ForgeError) -> bool:
    return all(diagnostic.code in DECLINED for diagnostic in failure.diagnostics)


def _divided(kernel: KernelOp, target: Machine, loops: Sequence[scf.ForOp], parts: int) -> list[Extracted] | None:
    """The graphs for several parts; None for a kernel that cannot be divided so."""
    try:
        return phases(kernel, target, parts=parts, loops=loops)
    except ForgeError as failure:
        if failure.code != "FORGE-U010":
            raise
        return None

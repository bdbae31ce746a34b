"""Dependence graphs of the loops of kernels, for people and for the scheduler."""

from __future__ import annotations

import json
from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects.builtin import ArrayAttr, ModuleOp, StringAttr
from xdsl.passes import ModulePass

from forgec.diagnostics import ForgeError
from forgec.ir.tile.kernel import KernelOp
from forgec.passes.patterns import missed

ATTRIBUTE = "schedule_graphs"


@dataclass(frozen=True)
class ExtractScheduleGraph(ModulePass):
    """Attach to each kernel the dependence graphs of its loops, as JSON.

    Before::

        tile.kernel @linear(…) … bound {BM = 128, BN = 128, BK = 64} {
          …
          %r = scf.for %k = %0 to %n step %bk iter_args(%acc = %zero) -> (tensor<128x128xf32>) {
            %a = tile.load %x[%m, %k] …
            %b = tile.load %w[%n, %k] …
            %d = tile.dot %a, %b into %acc transposed …
            scf.yield %d : tensor<128x128xf32>
          }

    After::

        tile.kernel @linear(…) … attributes {schedule_graphs = ["{… \\"ops\\": [{\\"name\\": \\"load_x\\", …}, …],
            \\"values\\": [{\\"name\\": \\"d\\", \\"producer\\": \\"dot\\", \\"memory\\": \\"register\\", …}]}"]} {
          …

    There is one string for each innermost loop of tiles, in the order in which they run: a graph as `forgec.schedule`
    reads it from files. ``target`` is a machine's name or file, ``parts`` the number of neighbouring programs that
    become one. A kernel without such a loop is left alone; so is, with a remark, one that the machine has no
    instructions for, or that cannot be divided into the parts. docs/scheduling.md says how ops are gathered.

    Requires: bound kernels. Ensures: nothing but an attribute of kernels changes.

    Order: after ``bind-tiles``.
    """

    name = "extract-schedule-graph"

    target: str = "sm_90a"
    parts: int = 1

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        from forgec.passes.schedule.body import loops_of
        from forgec.passes.schedule.extract import phases
        from forgec.schedule import files, machine

        model = machine.named(self.target)
        for kernel in op.ops:
            if not isinstance(kernel, KernelOp) or not loops_of(kernel):
                continue
            try:
                found = phases(kernel, model, parts=self.parts)
            except ForgeError as reason:
                (first, *_) = reason.diagnostics
                missed(kernel, f"{kernel.sym_name.data} has no graph: {first.message}", *first.notes)
                continue
            texts = [json.dumps(files.to_values(each.graph)) for each in found]
            kernel.attributes[ATTRIBUTE] = ArrayAttr([StringAttr(text) for text in texts])

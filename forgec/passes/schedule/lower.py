"""From a tile kernel and a schedule of its loops to groups of warps.

What stands outside of the scheduled loops is divided among the groups as they need it (``division.py``). Numbers and
views that are the same for all turns of all loops are computed once (``frame.py``). Tiles from before a loop are
computed (or copied) in each group that reads them. What comes after it is done in the group that has the result which
it takes most of; a result that another group has comes through a channel of its own.

**Several loops.** A group runs them one after the other: it empties the pipeline of one before it fills that of the
next. Groups do not wait for each other in between, so that the one that loads is ahead into the next loop while others
are still busy with this one. That nothing waits for ever holds loop by loop: each frees all that it puts, and waits for
nothing of a later one.

**Loops around loops.** Each group that has something to do in an outer loop runs it (``group_body.py``), with those of
the carried values that it needs, and computes there by itself how often the inner loops run. Numbers in channels go on
from turn to turn (``counts.py``).
"""

from __future__ import annotations

from collections.abc import Sequence

from xdsl.ir import SSAValue

from forgec.ir.tile.kernel import KernelOp
from forgec.ir.warp.channels import CreateOp
from forgec.ir.warp.kernel import KernelOp as WarpKernelOp
from forgec.passes.schedule.division import Division, Exit
from forgec.passes.schedule.extract import Extracted
from forgec.passes.schedule.flow import Flow, refusal
from forgec.passes.schedule.frame import Frame
from forgec.passes.schedule.group_body import GroupBody
from forgec.passes.schedule.memory import homes
from forgec.passes.schedule.nest import Nest
from forgec.schedule.machine import Machine
from forgec.schedule.schedule import Schedule


def lower(
    kernel: KernelOp, extracted: Extracted | Sequence[Extracted], schedule: Schedule, machine: Machine
) -> WarpKernelOp:
    """The kernel as the schedule says, of the same name, not yet in any module.

    Args:
        kernel: the kernel.
        extracted: the graph of each phase, in the order in which the kernel runs them.
        schedule: of these graphs.
        machine: what it is for.

    Raises:
        ForgeError: FORGE-S020, where the schedule does not say all that it takes: a value that crosses groups and has
            no buffers; a loop in a branch; memory that the kernel reads and writes; a loop that begins elsewhere for
            each part.
    """
    loops = [extracted] if isinstance(extracted, Extracted) else list(extracted)
    if len(schedule.phases) != len(loops):
        raise refusal(kernel, f"it has {len(schedule.phases)} phases for {len(loops)} loops")
    flows = [Flow(kernel, each, schedule, number) for number, each in enumerate(loops)]
    nest = Nest(flows)
    owned = homes(nest)
    frame, division = Frame(nest), Division(nest, owned)
    finals: dict[Exit, SSAValue] = {}
    for (carried, part), (_, takers) in division.handed.items():
        op = CreateOp(carried.type, 1, len(takers), "shared")
        frame.ring(op, f"last_{carried.name_hint or carried.index}" + ("" if part is None else f"_{part}"))
        finals[carried, part] = op.ring
    groups = [GroupBody(frame, division, finals, number).write() for number in range(len(schedule.groups))]
    return frame.finished(groups, finals.values(), machine)

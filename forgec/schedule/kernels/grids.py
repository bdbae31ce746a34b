"""The grids of kernels by name: which tiles there are, what each takes and reads, for the order of tiles."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil

from forgec.schedule.grid import Grid
from forgec.schedule.kernels import RECIPES
from forgec.schedule.kernels.problem import BYTES
from forgec.schedule.machine import Machine
from forgec.schedule.persistent import Persistent, Placed

PRODUCTS = ("gemm", "gemm-epilogue", "rms-norm-gemm")
ATTENTION = ("attention-fwd", "attention-fwd-causal")


def tile_grid(
    name: str, schedule: Persistent, machine: Machine, shape: Mapping[str, int] | None = None, dtype: str = "bf16"
) -> Grid | None:
    """The grid of a kernel at the tile and with the cycles of its persistent schedule.

    Of a product, rows and columns are blocks of A and of B, and a tile that is done in parts adds up sums of float32.
    Of an attention, rows are heads, whose keys and values are read by all blocks of queries, the columns. None for
    kernels whose tiles do not share operands by rows and columns: those of a grouped product only do within an expert.

    Args:
        name: of the kernel.
        schedule: what was solved for it.
        machine: what it runs on.
        shape: sizes of the problem by key, as of ``kernels.named``.
        dtype: of operands and output.
    """
    sizes = {**RECIPES[name].sizes, **(shape or {})}
    tile, each = schedule.placed[0].phases[0].graph.tile, BYTES[dtype]
    cycles = ceil(schedule.cycles_per_tile)
    if name in PRODUCTS:
        tall, wide = tile["BM"], tile["BN"]
        own = tall * wide * each * (2 if name == "gemm-epilogue" else 1)  # the residual is read where it is stored
        return Grid(
            rows=-(-sizes["m"] // tall),
            columns=-(-sizes["n"] // wide),
            cycles=(cycles,),
            row_bytes=tall * sizes["k"] * each,
            column_bytes=wide * sizes["k"] * each,
            tile_bytes=own,
            split_cycles=ceil(2 * tall * wide * 4 / machine.memory_bytes_per_cycle),
        )
    if name in ATTENTION:
        tall, seq = tile["BM"], sizes["seq"]
        blocks = -(-seq // tall)
        causal = name == "attention-fwd-causal"
        return Grid(
            rows=sizes["batch"] * sizes["heads"],
            columns=blocks,
            cycles=of_blocks(schedule.placed[0], cycles, blocks, seq) if causal else (cycles,),
            row_bytes=2 * seq * sizes["head"] * each,
            column_bytes=0,
            tile_bytes=2 * tall * sizes["head"] * each,
        )
    return None


def of_blocks(placed: Placed, cycles: int, blocks: int, seq: int) -> tuple[int, ...]:
    """Cycles of each block of queries of a causal attention: later ones see more keys.

    The schedule is one of the average block; what it takes beside the intervals of its loops, every block takes.
    """
    whole, masked = placed.phases
    tall, keys = whole.graph.tile["BM"], whole.graph.tile["BN"]
    beside = max(cycles - sum(phase.ii * phase.graph.trips for phase in placed.phases), 0)
    found: list[int] = []
    for block in range(blocks):
        seen = (block * tall + 1) // keys
        total = -(-min((block + 1) * tall, seq) // keys)
        found.append(beside + seen * whole.ii + (total - seen) * masked.ii)
    return tuple(found)

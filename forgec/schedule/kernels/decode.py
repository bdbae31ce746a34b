"""Attention of few queries over a long cache of keys: bound by main memory, and split over the keys.

All queries that share a head of keys are the rows of one product, which they do not fill. A program has one head of
keys and a share of its positions; the parts of a program have shares of their own (each copies keys and values of its
own, with the same queries), and what the parts and programs found is put together afterwards, outside of the loop.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from forgec.diagnostics import error
from forgec.schedule.graph import Graph
from forgec.schedule.kernels.attention import Block, one_block
from forgec.schedule.kernels.problem import Problem

SIZES = {"batch": 16, "heads": 32, "kv_heads": 8, "head": 128, "queries": 1, "seq": 8192}
"""``queries``: of each sequence (more than one where several tokens are tried at once); ``seq``: keys of each."""
FILLING = 2
"""Iterations' worth of time that each program takes beside its iterations: its pipeline fills and drains."""


def decode(problem: Problem) -> list[tuple[Graph, ...]]:
    """The loop over a program's share of the keys, at each tile.

    Raises:
        ForgeError: FORGE-U010, where heads of queries are no multiple of those of keys, or one product has fewer rows
            than there are queries for a head of keys.
    """
    sizes, rows = problem.sizes, problem.mma.rows
    if sizes["heads"] % sizes["kv_heads"]:
        raise error("FORGE-U010", f"{sizes['heads']} heads of queries do not share {sizes['kv_heads']} of keys evenly")
    queries = sizes["queries"] * sizes["heads"] // sizes["kv_heads"]
    if queries > rows:
        raise error(
            "FORGE-U010",
            f"{queries} queries for each head of keys are more than the {rows} rows of one product",
            notes=("attention-fwd is made for many queries",),
        )
    found: list[tuple[Graph, ...]] = []
    for parts in (1, 2, 3):
        for keys in problem.columns(max(problem.mma.depth, 32)):
            if keys % problem.mma.depth:
                continue
            graph = one_block(problem, Block(parts, rows, keys, own=True), sharers=1)
            heads = sizes["batch"] * sizes["kv_heads"]
            splits = splits_of(heads, -(-sizes["seq"] // (parts * keys)), problem.machine.multiprocessors)
            trips = -(-sizes["seq"] // (parts * keys * splits))
            filled = problem.filling(heads * splits) * Fraction(sizes["seq"], trips * parts * keys * splits)
            filled *= Fraction(trips, trips + FILLING)
            work = Fraction(2 * parts * queries * keys * sizes["head"]) * filled
            found.append((replace(graph, work=work, trips=trips, tile={**graph.tile, "splits": splits}),))
    return found


def splits_of(heads: int, blocks: int, multiprocessors: int) -> int:
    """Into how many programs each head's blocks are split, so that the last is done the earliest; the fewest such."""

    def rounds(splits: int) -> int:
        return -(-heads * splits // multiprocessors) * (-(-blocks // splits) + FILLING)

    return min(range(1, min(blocks, 2 * multiprocessors) + 1), key=lambda splits: (rounds(splits), splits))

"""Attention forward: the loop over blocks of keys (Dao 2023, algorithm 1; in the log2 domain).

One iteration multiplies the queries of each part (sub-tile of rows) with a block of keys, takes maximum, exponentials
and sums, rescales the output so far, and adds the product with the block of values.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction

from forgec.schedule.graph import Dependence, Graph, Op, Read
from forgec.schedule.kernels.loop import Brought, Loop
from forgec.schedule.kernels.problem import Problem

SIZES = {"batch": 1, "heads": 32, "head": 128, "seq": 8192}
"""``head`` is the head dimension, ``seq`` the number of queries and of keys."""


@dataclass(frozen=True)
class Block:
    """What one iteration works on: ``rows`` queries of each of ``parts``, and ``keys``.

    ``own``: each part has keys and values of its own (a share of all keys), rather than queries of its own.
    """

    parts: int
    rows: int
    keys: int
    own: bool = False


def forward(problem: Problem) -> list[tuple[Graph, ...]]:
    """The loop over all keys, at each tile."""
    seq = problem.sizes["seq"]
    found: list[tuple[Graph, ...]] = []
    for block in blocks(problem):
        programs = problem.sizes["batch"] * problem.sizes["heads"] * -(-seq // (block.parts * block.rows))
        graph = one_block(problem, block, sharers=-(-seq // (block.parts * block.rows)))
        trips = -(-seq // block.keys)
        filled = problem.filling(programs) * Fraction(seq, trips * block.keys)
        found.append((replace(graph, work=graph.work * filled, trips=trips),))
    return found


def causal(problem: Problem) -> list[tuple[Graph, ...]]:
    """Two loops at each tile: blocks that every query sees, then those on the diagonal, which are masked.

    Trips are those of a tile of queries on the average; the work is what remains after the mask.
    """
    seq = problem.sizes["seq"]
    found: list[tuple[Graph, ...]] = []
    for block in blocks(problem):
        tall = block.parts * block.rows
        count = -(-seq // tall)
        whole = total = 0
        for tile in range(count):
            whole += (tile * tall + 1) // block.keys
            total += -(-min((tile + 1) * tall, seq) // block.keys)
        full = one_block(problem, block, sharers=count)
        masked = one_block(problem, block, masked=True, sharers=count)
        trips = max(round(Fraction(whole, count)), 1), max(round(Fraction(total - whole, count)), 1)
        # The share of all multiply-adds that is not masked; that trips are rounded does not change it.
        useful = Fraction(seq * (seq + 1), 2 * total * tall * block.keys)
        filled = problem.filling(problem.sizes["batch"] * problem.sizes["heads"] * count)
        work = full.work * useful * filled
        found.append((replace(full, work=work, trips=trips[0]), replace(masked, work=work, trips=trips[1])))
    return found


def blocks(problem: Problem) -> Iterator[Block]:
    """What the machine's products allow: keys are columns of the first product and depth of the second."""
    rows = problem.row_choices if problem.shares_copies else problem.row_choices[:1]
    for each in rows:
        for parts in (1, 2, 3):
            for keys in problem.columns(max(problem.mma.depth, 16)):
                if keys >= 32 and keys % problem.mma.depth == 0:
                    yield Block(parts, each, keys)


def one_block(problem: Problem, block: Block, *, masked: bool = False, sharers: int) -> Graph:
    """The loop at one tile.

    Args:
        problem: the kernel.
        block: the tile.
        masked: whether positions are compared and scores replaced.
        sharers: how many programs read the same keys at the same time.
    """
    head = problem.multiple("head", problem.mma.depth)
    loop = Loop(problem, block.parts)
    sides = range(block.parts) if block.own else [None]
    brought = [
        (
            loop.bring("k", (block.keys, head), part=side, sharers=sharers),
            loop.bring("v", (block.keys, head), part=side, sharers=sharers),
        )
        for side in sides
    ]
    write = in_register_file if problem.sums == "register" else in_tensor
    for part in range(block.parts):
        k, v = brought[part if block.own else 0]
        write(loop, block, head, part, k, v, masked)
    sets = block.parts if block.own else 1
    traffic = sets * 2 * block.keys * head * problem.bytes_each
    rows = block.rows * (1 if block.own else block.parts)
    return loop.graph(
        f"{problem.name} d{head} {problem.dtype}" + (" masked" if masked else ""),
        work=Fraction(2 * block.parts * block.rows * block.keys * head),
        tile={
            "BM": rows,
            "BN": block.keys,
            ("consumers" if problem.sums == "register" else "parts"): block.parts,
        },
        shared=rows * head * problem.bytes_each,
        traffic=traffic,
    )


@dataclass(frozen=True)
class Softmax:
    """The ops that turn a part's scores into weights, and sum these up; ``mask`` where positions are compared."""

    mask: Op | None
    top: Op
    exp: Op
    total: Op

    @staticmethod
    def of(loop: Loop, block: Block, part: int, masked: bool) -> Softmax:
        """Added to a loop."""
        shape, items = (block.rows, block.keys), block.rows * block.keys
        # A mask compares positions, and replaces the scores of keys that a query does not see.
        mask = loop.op("mask", "softmax", {"arithmetic": 2 * items}, shape, part) if masked else None
        top = loop.op("max", "softmax", {"arithmetic": items}, shape, part)
        exp = loop.op("exp", "softmax", {"exp2": items}, shape, part)
        return Softmax(mask, top, exp, loop.op("sum", "softmax", {"arithmetic": items * 3 // 2}, shape, part))

    def take(self, loop: Loop, name: str, source: Op, size: int) -> None:
        """Scores of ``size`` bytes in registers, which ``source`` leaves as ``name``.

        Exponentials take their place, and are converted as they are summed up.
        """
        reads = Read(self.top.name, self.top.issue), Read(self.exp.name, 0)
        if self.mask is None:
            loop.value(name, source, "register", size, *reads)
        else:
            loop.value(name, source, "register", size, Read(self.mask.name, 0))
            loop.value("s_masked", self.mask, "register", size, *reads)
        loop.value("e", self.exp, "register", size, Read(self.total.name, 0))


def in_register_file(loop: Loop, block: Block, head: int, part: int, k: Brought, v: Brought, masked: bool) -> None:
    """The ops of a part where products leave their sums in registers."""
    problem, rows, keys = loop.problem, block.rows, block.keys
    scores_bytes, output_bytes = rows * keys * 4, rows * head * 4
    qk = loop.op("qk", "mma", problem.multiply(rows, keys, head), (rows, keys, head), part)
    softmax = Softmax.of(loop, block, part, masked)
    top, exp, total = softmax.top, softmax.exp, softmax.total
    rescale = loop.op("rescale", "correction", {"arithmetic": rows * head}, (rows, head), part)
    pv = loop.op("pv", "mma", problem.multiply(rows, head, keys, "register"), (rows, head, keys), part)
    k.read_by(qk)
    v.read_by(pv)
    softmax.take(loop, "s", qk, scores_bytes)
    loop.value("p", total, "register", rows * keys * problem.bytes_each, Read(pv.name, pv.latency))
    loop.value(
        "m",
        top,
        "register",
        rows * 4,
        Read(exp.name, exp.issue),
        Read(rescale.name, rescale.issue),
        Read(top.name, 0, 1),
    )
    loop.value("o", pv, "register", output_bytes, Read(rescale.name, 0, 1))
    loop.value("o_scaled", rescale, "register", output_bytes, Read(pv.name, 0))
    loop.dependences.append(Dependence(total.name, total.name, total.latency, 1))


def in_tensor(loop: Loop, block: Block, head: int, part: int, k: Brought, v: Brought, masked: bool) -> None:
    """The ops of a part where products leave their sums in tensor memory (Blackwell; FlashAttention-4).

    Scores go from tensor memory into registers, and come back as weights in their place; the output stays in tensor
    memory, where it is rescaled between two products.
    """
    problem, rows, keys = loop.problem, block.rows, block.keys
    scores_bytes, output_bytes = rows * keys * 4, rows * head * 4
    weights_bytes = rows * keys * problem.bytes_each
    qk = loop.op("qk", "mma", problem.multiply(rows, keys, head), (rows, keys, head), part)
    read = loop.op("read_s", "softmax", {"read_tensor": scores_bytes}, (rows, keys), part)
    softmax = Softmax.of(loop, block, part, masked)
    top, exp, total = softmax.top, softmax.exp, softmax.total
    weights = loop.op("write_p", "softmax", {"write_tensor": weights_bytes}, (rows, keys), part)
    correct = loop.op(
        "correct",
        "correction",
        {"read_tensor": output_bytes, "arithmetic": rows * head, "write_tensor": output_bytes},
        (rows, head),
        part,
    )
    pv = loop.op("pv", "mma", problem.multiply(rows, head, keys, "tensor"), (rows, head, keys), part)
    k.read_by(qk)
    v.read_by(pv)
    # Weights lie where the scores were, until they have been multiplied.
    loop.value("s", qk, "tensor", scores_bytes, Read(read.name, read.latency), Read(pv.name, pv.latency))
    softmax.take(loop, "s_read", read, scores_bytes)
    loop.value("p", total, "register", weights_bytes, Read(weights.name, weights.issue))
    loop.value("p_written", weights, "tensor", 0, Read(pv.name, pv.latency))
    loop.value(
        "m",
        top,
        "register",
        rows * 4,
        Read(exp.name, exp.issue),
        Read(correct.name, correct.issue),
        Read(top.name, 0, 1),
        crossing=True,
    )
    loop.value("l", total, "register", rows * 4, Read(total.name, 0, 1))
    loop.value("o", pv, "tensor", output_bytes, Read(correct.name, 0, 1))
    loop.value("o_corrected", correct, "tensor", 0, Read(pv.name, 0))

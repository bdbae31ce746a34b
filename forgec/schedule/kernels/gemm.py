"""Matrix products C[M, N] = A[M, K] B[N, K]^T: the loop over K, and loops over columns of what follows it.

The parts of a program have rows of A of their own and share the block of B; sums stay in registers, or in tensor
memory, for the whole loop. What follows (bias, activation, residual) is a loop over blocks of columns of the sums.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction

from forgec.schedule.graph import Graph, Read
from forgec.schedule.kernels.loop import Loop
from forgec.schedule.kernels.problem import Problem

SIZES = {"m": 8192, "n": 8192, "k": 8192}
GROUPED_SIZES = {"experts": 64, "m": 65536, "n": 4096, "k": 4096}
"""``m``: rows of all experts together."""
CHUNK = 64
"""Columns of one iteration of what follows the loop."""


@dataclass(frozen=True)
class Tile:
    """``rows`` of each of ``parts``, ``columns``, and ``depth`` of one step along K."""

    parts: int
    rows: int
    columns: int
    depth: int

    @property
    def tall(self) -> int:
        """Rows of all parts."""
        return self.parts * self.rows


def tiles(problem: Problem) -> Iterator[Tile]:
    """What the machine's products allow. A step along K is a row of shared memory of 64, 128 or 256 bytes."""
    rows = problem.row_choices if problem.sums == "register" else problem.row_choices[:1]
    depths = sorted({max(size // problem.bytes_each, problem.mma.depth) for size in (64, 128, 256)})
    for each in rows:
        for parts in (1, 2, 3, 4):
            for columns in problem.columns(32, problem.sizes["n"]) or problem.columns(problem.mma.column_step):
                for depth in depths:
                    if depth % problem.mma.depth == 0:
                        yield Tile(parts, each, columns, depth)


def plain(problem: Problem) -> list[tuple[Graph, ...]]:
    """The loop over K, at each tile."""
    return [(over_k(problem, tile, share(problem, tile)),) for tile in tiles(problem)]


def with_epilogue(problem: Problem) -> list[tuple[Graph, ...]]:
    """The loop over K, and one over columns that adds bias and residual and takes an activation."""
    found: list[tuple[Graph, ...]] = []
    for tile in tiles(problem):
        if tile.columns % min(CHUNK, tile.columns) == 0:
            loop = over_k(problem, tile, share(problem, tile))
            found.append(joined(loop, over_columns(problem, tile, activation=True, residual=True)))
    return found


def grouped(problem: Problem) -> list[tuple[Graph, ...]]:
    """The loop over K, where each expert has rows and weights of its own."""
    sizes = problem.sizes
    found: list[tuple[Graph, ...]] = []
    for tile in tiles(problem):
        # Experts are taken as equally busy; the last tile of each is not full.
        mine = -(-sizes["m"] // sizes["experts"])
        down, across = -(-mine // tile.tall), -(-sizes["n"] // tile.columns)
        used = Fraction(sizes["m"] * sizes["n"], sizes["experts"] * down * tile.tall * across * tile.columns)
        used *= problem.filling(sizes["experts"] * down * across)
        found.append((over_k(problem, tile, Share(used, down, across)),))
    return found


@dataclass(frozen=True)
class Share:
    """How a grid of programs uses the machine.

    ``used``: useful multiply-adds over those for which there is time, while the tiles of the last round run and where
    tiles are not full. ``down`` and ``across``: programs that read the same block of B, and of A.
    """

    used: Fraction
    down: int
    across: int


def share(problem: Problem, tile: Tile) -> Share:
    """Of one product."""
    sizes = problem.sizes
    down, across = -(-sizes["m"] // tile.tall), -(-sizes["n"] // tile.columns)
    used = Fraction(sizes["m"] * sizes["n"], down * tile.tall * across * tile.columns) * problem.filling(down * across)
    return Share(used, down, across)


def over_k(problem: Problem, tile: Tile, grid: Share, *, squares: bool = False) -> Graph:
    """The loop over K.

    Args:
        problem: the kernel.
        tile: of one program.
        grid: how many programs read the same.
        squares: whether the squares of A are summed up for each row on the way, for a norm.
    """
    rows, columns, depth = tile.rows, tile.columns, tile.depth
    # Programs that run at the same time share what they read by way of the cache: about a square of them.
    side = max(int(problem.machine.multiprocessors**0.5), 1)
    loop = Loop(problem, tile.parts)
    b = loop.bring("b", (columns, depth), sharers=min(grid.down, side))
    a = [loop.bring("a", (rows, depth), part=part, sharers=min(grid.across, side)) for part in range(tile.parts)]
    for part in range(tile.parts):
        work = problem.multiply(rows, columns, depth, across=True)
        product = loop.op("mma", "mma", work, (rows, columns, depth), part)
        a[part].read_by(product)
        b.read_by(product)
        loop.value("acc", product, problem.sums, rows * columns * 4, Read(product.name, 0, 1))
        if squares:
            block = rows * depth * problem.bytes_each
            total = loop.op("squares", "norm", {"read_shared": block, "arithmetic": rows * depth}, (rows, depth), part)
            a[part].read_by(total)
            loop.value("norm", total, "register", rows * 4, Read(total.name, 0, 1))
    trips = -(-problem.sizes["k"] // depth)
    return loop.graph(
        f"{problem.name} {problem.dtype}",
        work=Fraction(tile.tall * columns * problem.sizes["k"], trips) * grid.used,
        tile={"BM": tile.tall, "BN": columns, "BK": depth, "parts": tile.parts},
        traffic=(tile.tall + columns) * depth * problem.bytes_each,
        trips=trips,
    )


def over_columns(
    problem: Problem, tile: Tile, *, activation: bool = False, residual: bool = False, norm: bool = False
) -> Graph:
    """What follows the loop over K: the sums, a block of columns after another, are changed and stored.

    Args:
        problem: the kernel.
        tile: of one program.
        activation: whether a bias is added, and then an activation taken (one exponential and one reciprocal).
        residual: whether a block of memory is added.
        norm: whether rows are divided by the norm that the loop over K summed up.
    """
    rows, wide = tile.rows, min(CHUNK, tile.columns)
    size = rows * wide * problem.bytes_each
    loop = Loop(problem, tile.parts)
    blocks = [loop.bring("residual", (rows, wide), part=part) for part in range(tile.parts if residual else 0)]
    for part in range(tile.parts):
        # A conversion; bias, two of the activation; residual; scale.
        passes = 1 + 3 * activation + residual + norm
        work = {"arithmetic": rows * wide * passes, "write_shared": size}
        if activation:
            work["exp2"] = 2 * rows * wide
        if residual:
            work["read_shared"] = size
        taken = None
        if problem.sums == "tensor":
            taken = loop.op("read_acc", "epilogue", {"read_tensor": rows * wide * 4}, (rows, wide), part)
        finish = loop.op("finish", "epilogue", work, (rows, wide), part)
        if taken is not None:
            loop.value("sums", taken, "register", rows * wide * 4, Read(finish.name, finish.issue))
        # The sums stay where the products left them.
        last = taken or finish
        loop.value("acc", last, problem.sums, rows * tile.columns * 4, Read(last.name, 0, 1))
        if norm:
            loop.value("norm", finish, "register", rows * 4, Read(finish.name, 0, 1))
        if residual:
            blocks[part].read_by(finish)
        # The role is that of all copies: the group that loads stores as well.
        store = loop.op("store", "load", {"store": size}, (rows, wide), part)
        loop.value("out", finish, "shared", size, Read(store.name, store.latency))
    return loop.graph(
        f"{problem.name} {problem.dtype} epilogue",
        work=Fraction(1),
        tile={"BM": tile.tall, "BN": tile.columns, "BK": tile.depth, "parts": tile.parts},
        shared=tile.columns * 4 if activation else 0,
        traffic=tile.tall * wide * problem.bytes_each * (1 + residual),
        trips=-(-tile.columns // wide),
    )


def joined(loop: Graph, after: Graph) -> tuple[Graph, ...]:
    """Both as phases; all work of a tile is spread evenly over their iterations, since cost is that of all of them."""
    work = loop.work * loop.trips / (loop.trips + after.trips)
    return replace(loop, work=work), replace(after, work=work)


def with_norm(problem: Problem) -> list[tuple[Graph, ...]]:
    """A norm over K before the product, with its weights in B: rows are divided when the sums are complete."""
    found: list[tuple[Graph, ...]] = []
    for tile in tiles(problem):
        loop = over_k(problem, tile, share(problem, tile), squares=True)
        found.append(joined(loop, over_columns(problem, tile, norm=True)))
    return found

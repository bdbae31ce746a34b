"""Kernels whose loops stand in other loops, at random."""

from __future__ import annotations

from random import Random

from forgec.ir.tile.kernel import KernelOp
from tests.ir.build import parse
from tests.passes.schedule.random_loops import IN, TILE, random_body

OUT = "!tile.block<tensor<4x4xf32>>"
WIDE = "!tile.block<tensor<4x256xf32>>"


class RandomNest:
    """The text of a kernel with loops of tiles, at least one of them in another loop, and what stands between them."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.carried = random.randint(1, 2)
        self.loops = 0
        self.stores = 0
        self.names = 0
        self.in_memory = random.random() < 0.4
        """Whether loops write what others write or read."""

    def name(self) -> str:
        """A name that is not taken."""
        self.names += 1
        return f"%t{self.names}"

    def bound(self, turns: list[str], most: int) -> tuple[list[str], str]:
        """Where a loop ends: after a number of iterations, as many as a symbol or an outer loop's turn says."""
        end = self.name()
        choice = self.random.random()
        if choice < 0.3 and turns:
            return [f"{end} = tile.index p0 * 4({turns[-1]}) : (index) -> index"], end
        if choice < 0.5 and turns:  # read from memory, as the rows of an expert are
            view, read, turn = self.name(), self.name(), self.name()
            return [
                f"{view} = tile.view %e[{turns[-1]}] : !tile.block<tensor<4xi32>> to !tile.block<tensor<i32>>",
                f"{read} = tile.load {view}[] : !tile.block<tensor<i32>> -> i32",
                f"{turn} = arith.index_cast {read} : i32 to index",
                f"{end} = tile.index p0 * 4({turn}) : (index) -> index",
            ], end
        count = "n0 * 4" if choice < 0.8 else str(4 * self.random.randint(0, most))
        return [f"{end} = tile.index {count}() : () -> index"], end

    def inner(self, starts: list[str], turns: list[str]) -> tuple[list[str], list[str]]:
        """A loop without loops in it."""
        number, self.loops = self.loops, self.loops + 1
        lines, end = self.bound(turns, 3)
        body, yielded = random_body(self.random, f"l{number}", self.carried, starts, stores=False)
        if turns and self.random.random() < 0.3:
            body.append(f"%l{number}s = tile.load %x0[%zero, %at{turns[-1][2:]}] : {IN} -> {TILE}")
            body.append(f"%l{number}q = arith.addf %l{number}s, {yielded[0]} : {TILE}")
            yielded[0] = f"%l{number}q"
        if self.in_memory and self.random.random() < 0.6:
            if self.random.random() < 0.5:
                body.append(f"%l{number}m = tile.load %z0[%zero, %i] : {WIDE} -> {TILE}")
                body.append(f"%l{number}n = arith.addf %l{number}m, {yielded[-1]} : {TILE}")
                yielded[-1] = f"%l{number}n"
            body.append(f"tile.store {yielded[0]}, %z0[%zero, %i] : {TILE}, {WIDE}")
        return self.loop(f"c{number}_", "%i", lines, end, starts, body, yielded, "%step")

    def loop(
        self,
        carried: str,
        turn: str,
        lines: list[str],
        end: str,
        starts: list[str],
        body: list[str],
        yielded: list[str],
        step: str,
    ) -> tuple[list[str], list[str]]:
        """A loop around a body, and its results."""
        results = [self.name() for _ in starts]
        kinds = ", ".join([TILE] * len(starts))
        initial = ", ".join(f"%{carried}{place} = {start}" for place, start in enumerate(starts))
        head = f"scf.for {turn} = %zero to {end} step {step} iter_args({initial}) -> ({kinds}) {{"
        return [
            *lines,
            f"{', '.join(results)} = {head}",
            *body,
            f"scf.yield {', '.join(yielded)} : {kinds}",
            "}",
        ], results

    def outer(self, starts: list[str], turns: list[str], depth: int) -> tuple[list[str], list[str]]:
        """A loop with loops in it."""
        number, self.loops = self.loops, self.loops + 1
        turn = f"%g{number}"
        end = self.name()
        lines = [f"{end} = tile.index {self.random.choice(('2', '3', 'n1'))}() : () -> index"]
        arguments = [f"%o{number}_{place}" for place in range(self.carried)]
        body = [f"%at{number} = tile.index p0 * 4({turn}) : (index) -> index"]
        inside, ends = self.sequence(arguments, [*turns, turn], depth - 1)
        body += inside
        yielded = [self.random.choice([*ends, *ends, *arguments]) for _ in starts]
        if self.random.random() < 0.4:
            total = self.name()
            body.append(f"{total} = arith.addf {yielded[-1]}, {self.random.choice(arguments)} : {TILE}")
            yielded[-1] = total
        if self.random.random() < 0.5 and self.stores < 2:
            value = self.random.choice([*ends, *arguments])
            body.append(f"tile.store {value}, %z{self.stores}[%zero, %at{number}] : {TILE}, {WIDE}")
            self.stores += 1
        return self.loop(f"o{number}_", turn, lines, end, starts, body, yielded, "%unit")

    def sequence(self, starts: list[str], turns: list[str], depth: int) -> tuple[list[str], list[str]]:
        """Loops one after the other, each of which begins with what those before have made."""
        lines: list[str] = []
        for number in range(self.random.choice((1, 1, 2) if turns else (1, 2))):
            nested = depth > 0 and (self.random.random() < 0.4 or (not turns and not number))
            more, results = self.outer(starts, turns, depth) if nested else self.inner(starts, turns)
            lines += more
            starts = [self.random.choice([*results, result, result]) for result in results]
            if self.random.random() < 0.3:
                scaled = self.name()
                lines.append(f"{scaled} = arith.mulf {starts[0]}, %w : {TILE}")
                starts[0] = scaled
        return lines, starts

    def kernel(self) -> KernelOp:
        """The kernel, of symbols n0 and n1."""
        lines, results = self.sequence([self.random.choice(("%w", "%one")) for _ in range(self.carried)], [], 2)
        outputs = "".join(f", %y{number}: {OUT}" for number in range(self.carried))
        stores = [f"tile.store {value}, %y{place}[%zero, %zero] : {TILE}, {OUT}" for place, value in enumerate(results)]
        text = f"""
tile.kernel @nest(%x0: {IN}, %x1: {IN}, %p: {OUT}, %e: !tile.block<tensor<4xi32>>, %z0: {WIDE}, %z1: {WIDE}{outputs})
    symbols [n0, n1] writes [{", ".join(map(str, range(4, 6 + self.carried)))}] updates [4] grid [1] {{
  %zero = tile.index 0() : () -> index
  %unit = tile.index 1() : () -> index
  %step = tile.index 4() : () -> index
  %f = arith.constant 1.0 : f32
  %e8 = arith.constant 0.125 : f32
  %one = tile.broadcast %f along [] : f32 -> {TILE}
  %eighth = tile.broadcast %e8 along [] : f32 -> {TILE}
  %u = tile.load %p[%zero, %zero] : {OUT} -> {TILE}
  %w = arith.mulf %u, %eighth : {TILE}
  {chr(10).join([*lines, *stores])}
  tile.return
}}"""
        (kernel,) = parse(text.replace("n0 * 4>", "n0 * 4 + 48>")).ops
        assert isinstance(kernel, KernelOp)
        return kernel

"""Reductions and scans of tiles, and checks."""

from __future__ import annotations

from collections.abc import Sequence

from xdsl.ir import Attribute, SSAValue

from forgec.backends.cpu.llvm_types import bits, element_type, i1, i32, i64, is_float, lanes, vector, with_element
from forgec.backends.cpu.nests import loop_nest, ranges_before
from forgec.backends.cpu.places import Place
from forgec.backends.cpu.tiles import ONE_BY_ONE, At, Buffer, Kernel, Tile, counting, lane_axis, lane_count, lanes_below

_LAST = (1 << 63) - 1


def neutral(kind: str, element: Attribute) -> int | float:
    """What changes nothing when it is combined with."""
    if kind in ("add", "or"):
        return 0
    if kind == "mul":
        return 1
    if kind == "and":
        return 1 if element == i1 else -1
    largest = kind in ("min", "argmin")
    if is_float(element):
        return float("inf") if largest else float("-inf")
    width = bits(element)
    if element == i1:
        return int(largest)
    return (1 << (width - 1)) - 1 if largest else -(1 << (width - 1))


CHAINS = 4
"""Vectors that are combined on their own, so that none waits for the one before: an addition takes so many cycles."""


def reduce_tile(
    k: Kernel, kind: str, tile: Tile, axis: int, buffer: Buffer | None, ends: Sequence[Place | None] = ()
) -> SSAValue | None:
    """``tile.reduce`` into a buffer, or to a scalar where ``buffer`` is None (tiles of rank 1). Places of the result
    from ``ends`` on (None: none) are left out.

    Lanes run along the innermost axis, or along another one where the elements of that stand side by side. Along the
    axis that is reduced, several vectors are combined in turn, and in the end with one another; across it, several
    vectors are read from each place.
    """
    k.begin_nest()
    reduction = (_Arg if kind.startswith("arg") else _Combination)(k, kind, tile, axis)
    across = lane_axis(tile.shape)
    if across == axis and not tile.is_contiguous(axis):
        others = [a for a, extent in enumerate(tile.shape) if a != axis and extent > 1 and tile.is_contiguous(a)]
        across = others[-1] if others else across
    count = lane_count(tile.shape[axis], tile.width) if axis == across else 1
    extent = tile.shape[axis]
    chains = CHAINS if axis == across and count > 1 and extent % (count * CHAINS) == 0 else 1
    found: list[SSAValue] = []

    def rows(ats: Sequence[At]) -> None:
        """Places (or lanes of places) of the result: combine the elements along ``axis``."""

        def whole(at: At, place: Place) -> At:
            places = (*at.places[:axis], place, *at.places[axis:])
            if axis == across and count > 1:
                rest = extent % count
                active = None if not rest else lanes_below(k, k.sub(extent, place), count)
                return At(places, axis, count, active)
            own = None if at.axis is None else at.axis + (at.axis >= axis)
            return At(places, own, at.lanes, at.active)

        start = reduction.start(count if axis == across else ats[0].lanes)
        size = len(start)

        def steps(place: Place, acc: list[SSAValue]) -> Sequence[SSAValue]:
            parts = [(at, k.add(place, chain * count)) for at in ats for chain in range(chains)]
            return [
                value
                for number, (at, where) in enumerate(parts)
                for value in reduction.step(acc[number * size : (number + 1) * size], whole(at, where))
            ]

        values = k.loop(0, extent, count * chains, steps, start * chains * len(ats))
        parts = [values[first : first + size] for first in range(0, len(values), size)]
        for number, at in enumerate(ats):
            own = parts[number * chains : (number + 1) * chains]
            while len(own) > 1:
                own = [reduction.join(a, b) for a, b in zip(own[::2], own[1::2], strict=True)]
            result = reduction.finish(own[0], horizontal=axis == across)
            if buffer is None:
                found.append(result)
            else:
                buffer.write(k, result, at)

    if buffer is None:
        rows([At(())])
        return found[0]
    ranges = ranges_before(ends, buffer.shape)
    if axis == across or across is None:
        loop_nest(k, buffer.shape, ONE_BY_ONE, lambda at: rows([at]), ranges)
        return None
    lane = across - (across > axis)
    lanes_ = lane_count(buffer.shape[lane], tile.width)
    if len(buffer.shape) > 1 or buffer.shape[lane] % (lanes_ * CHAINS) or ranges is not None:
        loop_nest(k, buffer.shape, tile.width, lambda at: rows([at]), ranges, axis=lane)
        return None
    k.loop(
        0, buffer.shape[lane], lanes_ * CHAINS,
        lambda place, _: rows([At((k.add(place, n * lanes_),), 0, lanes_) for n in range(CHAINS)]) or (),
    )  # fmt: skip
    return None


class _Combination:
    """What has been combined so far, in each lane."""

    def __init__(self, k: Kernel, kind: str, tile: Tile, axis: int) -> None:
        self.k, self.kind, self.tile, self.axis = k, kind, tile, axis
        self.start_value = neutral(kind, tile.element)

    def start(self, count: int) -> list[SSAValue]:
        kind = self.tile.element if count == 1 else vector(self.tile.element, count)
        return [self.k.e.const(kind, self.start_value)]

    def step(self, acc: list[SSAValue], at: At) -> Sequence[SSAValue]:
        e, value = self.k.e, self.k.read(self.tile, at)
        if at.active is not None and at.axis == self.axis:
            value = e.select(at.active, value, self.start_value)
        return [e.combine(self.kind, acc[0], value)]

    def join(self, a: Sequence[SSAValue], b: Sequence[SSAValue]) -> list[SSAValue]:
        """What two chains have combined, together."""
        return [self.k.e.combine(self.kind, a[0], b[0])]

    def finish(self, acc: list[SSAValue], *, horizontal: bool) -> SSAValue:
        return self.k.e.reduce(self.kind, acc[0]) if horizontal else acc[0]


class _Arg(_Combination):
    """The best element so far and its place, in each lane; of equal ones the first."""

    def start(self, count: int) -> list[SSAValue]:
        (worst,) = super().start(count)
        return [worst, self.k.e.const(with_element(worst.type, i64), _LAST)]

    def better(self, value: SSAValue, place: SSAValue, best: SSAValue, best_place: SSAValue) -> SSAValue:
        e, largest = self.k.e, self.kind == "argmax"
        earlier = e.icmp("slt", place, best_place)
        if is_float(value.type):
            more = e.fcmp("ogt" if largest else "olt", value, best)
            nan, best_nan = e.fcmp("uno", value, value), e.fcmp("uno", best, best)
            more = e.or_(more, e.and_(nan, e.not_(best_nan)))
            same = e.or_(e.fcmp("oeq", value, best), e.and_(nan, best_nan))
        else:
            sign = "u" if element_type(value.type) == i1 else "s"
            more = e.icmp(sign + ("gt" if largest else "lt"), value, best)
            same = e.icmp("eq", value, best)
        return e.or_(more, e.and_(same, earlier))

    def join(self, a: Sequence[SSAValue], b: Sequence[SSAValue]) -> list[SSAValue]:
        return self._take(a, b)

    def _take(self, a: Sequence[SSAValue], b: Sequence[SSAValue]) -> list[SSAValue]:
        better = self.better(b[0], b[1], a[0], a[1])
        return [self.k.e.select(better, new, old) for new, old in zip(b, a, strict=True)]

    def step(self, acc: list[SSAValue], at: At) -> Sequence[SSAValue]:
        e, value = self.k.e, self.k.read(self.tile, at)
        place = counting(self.k, at.places[self.axis], int(at.axis == self.axis), at.lanes)
        if at.active is not None and at.axis == self.axis:
            value, place = e.select(at.active, value, self.start_value), e.select(at.active, place, _LAST)
        return self._take(acc, (value, place))

    def finish(self, acc: list[SSAValue], *, horizontal: bool) -> SSAValue:
        e, count = self.k.e, lanes(acc[0].type)
        while horizontal and count is not None and count > 1:
            count //= 2
            acc = self._take([e.slice(v, 0, count) for v in acc], [e.slice(v, count, count) for v in acc])
        return e.extract(acc[1], 0) if horizontal and count is not None else acc[1]


def scan_tile(k: Kernel, kind: str, tile: Tile, axis: int, buffer: Buffer) -> None:
    """``tile.scan`` into a buffer: within a vector in steps of doubled distance, then on from vector to vector."""
    k.begin_nest()
    across = lane_axis(tile.shape)
    horizontal = axis == across
    count = lane_count(tile.shape[axis], tile.width) if horizontal else 1
    start = neutral(kind, tile.element)
    others = tuple(1 if dim == axis else extent for dim, extent in enumerate(tile.shape))

    def row(at: At) -> None:
        kind_ = tile.element if horizontal or at.lanes == 1 else vector(tile.element, at.lanes)

        def chunk(place: Place, carried: list[SSAValue]) -> Sequence[SSAValue]:
            places = (*at.places[:axis], place, *at.places[axis + 1 :])
            here = At(places, axis, count) if horizontal and count > 1 else At(places, at.axis, at.lanes, at.active)
            value = k.read(tile, _within(k, here, tile.shape))
            if horizontal and count > 1:
                value = _prefixes(k, kind, value, count, start)
                value = k.e.combine(kind, k.e.splat(carried[0], count), value)
                buffer.write(k, value, here)
                return [k.e.extract(value, count - 1)]
            value = k.e.combine(kind, carried[0], value)
            buffer.write(k, value, here)
            return [value]

        k.loop(0, tile.shape[axis], count, chunk, [k.e.const(kind_, start)])

    if horizontal:
        loop_nest(k, others, ONE_BY_ONE, row)
    else:
        loop_nest(k, others, tile.width, row, axis=across)


def _within(k: Kernel, at: At, shape: tuple[int, ...]) -> At:
    """The same place with the lanes after the tile's end left out."""
    if at.axis is None or at.active is not None or shape[at.axis] % at.lanes == 0:
        return at
    return At(at.places, at.axis, at.lanes, lanes_below(k, k.sub(shape[at.axis], at.places[at.axis]), at.lanes))


def _prefixes(k: Kernel, kind: str, value: SSAValue, count: int, start: int | float) -> SSAValue:
    distance = 1
    while distance < count:
        before = k.e.const(value.type, start)
        lanes_ = [lane - distance if lane >= distance else count for lane in range(count)]
        value = k.e.combine(kind, k.e.shuffle(value, lanes_, before), value)
        distance *= 2
    return value


def check_tile(k: Kernel, tile: Tile, number: int) -> None:
    """``tile.check``: leave the kernel with the number unless all elements are true."""
    k.begin_nest()

    def chunk(at: At) -> None:
        wrong = k.e.not_(k.read(tile, at))
        if at.lanes > 1:
            wrong = k.e.any(wrong if at.active is None else k.e.and_(wrong, at.active))
        k.e.return_if(wrong, k.e.const(i32, number))

    loop_nest(k, tile.shape, tile.width, chunk)

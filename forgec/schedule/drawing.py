"""Charts of a schedule as shapes with coordinates in pixels, which the page's template writes as SVG."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from forgec.schedule.machine import Machine
from forgec.schedule.schedule import Phase, Schedule, transfer
from forgec.schedule.timeline import Bar, Channel, Curve, Lane

WIDTH, LEFT, RIGHT, TOP = 1200, 132, 12, 40
"""Of a chart, of the column of names, of the right edge, and of the axis."""
STREAM, FLIGHT, GAP = 24, 13, 10
"""Heights of a row of bars, of a row of what runs by itself, and between lanes."""
LETTER, SMALL = 6.6, 5.4
"""Pixels of a letter of a label, and of a small one."""
HUES = (212, 28, 140, 285, 340, 182, 52, 4, 250, 100)


@dataclass(frozen=True)
class Box:
    """A rectangle with a tooltip, and a label where it fits."""

    x: float
    y: float
    width: float
    height: float
    fill: str
    title: str
    label: str = ""
    style: str = ""
    small: bool = False


@dataclass(frozen=True)
class Text:
    """Text at a point; ``anchor`` as of SVG."""

    x: float
    y: float
    text: str
    anchor: str = "start"
    style: str = ""
    title: str = ""


@dataclass(frozen=True)
class Line:
    """A path of SVG with a tooltip."""

    path: str
    style: str
    title: str = ""


@dataclass
class Drawing:
    """A chart: what is drawn first lies below."""

    width: float
    height: float
    label: str
    lines: list[Line] = field(default_factory=list)
    boxes: list[Box] = field(default_factory=list)
    arrows: list[Line] = field(default_factory=list)
    texts: list[Text] = field(default_factory=list)


def shade(hue: int, step: int, steps: int) -> str:
    """A colour on which dark text reads well; the later the step, the lighter."""
    lightness = 62 + (26 * step // max(steps - 1, 1) if step else 0)
    return f"hsl({hue} 62% {lightness}%)"


def shortened(text: str, pixels: float, letter: float = LETTER) -> str:
    """Text that fits into so many pixels: whole, cut with an ellipsis, or nothing."""
    letters = int((pixels - 3) / letter)
    if len(text) <= letters:
        return text
    return f"{text[: letters - 1]}…" if letters >= 4 else ""


def fitted(text: str, pixels: float, small: bool) -> tuple[str, bool]:
    """Text that fits into so many pixels, and whether in small letters."""
    if small or int((pixels - 3) / LETTER) < len(text):
        return shortened(text, pixels, SMALL), True
    return text, False


def ticks(first: int, last: int, about: int) -> list[int]:
    """Round cycles in the window, about so many."""
    rough = max((last - first) / about, 1)
    power = 10 ** (len(str(int(rough))) - 1)
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
    return list(range(-(-first // step) * step, last + 1, step))


class Gantt:
    """A chart of lanes over a window of cycles."""

    def __init__(self, first: int, last: int, label: str) -> None:
        self.first, self.last = first, last
        self.scale = (WIDTH - LEFT - RIGHT) / (last - first)
        self.drawing = Drawing(WIDTH, TOP, label)
        self.place: dict[str, tuple[float, float]] = {}
        """Of each group's stream: its top and its bottom."""

    def x(self, cycle: float) -> float:
        """The place of a cycle, within the window."""
        return round(LEFT + (min(max(cycle, self.first), self.last) - self.first) * self.scale, 1)

    def lanes(
        self,
        lanes: Sequence[Lane],
        heading: str,
        fill: Callable[[Bar], str],
        title: Callable[[Bar], str],
    ) -> None:
        """Draw lanes below what is there; bars are named by their ops."""
        drawing = self.drawing
        drawing.texts.append(Text(4, drawing.height + 10, heading, style="heading"))
        drawing.height += 18
        for lane in lanes:
            top = drawing.height
            tall = dict.fromkeys(range(lane.rows), STREAM)
            if lane.kind == "group":
                tall.update(dict.fromkeys(range(1, lane.rows), FLIGHT))
                self.place[lane.name] = (top, top + STREAM)
            tops = {row: top + sum(tall[each] for each in range(row)) for row in tall}
            height = sum(tall.values())
            drawing.boxes.append(Box(LEFT, top, WIDTH - LEFT - RIGHT, height, "", "", style="lane"))
            name = shortened(lane.name, LEFT - 8) or lane.name[:3]
            drawing.texts.append(Text(LEFT - 8, top + 16, name, "end", title=lane.name))
            named: set[tuple[str, int]] = set()
            for bar in lane.bars:
                left, right = self.x(bar.start), self.x(bar.end)
                thin = bar.kind == "flight"
                text, small = fitted(bar.op, right - left, thin) if bar.kind in ("use", "issue") else ("", thin)
                if text == bar.op:
                    named.add((bar.op, bar.iteration))
                elif thin and (bar.op, bar.iteration) not in named:
                    text, small = fitted(bar.op, right - left, thin)
                box = Box(
                    x=left,
                    y=tops[bar.row] + (1 if thin else 2),
                    width=round(max(right - left, 0.8), 1),
                    height=tall[bar.row] - (2 if thin else 4),
                    fill=fill(bar),
                    title=title(bar),
                    label=text,
                    style=bar.kind,
                    small=small,
                )
                drawing.boxes.append(box)
            drawing.height += height + GAP

    def axis(self, boundaries: Mapping[int, str]) -> None:
        """Cycles along the top, and lines down at the boundaries, which have names."""
        drawing = self.drawing
        for cycle in ticks(self.first, self.last, 12):
            drawing.lines.append(Line(f"M{self.x(cycle)} {TOP - 10}V{drawing.height:g}", "tick"))
            label = f"{cycle:,}".replace(",", " ").replace("-", "\N{MINUS SIGN}")
            drawing.texts.append(Text(self.x(cycle), TOP - 14, label, "middle", "axis"))
        free = 0.0
        for cycle, name in sorted(boundaries.items()):
            if self.first <= cycle <= self.last:
                drawing.lines.append(Line(f"M{self.x(cycle)} {TOP - 10}V{drawing.height:g}", "boundary"))
                if name:
                    # Names keep clear of each other and of the edge.
                    left = min(max(self.x(cycle), free), WIDTH - RIGHT - LETTER * len(name))
                    drawing.texts.append(Text(round(left, 1), TOP - 28, name, style="boundary"))
                    free = left + LETTER * (len(name) + 2)

    def arrows(self, schedule: Schedule, phase: Phase, machine: Machine, channels: Sequence[Channel]) -> None:
        """Each hand-over whose ends are both in the window: from where the result is there to the reader's start."""
        values = {value.name: value for value in phase.graph.values}
        groups = {name: schedule.groups[number].name for name, number in schedule.group_of.items()}
        for number, channel in enumerate(channels):
            value = values.get(channel.name)
            if value is None:
                continue
            producer = phase.graph.op(value.producer)
            for read in value.reads:
                if groups[read.op] == channel.giver:
                    continue
                done = phase.starts[value.producer] + producer.latency
                start = phase.starts[read.op] + read.distance * phase.ii
                slack = start - done - machine.handover.latency - transfer(machine, value)
                for turn in range((self.first - done) // phase.ii, (self.last - start) // phase.ii + 1):
                    x, to = done + turn * phase.ii, start + turn * phase.ii
                    if x < self.first or to > self.last:
                        continue
                    giver, taker = self.place[channel.giver], self.place[groups[read.op]]
                    down = taker[0] > giver[0]
                    y, end = (giver[1], taker[0]) if down else (giver[0], taker[1])
                    middle = (y + end) / 2
                    left, right = self.x(x), self.x(to)
                    self.drawing.arrows.append(
                        Line(
                            f"M{left} {y:g}C{left} {middle:g} {right} {middle:g} {right} {end:g}",
                            f"aref hue-{number % len(HUES)}",
                            f"{channel.name}: {value.producer} → {read.op}, there at {x}, read at {to}, "
                            f"{slack} cycles to spare, {channel.depth} buffer{'s' * (channel.depth != 1)}",
                        )
                    )


def curve_drawing(curve: Curve, first: int, last: int, boundaries: Sequence[int], width: int = 580) -> Drawing:
    """A curve of steps with a line at its limit, and one at what is reserved."""
    height, left, top, bottom = 130, 12, 10, 24
    most = max(curve.limit, curve.most, curve.reserved, 1)
    drawing = Drawing(width, height, f"{curve.unit} of {curve.name} over time")

    def x(cycle: int) -> float:
        return round(left + (cycle - first) * (width - 2 * left) / (last - first), 1)

    def y(amount: int) -> float:
        return round(height - bottom - amount * (height - top - bottom) / most, 1)

    path = f"M{x(first)} {y(0)}"
    for number, (cycle, amount) in enumerate(curve.points):
        until = curve.points[number + 1][0] if number + 1 < len(curve.points) else last
        path += f"V{y(amount)}H{x(until)}"
        title = f"{amount:,} {curve.unit} from cycle {cycle} to {until}"
        drawing.boxes.append(
            Box(x(cycle), top, max(x(until) - x(cycle), 0.5), height - top - bottom, "", title, style="probe")
        )
    drawing.lines.append(Line(f"{path}V{y(0)}Z", "area"))
    for cycle in boundaries:
        drawing.lines.append(Line(f"M{x(cycle)} {top}V{height - bottom}", "boundary"))
        anchor = "start" if cycle == first else "end" if cycle == last else "middle"
        drawing.texts.append(Text(x(cycle), height - 8, f"{cycle:,}".replace(",", " "), anchor, "axis"))
    drawing.lines.append(
        Line(f"M{left} {y(curve.limit)}H{width - left}", "limit", f"limit: {curve.limit:,} {curve.unit}")
    )
    if curve.reserved:
        drawing.lines.append(
            Line(f"M{left} {y(curve.reserved)}H{width - left}", "reserved", f"buffers: {curve.reserved:,} {curve.unit}")
        )
    return drawing

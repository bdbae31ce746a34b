"""The page of a schedule: whole, self-contained, and safe whatever names there are."""

from __future__ import annotations

from dataclasses import replace
from html.parser import HTMLParser

import pytest

from forgec.schedule.check import check
from forgec.schedule.machine import Machine
from forgec.schedule.page import page
from forgec.schedule.schedule import Phase, Schedule
from forgec.schedule.solve import schedules
from tests.schedule.loops import renamed, ring, solved

VOID = {"meta", "br", "link", "img", "input"}
HOSTILE = "<script>alert('{0}')</script>&\"{0}"


class Parsed(HTMLParser):
    """Tags, attributes and text; that tags are closed in order is asserted."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.texts: list[str] = []
        self.cells: list[str] = []
        self.tooltips: list[str] = []
        self.boxes: list[dict[str, str | None]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag == "rect":
            self.boxes.append(dict(attrs))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)
        if self.open and self.open[-1] == "td":
            self.cells.append(data)
        if self.open and self.open[-1] == "title":
            self.tooltips.append(data)


@pytest.fixture(scope="module")
def best(hopper: Machine) -> list[Schedule]:
    return solved(hopper, 64, 128, k=2)


def self_contained(parsed: Parsed) -> None:
    assert not {"script", "link", "img", "iframe", "object", "embed", "form", "base"} & set(parsed.tags)
    for name, value in parsed.attributes:
        assert name not in ("href", "src", "srcset", "action", "xlink:href")
        assert not name.startswith("on")
        assert "url(" not in (value or "")
    style = "".join(parsed.texts)
    assert "@import" not in style
    assert "url(" not in style


def test_everything_is_there(best: list[Schedule], hopper: Machine) -> None:
    text = page(best, hopper, "ring of tiles")
    parsed = Parsed(text)
    self_contained(parsed)
    phase = best[0].phases[0]
    for op in phase.graph.ops:
        assert op.name in parsed.cells
        assert any(tip.startswith(f"{op.name} ") and "stage" in tip for tip in parsed.tooltips)
    for group in best[0].groups:
        assert group.name in parsed.cells
    assert "tiles" in parsed.cells
    assert any(tip.startswith("tiles: load → dot") for tip in parsed.tooltips)
    whole = "".join(parsed.texts)
    for heading in ("Steady state", "Prologue", "Memory over time", "What binds", "Arefs", "Other tiles", "simulated"):
        assert heading in whole
    assert "2 best schedules" in whole
    assert "http" not in text
    assert "prefers-color-scheme: dark" in text


def test_boxes_lie_within_their_charts(best: list[Schedule], hopper: Machine) -> None:
    parsed = Parsed(page(best, hopper, "ring"))
    widths = [float(box.get("width") or 0) for box in parsed.boxes]
    assert min(widths) > 0
    assert max(float(box.get("x") or 0) + float(box.get("width") or 0) for box in parsed.boxes) <= 1200


def test_hostile_names_are_text(best: list[Schedule], hopper: Machine) -> None:
    schedule = renamed(best[0], HOSTILE.format)
    assert check(schedule, hopper) == []
    text = page([schedule], replace(hopper, title="<b>bold</b>"), HOSTILE.format("title"))
    parsed = Parsed(text)
    self_contained(parsed)
    assert "<b>bold" not in text
    assert "<script" not in text
    assert "<b>bold</b>" in "".join(parsed.texts)
    for op in schedule.phases[0].graph.ops:
        assert op.name in parsed.cells


def test_several_phases_and_what_was_not_proved(hopper: Machine) -> None:
    loops = [replace(ring(hopper, 64, name), trips=trips) for name, trips in (("masked", 3), ("unmasked", 40))]
    both = schedules([loops], hopper)[0]
    stated = both.certificate
    assert stated is not None
    ii = both.phases[-1].ii
    open_ = replace(stated, status="timeout", undecided=(ii - 1,), refuted=(ii - 2,))
    whole = "".join(Parsed(page([replace(both, certificate=open_)], hopper, "two loops")).texts)
    assert "Steady state: masked, 3 iterations" in whole
    assert "Steady state: unmasked, 40 iterations" in whole
    assert "may exist" in whole
    one = solved(hopper, 128)[0]
    single = Parsed(page([replace(one, certificate=open_)], hopper, "one loop"))
    assert f"left {ii - 1} undecided" in "".join(single.texts)
    bare = Parsed(page([replace(one, certificate=None)], hopper, "no certificate"))
    assert "not solved here" in "".join(bare.texts)


def test_without_overlap_there_is_no_prologue(hopper: Machine) -> None:
    one = solved(hopper, 64)[0]
    graph = one.phases[0].graph
    serial = Phase(graph, 2 * one.phases[0].length, one.phases[0].starts)
    assert serial.stages == 1
    schedule = replace(one, phases=(serial,))
    assert check(schedule, hopper) == []
    assert "like all others" in "".join(Parsed(page([schedule], hopper, "serial")).texts)
    assert ring(hopper, 64) == graph

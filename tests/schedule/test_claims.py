"""Each field of a file of schedules: falsified it is refused, or nothing that a checker can know."""

from __future__ import annotations

import copy
import json
from collections import Counter
from dataclasses import fields, replace
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import pytest

from forgec.diagnostics import ForgeError
from forgec.schedule import saved
from forgec.schedule.claims import unproved
from forgec.schedule.graph import Dependence, Graph, Op, Read, Value
from forgec.schedule.machine import Machine, named
from forgec.schedule.schedule import Bound, Certificate, Group, Phase, Schedule
from forgec.schedule.solve import schedules
from tests.schedule.loops import solved
from tests.schedule.small import random_graph, random_machine, roomy_machine

UNIT = 64


def facts() -> Machine:
    """Loads are apart from all else, and hand-overs take time: what no bound knows of."""
    return roomy_machine(isolate="loads", handover=replace(roomy_machine().handover, latency=3 * UNIT))


def loop(name: str, size: int, trips: int, latency: int) -> Graph:
    """Loads that wait for the sum of the iteration before."""
    load = Op("load", "load", UNIT, 4 * UNIT, variable=True, role="load")
    add = Op("add", "add", UNIT, latency * UNIT, role="sum")
    values = (Value("x", "load", "shared", size, (Read("add", UNIT),)),)
    carried = (Dependence("add", "load", latency * UNIT, 1),)
    return Graph(name, (load, add), values, carried, trips=trips, tile={"BN": size})


@cache
def stored(several: bool) -> str:
    """One loop at two tiles, of which the larger costs more; or two loops at one tile."""
    kernels = [[loop("one", 8, 2, 3)], [loop("one", 16, 2, 9)]]
    if several:
        kernels = [[loop("one", 8, 2, 3), loop("two", 8, 5, 4)]]
    return saved.content("loop", schedules(kernels, facts(), k=2), facts()).decode()


def values_of(several: bool) -> Any:
    """What is in the file, each time anew."""
    return json.loads(stored(several))


def falsified(several: bool, path: str, value: Any) -> Any:
    """The file with another value at a place, such as ``certificate.bounds.0`` of the best schedule."""
    values = copy.deepcopy(values_of(several))
    place = values if path.split(".")[0] in ("machine", "kernel", "schedules", "version") else values["schedules"][0]
    *names, last = path.split(".")
    for name in names:
        place = place[int(name) if isinstance(place, list) else name]
    if isinstance(place, list):
        place[int(last)] = value
    else:
        place[last] = value
    return values


def refused(values: Any, folder: Path) -> str:
    """What is said of a file; nothing where all of it is believed."""
    path = folder / "out.json"
    path.write_text(json.dumps(values))
    rows = saved.verdicts(saved.read(path))
    return "; ".join(f"{each.rule}: {each.text}" for row in rows for each in row)


LOOP = "phases.0"
STATED = "certificate"
FALSE: list[tuple[str, Any, str]] = [
    ("machine.name", "other", "it is for machine small"),
    ("machine.handover.latency", 4 * UNIT, "dependences"),
    ("machine.shared_bytes", 7, "memories"),
    ("machine", "other", "no file that --save writes"),
    ("schedules", [], "holds no schedule"),
    ("version", 99, "is of version 99"),
    ("version", "one", "no file that --save writes"),
    (f"{LOOP}.graph.ops.0.latency", 5 * UNIT, "dependences"),
    (f"{LOOP}.graph.ops.0.issue", UNIT + 1, "its times are said to be multiples"),
    (f"{LOOP}.graph.dependences.0.delay", 2 * UNIT, "its slack"),
    (f"{LOOP}.graph.tile", {"BN": 32}, "its own tile"),
    (f"{LOOP}.ii", 12 * UNIT, "dependences"),
    (f"{LOOP}.ii", 14 * UNIT, "its slack"),
    (f"{LOOP}.starts", {"load": 0}, "structure"),
    (f"{LOOP}.starts.add", 0, "dependences"),
    (f"{LOOP}.starts.add", -1, "structure"),
    ("groups.0.name", "load", "2 groups are named load"),
    ("groups.0.warps", 0, "warps"),
    ("groups.0.registers", 1 << 10, "registers"),
    ("groups.0.ops", ["load"], "structure"),
    ("groups.0.kind", "mma", "by its ops it is sum"),
    ("depths.x", 0, "no buffer"),
    ("depths.y", 1, "no value"),
    ("transitions", [0], "1 phases, and transitions"),
    ("slack", 1, "its slack is said to be 1"),
    ("slack", -UNIT, "its slack"),
    ("slack", UNIT, "its slack"),
    (f"{STATED}.bounds", [], "its largest bound"),
    (f"{STATED}.bounds.0.cycles", 6 * UNIT, "its largest bound"),
    (f"{STATED}.bounds.0.cycles", 99 * UNIT, "below the bound"),
    (f"{STATED}.bounds.0.name", "unit tma", "its largest bound"),
    (f"{STATED}.earlier_bounds", [[{"name": "unit tma", "cycles": 1}]], "earlier loops"),
    (f"{STATED}.reduction", [{"name": "unit tma", "cycles": 1}], "reduction"),
    (f"{STATED}.status", "proved", "none of optimal"),
    (f"{STATED}.status", "timeout", "neither intervals nor tiles are undecided"),
    (f"{STATED}.refuted", [], f"the interval {7 * UNIT} is not refuted"),
    (f"{STATED}.refuted", [n * UNIT for n in (7, 8, 9, 11, 12)], f"the interval {10 * UNIT} is not refuted"),
    (f"{STATED}.refuted", [n * UNIT for n in range(7, 14)], f"the interval {13 * UNIT} is said to be refuted"),
    (f"{STATED}.refuted", [n * UNIT for n in (8, 7, 9, 10, 11, 12)], "not in their order"),
    (f"{STATED}.refuted.0", 7 * UNIT + 1, "is said to be refuted"),
    (f"{STATED}.refuted.0", "soon", "no file that --save writes"),
    (f"{STATED}.undecided", [12 * UNIT], "with intervals undecided"),
    (f"{STATED}.refuted_together", [[7 * UNIT]], "no intervals of its 1 loops"),
    (f"{STATED}.undecided_together", [[7 * UNIT]], "no intervals of its 1 loops"),
    (f"{STATED}.least_length", 0, "no less than 0 is proved"),
    (f"{STATED}.least_length", 11 * UNIT, "this schedule has"),
    (f"{STATED}.least_length", -1, "no length below -1"),
    (f"{STATED}.quantum", 0, "multiples of 0 cycles"),
    (f"{STATED}.quantum", 32, f"the solver counts in {UNIT}"),
    (f"{STATED}.quantum", 128, f"the solver counts in {UNIT}"),
    (f"{STATED}.distortion", 0.01, "rounding is said"),
    (f"{STATED}.distortion", float("nan"), "rounding is said"),
    (f"{STATED}.alternatives.0.BN", 24, "its own tile"),
    (f"{STATED}.alternatives.0.fate", "does not fit", "its own tile"),
    (f"{STATED}.alternatives.0.fate", "forgotten", "none of solved"),
    (f"{STATED}.alternatives.0.least_cost", -1.0, "to cost -1.0"),
    (f"{STATED}.alternatives.0.least_cost", "much", "to cost much"),
    (f"{STATED}.alternatives.0.refuted", -1, "-1 intervals"),
    (f"{STATED}.alternatives.1.least_cost", 1.0, "could cost less"),
    (f"{STATED}.solve_seconds", -1.0, "solve_seconds"),
    (f"{STATED}.solve_seconds", float("inf"), "solve_seconds"),
    (f"{STATED}.deterministic_time", float("nan"), "deterministic_time"),
]
FALSE_TOGETHER: list[tuple[str, Any, str]] = [
    ("phases.1.ii", 13 * UNIT, "dependences"),
    ("phases.0.graph.trips", 0, "trips are 1 at the least"),
    ("transitions", [], "2 phases, and transitions"),
    ("transitions", [-UNIT], "structure"),
    ("transitions", [0], "transitions: "),
    ("slack", 1, "its slack"),
    (f"{STATED}.earlier_bounds.0.0.cycles", UNIT, "earlier loops"),
    (f"{STATED}.refuted_together", [], f"({7 * UNIT}, {8 * UNIT}) is not refuted"),
    (f"{STATED}.refuted_together.3", [None, 8 * UNIT], f"({10 * UNIT}, {14 * UNIT}) is not refuted"),
    (f"{STATED}.refuted_together.0", [13 * UNIT, 14 * UNIT], "and this schedule has them"),
    (f"{STATED}.refuted_together.0", [13 * UNIT, None], "and this schedule has them"),
    (f"{STATED}.refuted_together.0", [None, None], "no intervals of its 2 loops"),
    (f"{STATED}.refuted_together.0", [7 * UNIT], "no intervals of its 2 loops"),
    (f"{STATED}.undecided_together", [[7 * UNIT, 8 * UNIT]], "1 interval is undecided"),
    (f"{STATED}.least_length", 20 * UNIT, "and no less than"),
]


def test_the_files_are_believed(tmp_path: Path) -> None:
    for several in (False, True):
        assert refused(values_of(several), tmp_path) == ""
        stated = values_of(several)["schedules"][0][STATED]
        assert stated["refuted_together" if several else "refuted"]
    assert values_of(False)["schedules"][0][STATED]["quantum"] == UNIT


WHOLE = [(False, *row) for row in FALSE] + [(True, *row) for row in FALSE_TOGETHER]


@pytest.mark.parametrize(("several", "path", "value", "says"), WHOLE)
def test_what_is_false_is_refused(several: bool, path: str, value: Any, says: str, tmp_path: Path) -> None:
    try:
        told = refused(falsified(several, path, value), tmp_path)
    except ForgeError as caught:
        told = str(caught)
    assert says in told


CLAIMED: list[tuple[str, Any, str]] = [
    ("kernel", "another title", "a title"),
    ("version", 0, "files from before there were versions"),
    ("machine.title", "another title", "words"),
    (f"{LOOP}.graph.name", "another", "a title"),
    (f"{LOOP}.graph.ops.0.source", "kernel.py:3", "where an op comes from"),
    ("groups.0.name", "another", "any name that no other group has"),
    ("groups.0.warps", 2, "more warps than its ops take are legal"),
    ("groups.0.registers", 4, "another grant is as legal"),
    ("depths.x", 2, "more buffers are legal"),
    ("phases.0.starts", {"load": UNIT, "add": 8 * UNIT}, "what is not the shortest is no longer optimal"),
    (f"{STATED}.status", "feasible", "it says less than it could"),
    (f"{STATED}.alternatives.1.least_cost", 1e6, "of a tile whose graphs are not there"),
    (f"{STATED}.alternatives.1.refuted", 100, "of a tile whose graphs are not there"),
    (f"{STATED}.alternatives.1.fate", "does not fit", "of a tile whose graphs are not there"),
    (f"{STATED}.solve_seconds", 3.0, "time"),
    (f"{STATED}.deterministic_time", 3.0, "time"),
]
"""What a checker cannot know, or what is another legal schedule."""


@pytest.mark.parametrize(("path", "value", "why"), CLAIMED)
def test_what_is_claimed_or_legal_is_believed(path: str, value: Any, why: str, tmp_path: Path) -> None:
    says = "is called optimal, is" if "shortest" in why else ""
    told = refused(falsified(False, path, value), tmp_path)
    assert says in told if says else told == "", why


def test_every_field_of_a_file_is_looked_at() -> None:
    paths = [path for _, path, *_ in WHOLE] + [path for path, *_ in CLAIMED]
    looked = {name for path in paths for name in path.split(".")}
    told = {"persistent", "certificate"}
    for kind in (saved.Saved, Schedule, Phase, Group, Bound, Certificate):
        assert {each.name for each in fields(kind)} - told <= looked, kind


def test_the_best_comes_first(tmp_path: Path) -> None:
    values = values_of(False)
    values["schedules"].reverse()
    assert "it costs less than the one before it" in refused(values, tmp_path)


def test_a_machine_of_the_name_of_ones_own_is_told_apart() -> None:
    hopper = named("sm_90a")
    assert not saved.shipped_otherwise(hopper)
    assert not saved.shipped_otherwise(replace(hopper, title="other words"))
    assert saved.shipped_otherwise(replace(hopper, shared_bytes=1 << 20))
    assert not saved.shipped_otherwise(replace(hopper, name="mine", shared_bytes=1 << 20))


def test_a_certificate_may_not_claim_more_than_it_lists() -> None:
    hopper = named("sm_90a")
    best = solved(hopper, 128)[0]
    stated, phase = best.certificate, best.phases[0]
    assert stated is not None
    assert unproved(best, hopper) == []

    def said(schedule: Schedule, certificate: Certificate) -> str:
        return "; ".join(each.text for each in unproved(replace(schedule, certificate=certificate), hopper))

    slower = replace(best, phases=(replace(phase, ii=2 * phase.ii),))
    assert f"the interval {phase.ii} is not refuted" in said(slower, replace(stated, refuted=()))
    assert said(slower, replace(stated, status="timeout", undecided=(phase.ii,))) == ""
    assert "1 interval is undecided" in said(best, replace(stated, undecided=(phase.ii,)))
    assert "and no less than 1 is proved" in said(best, replace(stated, least_length=1))
    assert unproved(replace(best, certificate=None), hopper) == []


def test_what_the_solver_says_is_so() -> None:
    """Of random kernels with one loop or two, one tile or two, with time and without."""
    told: Counter[str] = Counter()
    codes: set[str] = set()
    for seed in range(60):
        random = Random(seed)
        machine = random_machine(random)
        graph = random_graph(random, machine, random.choice((3, 6)))
        kernels = [[graph]]
        if random.random() < 0.4:
            kernels = [[replace(graph, trips=random.choice((1, 40))), random_graph(Random(seed), machine, 5)]]
        elif random.random() < 0.4:
            kernels = [[graph], [random_graph(random, machine, 4)]]
        count, limit = random.choice((1, 3)), random.choice((60.0, 0.01, 0.0))
        try:
            found = schedules(kernels, machine, k=count, limit=limit)
        except ForgeError as caught:
            codes.add(caught.code)
            continue
        rows = saved.verdicts(saved.Saved(machine, tuple(found)))
        assert not any(rows), f"seed {seed}: {rows}"
        assert found[0].certificate is not None
        told[f"{found[0].certificate.status} {len(kernels[0])}"] += 1
    assert {"optimal 1", "optimal 2", "feasible 1", "timeout 1"} <= set(told)
    assert codes <= {"FORGE-S001", "FORGE-S002"}

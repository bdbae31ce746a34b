"""What the certificate of a persistent schedule says is computed anew, field by field."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from forgec.schedule import machine
from forgec.schedule.check_persistent import check_persistent
from forgec.schedule.machine import Machine
from forgec.schedule.persistent import Persistent
from forgec.schedule.saved import content
from forgec.schedule.schedule import Bound
from forgec.schedule.solve_persistent import persistent, turns
from forgec.schedule.turn_bounds import loop_of, unproved_turns
from tests.cli.command import forgec
from tests.schedule.loops import solved
from tests.schedule.tiles import attended, product


@pytest.fixture(scope="module")
def at_bound(hopper: Machine) -> Persistent:
    """Optimal, with two tiles in a turn."""
    return turns(product(hopper, 1, 64, 256, 64, 16), hopper, 2)


@pytest.fixture(scope="module")
def above(hopper: Machine) -> Persistent:
    """Above its bounds, with intervals that are refuted; with what became of tiles."""
    return persistent([attended(hopper, 64, 4)], hopper, copies=(1,))


def broken(schedule: Persistent, facts: Machine) -> list[str]:
    """The rules that are broken, claims among them."""
    found = check_persistent(schedule, facts) or [*unproved_turns(schedule, facts)]
    return [each.rule for each in found]


def stated(schedule: Persistent, **changes: Any) -> Persistent:
    """With other claims."""
    assert schedule.certificate is not None
    return replace(schedule, certificate=replace(schedule.certificate, **changes))


def test_what_is_solved_claims_what_is_so(hopper: Machine, at_bound: Persistent, above: Persistent) -> None:
    assert broken(at_bound, hopper) == []
    assert broken(above, hopper) == []
    assert at_bound.certificate is not None
    assert at_bound.certificate.status == "optimal"
    assert above.certificate is not None
    assert above.certificate.status == "feasible"
    assert above.certificate.refuted
    assert loop_of(at_bound, 1) == loop_of(at_bound, 0)


def lower(bounds: tuple[Bound, ...]) -> tuple[Bound, ...]:
    return (replace(bounds[0], cycles=bounds[0].cycles - 8), *bounds[1:])


def renamed(bounds: tuple[Bound, ...]) -> tuple[Bound, ...]:
    return (replace(bounds[0], name="unit sfu"), *bounds[1:])


CHANGES: dict[str, Callable[[Persistent], dict[str, Any]]] = {
    "a lower bound": lambda each: {"bounds": lower(claims(each).bounds)},
    "another bound binds": lambda each: {"bounds": renamed(claims(each).bounds)},
    "bounds left out": lambda each: {"bounds": claims(each).bounds[1:]},
    "a lower bound of the reduction": lambda each: {"reduction": lower(claims(each).reduction)},
    "another one of the reduction binds": lambda each: {"reduction": renamed(claims(each).reduction)},
    "no reduction": lambda each: {"reduction": ()},
    "another unit of time": lambda each: {"quantum": claims(each).quantum * 2},
    "no unit of time": lambda each: {"quantum": 0},
    "a status that there is not": lambda each: {"status": "proved"},
    "a timeout without anything open": lambda each: {"status": "timeout"},
    "its own interval refuted": lambda each: {"refuted": (*claims(each).refuted, each.interval)},
    "what no search looks at refuted": lambda each: {"refuted": (*claims(each).refuted, 1)},
    "what no search looks at undecided": lambda each: {"undecided": (1,)},
    "a tile of an unknown fate": lambda each: {"alternatives": ({"BM": 1, "fate": "lost", "least_cost": 1.0},)},
    "a cheap tile that is no better": lambda each: {
        "alternatives": ({"BM": 1, "fate": "no better", "least_cost": float(each.cost) / 2},)
    },
}


def claims(schedule: Persistent) -> Any:
    assert schedule.certificate is not None
    return schedule.certificate


@pytest.mark.parametrize("change", CHANGES)
def test_each_other_claim_is_rejected(change: str, hopper: Machine, at_bound: Persistent, above: Persistent) -> None:
    for schedule in (at_bound, above):
        assert set(broken(stated(schedule, **CHANGES[change](schedule)), hopper)) == {"certificate"}


def test_a_status_says_what_was_proved(hopper: Machine, at_bound: Persistent, above: Persistent) -> None:
    for status in ("optimal for the reduction", "feasible", "timeout"):
        assert broken(stated(at_bound, status=status), hopper) == ["certificate"]
    for status in ("optimal", "optimal for the reduction", "timeout"):
        assert "certificate" in broken(stated(above, status=status), hopper)
    # Optimal for the reduction is what has all smaller intervals refuted, and none left out.
    facts = claims(above)
    every = tuple(range(facts.reduction[0].cycles, above.interval, facts.quantum))
    whole = stated(above, status="optimal for the reduction", refuted=every)
    assert broken(whole, hopper) == []
    assert broken(stated(whole, refuted=every[1:]), hopper) == ["certificate"]
    assert broken(stated(whole, status="feasible"), hopper) == ["certificate"]
    assert broken(stated(above, undecided=(every[-1],)), hopper) == ["certificate"]
    assert broken(stated(above, undecided=(every[-1],), status="timeout"), hopper) == []


def test_another_interval_is_rejected(hopper: Machine, at_bound: Persistent) -> None:
    """What is said of tiles in a turn follows from the interval and from how many there are."""
    for by in (-8, 8, 80, 800):
        assert "certificate" in broken(replace(at_bound, interval=at_bound.interval + by), hopper)
    assert set(broken(replace(at_bound, placed=at_bound.placed[:1]), hopper)) == {"structure"}


def test_on_another_machine_it_is_only_asked_to_be_legal(hopper: Machine, above: Persistent) -> None:
    roomy = replace(hopper, name="roomy")
    assert broken(stated(above, reduction=lower(claims(above).reduction)), roomy) == []


def test_files_with_false_claims_are_rejected(hopper: Machine, above: Persistent, tmp_path: Path) -> None:
    assert machine.named("sm_90a") == hopper
    path = tmp_path / "out.json"
    path.write_bytes(content("attention", solved(hopper, 64), hopper, above))
    assert forgec("schedule", "--check", path).code == 0
    whole = json.loads(path.read_text())
    for key, value in (("status", "optimal"), ("quantum", 16), ("bounds", []), ("reduction", []), ("refuted", [1])):
        facts = {**whole["persistent"], "certificate": {**whole["persistent"]["certificate"], key: value}}
        path.write_text(json.dumps({**whole, "persistent": facts}))
        finished = forgec("schedule", "--check", path, "--json")
        assert finished.code == 1, key
        assert {each["rule"] for each in finished.json["persistent"]["violations"]} == {"certificate"}, key

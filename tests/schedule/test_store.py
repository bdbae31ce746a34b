"""Stored schedules: found by what they answer, never believed, dropped with a remark."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from forgec.diagnostics import ForgeError
from forgec.schedule import kernels, machine, saved, store
from forgec.schedule import solve as solver
from forgec.schedule.check import check
from forgec.schedule.machine import Machine
from forgec.schedule.store import solve
from tests.schedule.loops import ring, solved
from tools import schedules as tool


@pytest.fixture(scope="module")
def tiles(hopper: Machine) -> store.Kernels:
    return [[ring(hopper, 64)], [ring(hopper, 128)]]


@pytest.fixture
def entry(tiles: store.Kernels, hopper: Machine, tmp_path: Path) -> Path:
    """The one entry of a folder."""
    answer = solve(tiles, hopper, folder=tmp_path)
    assert answer.origin == "solved"
    (path,) = tmp_path.glob("*.json")
    return path


def refuse(*_: object, **__: object) -> None:
    raise AssertionError("the solver was called")


def test_what_was_solved_is_found(
    entry: Path, tiles: store.Kernels, hopper: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = solver.schedules(tiles, hopper)
    monkeypatch.setattr(solver, "schedules", refuse)
    answer = solve(tiles, hopper, folder=entry.parent)
    assert (answer.origin, answer.remarks) == ("cached", ())
    (found,) = answer.schedules
    certificate, wanted = found.certificate, expected[0].certificate
    assert certificate is not None
    assert wanted is not None
    timeless = replace(certificate, solve_seconds=wanted.solve_seconds, deterministic_time=wanted.deterministic_time)
    assert replace(found, certificate=timeless) == expected[0]
    assert "graph" not in entry.read_text()
    with pytest.raises(AssertionError, match="the solver was called"):
        solve(tiles, hopper, folder=entry.parent, cache=False)


def test_every_part_of_the_question_is_in_the_key(tiles: store.Kernels, hopper: Machine) -> None:
    graph = tiles[0][0]
    op = graph.ops[0]
    slower = replace(graph, ops=(replace(op, latency=op.latency + 1), *graph.ops[1:]))
    handover = replace(hopper.handover, get=hopper.handover.get + 1)
    keys = [
        store.key(tiles, hopper, 1),
        store.key(tiles, hopper, 2),
        store.key(tiles[:1], hopper, 1),
        store.key([[slower], tiles[1]], hopper, 1),
        store.key(tiles, replace(hopper, shared_bytes=1 << 16), 1),
        store.key(tiles, replace(hopper, handover=handover), 1),
        store.key(tiles, machine.named("sm_100a"), 1),
    ]
    assert len(set(keys)) == len(keys)
    reworded = replace(hopper, title="other words", handover=replace(hopper.handover, source="another page"))
    assert store.key(tiles, reworded, 1) == keys[0]


def test_the_version_is_in_the_key(tiles: store.Kernels, hopper: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    before = store.key(tiles, hopper, 1)
    monkeypatch.setattr(store, "VERSION", store.VERSION + 1)
    assert store.key(tiles, hopper, 1) != before


def truncate(values: Any) -> str:
    return json.dumps(values)[:-40]


def earlier(values: Any) -> str:
    starts = values["schedules"][0]["phases"][0]["starts"]
    starts["add"] = 0
    return json.dumps(values)


def faster(values: Any) -> str:
    values["schedules"][0]["phases"][0]["ii"] -= 1
    return json.dumps(values)


def greedy(values: Any) -> str:
    values["schedules"][0]["groups"][-1]["registers"] = 512
    return json.dumps(values)


def shallow(values: Any) -> str:
    values["schedules"][0]["depths"]["tiles"] = 0
    return json.dumps(values)


def boastful(values: Any) -> str:
    values["schedules"][0]["certificate"]["bounds"] = values["schedules"][0]["certificate"]["bounds"][1:]
    return json.dumps(values)


def elsewhere(values: Any) -> str:
    values["schedules"][0]["machine"] = "sm_100a"
    return json.dumps(values)


def another_question(values: Any) -> str:
    return json.dumps({**values, "key": "0" * 64})


def another_tile(values: Any) -> str:
    values["schedules"][0]["choice"] = 1 - values["schedules"][0]["choice"]
    return json.dumps(values)


def no_tile(values: Any) -> str:
    values["schedules"][0]["choice"] = 99
    return json.dumps(values)


def other_types(values: Any) -> str:
    values["schedules"][0]["phases"] = [3, None]
    return json.dumps(values)


def unknown_field(values: Any) -> str:
    values["schedules"][0]["surprise"] = 1
    return json.dumps(values)


def nothing(values: Any) -> str:
    return json.dumps({**values, "schedules": []})


def no_object(values: Any) -> str:
    return "[1, 2]"


def empty(values: Any) -> str:
    return ""


@pytest.mark.parametrize(
    "change",
    [
        truncate, earlier, faster, greedy, shallow, boastful, elsewhere, another_question, another_tile, no_tile,
        other_types, unknown_field, nothing, no_object, empty,
    ],
)  # fmt: skip
def test_what_is_wrong_is_dropped_and_solved_anew(
    change: Callable[[Any], str], entry: Path, tiles: store.Kernels, hopper: Machine
) -> None:
    whole = entry.read_text()
    entry.write_text(change(json.loads(whole)))
    answer = solve(tiles, hopper, folder=entry.parent)
    assert answer.origin == "solved"
    assert [(each.code, each.severity) for each in answer.remarks] == [("FORGE-S011", "remark")]
    assert check(answer.schedules[0], hopper) == []
    # The entry is whole again.
    assert solve(tiles, hopper, folder=entry.parent).origin == "cached"


def test_entries_of_another_machine_are_not_legal_here(entry: Path, tiles: store.Kernels, hopper: Machine) -> None:
    """A machine of the same name with less of everything, whose key the entry is given."""
    small = replace(hopper, shared_bytes=20 << 10)
    name = store.key(tiles, small, 1)
    values = {**json.loads(entry.read_text()), "key": name}
    (entry.parent / f"{name}.json").write_text(json.dumps(values))
    answer = solve(tiles, small, folder=entry.parent)
    assert answer.origin == "solved"
    assert "memories" in answer.remarks[0].message or "bounds" in answer.remarks[0].message


def test_what_a_limit_cut_short_serves_no_longer_limit(entry: Path, tiles: store.Kernels, hopper: Machine) -> None:
    values = json.loads(entry.read_text())
    values["schedules"][0]["certificate"]["status"] = "feasible"
    values["limit"] = 10.0
    entry.write_text(json.dumps(values))
    assert solve(tiles, hopper, folder=entry.parent, limit=5.0).origin == "cached"
    assert solve(tiles, hopper, folder=entry.parent, limit=20.0).origin == "solved"
    assert solve(tiles, hopper, folder=entry.parent, limit=90.0).origin == "cached"


def test_a_folder_that_cannot_be_written_is_no_error(tiles: store.Kernels, hopper: Machine, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert solve(tiles, hopper, folder=tmp_path / "file").origin == "solved"


def test_old_entries_go(entry: Path, tiles: store.Kernels, hopper: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "MOST_ENTRIES", 1)
    solve(tiles[:1], hopper, folder=entry.parent)
    assert len(list(entry.parent.glob("*.json"))) == 1
    assert not entry.exists()


def test_entries_are_cleared(entry: Path, tiles: store.Kernels, hopper: Machine) -> None:
    assert store.clear(entry.parent) == 1
    assert store.clear(entry.parent) == 0
    assert solve(tiles, hopper, folder=entry.parent).origin == "solved"


def test_the_folder_can_be_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FORGEC_CACHE_DIR", str(tmp_path))
    assert store.schedules_folder() == tmp_path / "schedules"
    monkeypatch.delenv("FORGEC_CACHE_DIR")
    assert store.schedules_folder().parts[-2:] == ("forgec", "schedules")


# Files of schedules


def test_files_hold_all_that_a_check_needs(hopper: Machine, tmp_path: Path) -> None:
    found = solved(hopper, 64, 128, k=2)
    path = tmp_path / "ring.json"
    path.write_bytes(saved.content("ring", found, hopper))
    again = saved.read(path)
    assert (again.kernel, again.machine, list(again.schedules)) == ("ring", hopper, found)
    assert saved.read(path, machine.named("sm_100a")).machine.name == "sm_100a"
    path.write_text(json.dumps({"machine": json.loads(path.read_text())["machine"], "schedules": []}))
    with pytest.raises(ForgeError, match="holds no schedule"):
        saved.read(path)


# What the package ships


@pytest.mark.parametrize("name", sorted(path.stem for path in machine.FOLDER.glob("*.toml")))
def test_the_package_answers_for_all_kernels_by_name(name: str) -> None:
    assert tool.stale(machine.named(name)) == [], "run 'python -m tools.schedules'"


def test_shipped_schedules_are_legal_and_what_the_solver_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sample is solved anew: attention and products on Hopper."""
    hopper = machine.named("sm_90a")
    for name in ("attention-fwd", "gemm"):
        loops = kernels.named(name, hopper)
        anew = solve(loops, hopper, cache=False).schedules[0]
        with monkeypatch.context() as patch:
            patch.setattr(solver, "schedules", refuse)
            answer = solve(loops, hopper, folder=tmp_path)
        assert answer.origin == "shipped"
        (found,) = answer.schedules
        assert found.cost == anew.cost, "the model has changed: raise store.VERSION and run 'python -m tools.schedules'"
        assert found.phases[-1].length == anew.phases[-1].length
        assert found.phases[-1].graph.tile == anew.phases[-1].graph.tile
        assert found.certificate is not None
        assert found.certificate.status == "optimal"

"""Persistent programs as they are shown and stored, and the grids of kernels by name."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from forgec.schedule import machine, solve_persistent, store_persistent
from forgec.schedule.check_persistent import check_persistent
from forgec.schedule.grid import Order
from forgec.schedule.kernels.grids import tile_grid
from forgec.schedule.kernels.tiles import tile_program
from forgec.schedule.machine import Machine
from forgec.schedule.page import page
from forgec.schedule.persistent import Persistent
from forgec.schedule.persistent_report import (
    Programs,
    grid_data,
    order_text,
    persistent_data,
    persistent_text,
    programs,
)
from forgec.schedule.saved import content, read
from forgec.schedule.solve_persistent import persistent
from forgec.schedule.succession import between_tiles
from forgec.schedule.tile import Tile
from tests.cli.command import forgec
from tests.schedule.loops import solved
from tests.schedule.test_page import Parsed, self_contained

SHAPE = {"m": 4096, "n": 4096, "k": 512}


@pytest.fixture(scope="module")
def blackwell() -> Machine:
    return machine.named("sm_100a")


@pytest.fixture(scope="module")
def tiles(blackwell: Machine) -> list[Tile]:
    """Of a product, at three tiles."""
    wanted = [(128, 256, 64), (128, 128, 64), (128, 64, 64)]
    found = tile_program("gemm", blackwell, SHAPE)
    return [each for each in found if tuple(each.phases[0].tile[key] for key in ("BM", "BN", "BK")) in wanted]


@pytest.fixture(scope="module")
def schedule(tiles: list[Tile], blackwell: Machine) -> Persistent:
    return persistent(tiles, blackwell, copies=(1,), tries=1)


@pytest.fixture(scope="module")
def shown(schedule: Persistent, blackwell: Machine) -> Programs:
    return programs(schedule, blackwell, tile_grid("gemm", schedule, blackwell, SHAPE))


def test_data(shown: Programs, schedule: Persistent) -> None:
    data, grid = persistent_data(shown), grid_data(shown)
    stated = schedule.certificate
    assert stated is not None
    assert data["cycles_per_tile"] == schedule.interval / len(schedule.placed)
    assert [each["cycles"] for each in data["bounds"]] == [each.cycles for each in stated.bounds]
    assert data["status"] == stated.status
    assert data["simulated"]["cycles_per_tile"] == pytest.approx(data["cycles_per_tile"], rel=0.05)
    assert data["simulated"]["deadlock"] == {}
    assert data["overlap_cycles"] == schedule.span - schedule.interval > 0
    assert {each["fate"] for each in data["alternatives"]} <= {"solved", "no better", "not tried", "does not fit"}
    assert sum(each["fate"] == "solved" for each in data["alternatives"]) == 1
    tile = data["tile"]
    assert grid is not None
    assert (grid["rows"], grid["columns"]) == (4096 // tile["BM"], 4096 // tile["BN"])
    assert grid["makespan_cycles"] >= grid["work_bound"]
    assert grid["traffic_bytes"] >= 2 * 4096 * 512 * 2 + 4096 * 4096 * 2
    assert grid["binds"] in ("work", "traffic")
    assert json.loads(json.dumps([data, grid])) == [data, grid]


def test_text_and_page(shown: Programs) -> None:
    text = persistent_text(shown)
    for word in ("output tiles", "overlap", "makespan", "traffic", "binds", "simulated"):
        assert word in text
    hopper = machine.named("sm_90a")
    parsed = Parsed(page(solved(hopper, 64), hopper, "ring", shown))
    self_contained(parsed)
    whole = "".join(parsed.texts)
    assert "One output tile after another" in whole
    assert "the next tile begins" in whole
    assert "Order of tiles" in whole
    widest = max(float(box.get("x") or 0) + float(box.get("width") or 0) for box in parsed.boxes)
    assert widest <= 1200


def test_the_window_shows_both_tiles(schedule: Persistent, blackwell: Machine) -> None:
    window = between_tiles(schedule, blackwell)
    _, groups = window.lanes(blackwell)
    seen = {window.unrolled.segments[bar.segment].turn for lane in groups for bar in lane.bars}
    assert len(seen) >= 2
    assert window.first < 0 < window.last


def test_orders_in_words(shown: Programs) -> None:
    assert shown.ordered is not None
    assert shown.grid is not None

    def said(by: str, group: int, longest: bool = False) -> str:
        assert shown.ordered is not None
        return order_text(replace(shown, ordered=replace(shown.ordered, order=Order(by, group, longest))))

    assert said("rows", 1) == "row by row"
    assert said("columns", 1) == "column by column"
    assert said("rows", shown.grid.rows) == "column by column"
    assert said("columns", shown.grid.columns) == "row by row"
    assert said("rows", 4, True) == "in groups of 4 rows, each column by column, the longest columns first"


def test_a_grid_of_too_many_tiles_is_left_alone(schedule: Persistent, blackwell: Machine) -> None:
    many = tile_grid("gemm", schedule, blackwell, {**SHAPE, "m": 10**9})
    assert many is not None
    found = programs(schedule, blackwell, many)
    assert grid_data(found) is None
    assert "no order is looked for: 7812500 × 16 tiles" in " ".join(persistent_text(found).split())


def test_grids_of_attention(blackwell: Machine) -> None:
    """Blocks of queries that see more keys take longer, and all together as much as the average block says."""
    hopper = machine.named("sm_90a")
    sizes = {"seq": 1024, "heads": 4}
    program = next(each for each in tile_program("attention-fwd-causal", hopper, sizes) if fits(each))
    found = persistent([program], hopper, copies=(1,))
    grid = tile_grid("attention-fwd-causal", found, hopper, sizes)
    assert grid is not None
    assert (grid.rows, grid.columns, grid.column_bytes) == (4, 1024 // 128, 0)
    assert list(grid.cycles) == sorted(grid.cycles)
    assert grid.row_bytes == 2 * 1024 * 128 * 2
    average = sum(grid.cycles) / grid.columns
    longest = max(phase.ii for phase in found.placed[0].phases)
    assert abs(average - found.cycles_per_tile) <= longest
    grouped = tile_grid("grouped-gemm", found, hopper)
    assert grouped is None


def fits(tile: Tile) -> bool:
    extents = tile.phases[0].tile
    return (extents["BM"], extents["BN"]) == (128, 128)


def test_stored_ones_are_checked(
    tiles: list[Tile], schedule: Persistent, blackwell: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []

    def solve(*_: object, **__: object) -> Persistent:
        calls.append(1)
        return schedule

    monkeypatch.setattr(solve_persistent, "persistent", solve)

    def again() -> store_persistent.Answer:
        return store_persistent.solve(tiles, blackwell, folder=tmp_path)

    assert again().origin == "solved"
    assert again() == store_persistent.Answer(schedule, "cached")
    assert store_persistent.solve(tiles, replace(blackwell, title="x"), folder=tmp_path).origin == "cached"
    (entry,) = tmp_path.glob("*.json")
    whole = json.loads(entry.read_text())
    for change in ({"interval": schedule.interval // 2}, {"machine": "other"}, {"placed": []}, {"groups": 3}):
        entry.write_text(json.dumps({**whole, "persistent": {**whole["persistent"], **change}}))
        answer = again()
        assert (answer.origin, [each.code for each in answer.remarks]) == ("solved", ["FORGE-S011"])
    assert again().origin == "cached"
    assert len(calls) == 5
    assert not store_persistent.same(schedule, replace(tiles[0], dependences=(), values=(), stays={}))


def test_files_are_checked(schedule: Persistent, tmp_path: Path) -> None:
    hopper = machine.named("sm_90a")
    path = tmp_path / "out.json"
    (loop,) = solved(hopper, 64)
    path.write_bytes(content("ring", [loop], hopper))
    assert read(path).persistent is None
    blackwell = machine.named("sm_100a")
    assert check_persistent(schedule, blackwell) == []
    path.write_bytes(content("gemm", [loop], hopper, schedule))
    finished = forgec("schedule", "--check", path, "--json")
    assert finished.code == 1
    assert finished.json["schedules"][0]["violations"] == []
    assert finished.json["persistent"]["violations"]
    assert "the persistent program, is not legal" in forgec("schedule", "--check", path).err


def test_command(schedule: Persistent, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FORGEC_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(solve_persistent, "persistent", lambda *_, **__: schedule)
    arguments = ("schedule", "gemm", "--target", "sm_100a", "--persistent")
    found = forgec(*arguments, "--json").json
    assert found["persistent"]["origin"] == "solved"
    assert found["persistent"]["cycles_per_tile"] == float(schedule.cycles_per_tile)
    assert {"order", "makespan_cycles", "traffic_bytes", "binds"} <= found["grid"].keys()
    assert "persistent program" in forgec(*arguments).out
    refused = forgec("schedule", "missing.mlir", "--target", "sm_90a", "--persistent", "--json")
    assert refused.error_codes == ["FORGE-U005"]
    decode = forgec("schedule", "attention-decode", "--target", "sm_90a", "--persistent", "--json")
    assert decode.error_codes == ["FORGE-U010"]
    assert forgec("schedule", "--check", "x.json", "--html", "x", "--json").error_codes == ["FORGE-U005"]

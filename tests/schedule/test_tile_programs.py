"""Kernels by name as persistent programs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from forgec.diagnostics import ForgeError
from forgec.schedule import machine, store
from forgec.schedule.check_persistent import check_persistent, together
from forgec.schedule.kernels.tiles import tile_program
from forgec.schedule.simulate import simulate_turns
from forgec.schedule.solve_persistent import persistent, turns
from forgec.schedule.timeline import reserved
from forgec.schedule.turn_bounds import unproved_turns

PRODUCT = {"m": 4096, "n": 4096, "k": 1024}


@pytest.mark.parametrize(
    ("target", "name", "shape", "tile"),
    [
        ("sm_90a", "gemm", PRODUCT, {"BM": 128, "BN": 256, "BK": 64, "parts": 2}),
        ("sm_90a", "gemm-epilogue", PRODUCT, {"BM": 128, "BN": 128, "BK": 64, "parts": 1}),
        ("sm_100a", "gemm", PRODUCT, {"BM": 128, "BN": 128, "BK": 64, "parts": 1}),
        ("sm_90a", "attention-fwd-causal", {"seq": 1024}, {"BM": 128, "BN": 128}),
    ],
)
def test_the_next_tile_begins_before_this_one_ends(
    target: str, name: str, shape: dict[str, int], tile: dict[str, int]
) -> None:
    facts = machine.named(target)
    program = next(
        each
        for each in tile_program(name, facts, shape)
        if all(each.phases[0].tile.get(key) == size for key, size in tile.items())
    )
    schedule = turns(program, facts, limit=20)
    assert check_persistent(schedule, facts) == []
    assert schedule.interval < schedule.span
    ran = simulate_turns(schedule, facts, 6)
    assert ran.deadlock == {}
    assert ran.per_iteration <= schedule.interval


@pytest.mark.parametrize(("target", "most"), [("sm_90a", 1.03), ("sm_100a", 1.05)])
def test_products_store_while_the_next_tile_is_loaded(target: str, most: float) -> None:
    """A ring of copies, two accumulators, and an epilogue beside the next tile's loads, at the best tile."""
    facts = machine.named(target)
    shape = {"m": 4096, "n": 4096, "k": 8192}
    schedule = persistent(tile_program("gemm", facts, shape), facts)
    assert check_persistent(schedule, facts) == []
    assert list(unproved_turns(schedule, facts)) == []
    assert schedule.span > schedule.interval
    placed = schedule.placed[0]
    (loop,) = placed.phases
    assert placed.tile.epilogue is not None
    stored = max(placed.epilogue[op.name] + op.span for op in placed.tile.epilogue.ops)
    loads = {op.name for op in loop.graph.ops if op.role == "load"}
    first = min(loop.starts[name] for name in loads) + placed.bases[0] + schedule.interval
    assert first < stored
    assert sum(op.role == "mma" for op in loop.graph.ops) == 2
    assert min(schedule.depths[value.name] for value in loop.graph.values if value.producer in loads) >= 2
    loops = store.solve([list(tile.phases) for tile in tile_program("gemm", facts, shape)], facts)
    assert schedule.cost <= most * loops.schedules[0].cost


def test_sums_stay_in_tensor_memory() -> None:
    """A tile whose sums take all of tensor memory: the next products wait until they are read, and need no room."""
    facts = machine.named("sm_100a")
    program = next(
        each
        for each in tile_program("gemm", facts, {"k": 512})
        if each.phases[0].tile == {"BM": 256, "BN": 256, "BK": 64, "parts": 2}
    )
    assert dict(program.stays) == {"acc.0 done": "acc.0", "acc.1 done": "acc.1"}
    schedule = turns(program, facts)
    assert check_persistent(schedule, facts) == []
    assert reserved(together(schedule), "tensor") == facts.tensor_bytes
    more = {**schedule.depths, "acc.0 done": 2}
    assert "memories" in {each.rule for each in check_persistent(replace(schedule, depths=more), facts)}
    (placed,) = schedule.placed
    late = {name: start + 4000 * name.startswith(("convert", "store")) for name, start in placed.epilogue.items()}
    moved = replace(schedule, placed=(replace(placed, epilogue=late),))
    assert any("acc.0 done" in each.text for each in check_persistent(moved, facts) if each.rule == "buffers")
    with pytest.raises(ForgeError, match=r"cannot stay where a\.0 is"):
        replace(program, stays={"acc.0 done": "a.0"})
    with pytest.raises(ForgeError, match="has no buffers that it may stay in"):
        replace(program, stays={"acc.0 done": "acc.0", "acc.1 done": "acc.0"})


def test_a_limit_is_of_all_loops_and_turns() -> None:
    facts = machine.named("sm_90a")
    tiles = tile_program("gemm", facts, PRODUCT)
    for limit in (0.0, 1e-3):
        with pytest.raises(ForgeError) as caught:
            persistent(tiles, facts, limit=limit)
        assert caught.value.code == "FORGE-S002"
    found = persistent(tiles, facts, limit=0.3)
    assert found.certificate is not None
    assert found.certificate.deterministic_time <= 0.4
    assert (check_persistent(found, facts) or list(unproved_turns(found, facts))) == []
    assert "not tried" in {each["fate"] for each in found.certificate.alternatives}


def test_what_has_no_output_tiles_is_refused() -> None:
    with pytest.raises(ForgeError, match="no persistent program of attention-decode"):
        tile_program("attention-decode", machine.named("sm_90a"))

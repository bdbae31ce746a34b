"""Kernels by name as persistent programs."""

from __future__ import annotations

import pytest

from forgec.diagnostics import ForgeError
from forgec.schedule import machine
from forgec.schedule.check_persistent import check_persistent
from forgec.schedule.kernels.tiles import tile_program
from forgec.schedule.simulate import simulate_turns
from forgec.schedule.solve_persistent import turns

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


def test_what_has_no_output_tiles_is_refused() -> None:
    with pytest.raises(ForgeError, match="no persistent program of attention-decode"):
        tile_program("attention-decode", machine.named("sm_90a"))

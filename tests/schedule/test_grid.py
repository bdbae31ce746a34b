"""Orders of tiles over a grid: what is known to be best is found, and nothing in the family is better."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from forgec.diagnostics import ForgeError
from forgec.schedule import files
from forgec.schedule.grid import Grid, Order, Ordered, arrange, makespan, orders, traffic
from forgec.schedule.machine import Machine
from tests.schedule.small import random_machine


def product(size: int, tall: int = 128, wide: int = 256) -> Grid:
    """C = A B in bfloat16, at the rate of Hopper's tensor cores."""
    cycles = tall * wide * size // 2048
    return Grid(size // tall, size // wide, (cycles,), tall * size * 2, wide * size * 2, tall * wide * 2, 1000)


def slow_makespan(work: list[int], count: int) -> int:
    """Cycle by cycle."""
    left, waiting, cycles = [0] * count, list(work), 0
    while waiting or any(left):
        for number in range(count):
            if left[number] == 0 and waiting:
                left[number] = waiting.pop(0)
        left = [max(0, each - 1) for each in left]
        cycles += 1
    return cycles


def slow_traffic(grid: Grid, places: list[tuple[int, int]], count: int, cache: int) -> int:
    """From the definition: for each operand of each wave, whether the waves since its last use fit the cache."""
    waves = [places[first : first + count] for first in range(0, len(places), count)]

    def read(wave: list[tuple[int, int]]) -> set[tuple[int, int]]:
        return {(0, row) for row, _ in wave} | {(1, column) for _, column in wave}

    sizes, moved = (grid.row_bytes, grid.column_bytes), len(places) * grid.tile_bytes
    for now, wave in enumerate(waves):
        for operand in read(wave):
            before = [number for number in range(now) if operand in read(waves[number])]
            between = {each for number in range(before[-1], now) for each in read(waves[number])} if before else set()
            if not before or sum(sizes[kind] for kind, _ in between) > cache:
                moved += sizes[operand[0]]
    return moved


def test_small_grids_against_all_orders_of_the_family() -> None:
    for seed in range(120):
        random = Random(seed)
        rows, columns = random.randint(1, 6), random.randint(1, 6)
        cycles = [random.randint(1, 9) for _ in range(columns)] if random.random() < 0.6 else [random.randint(1, 9)]
        grid = Grid(rows, columns, tuple(cycles), random.randint(0, 9), random.randint(0, 9), random.randint(0, 3))
        small = replace(
            random_machine(random),
            multiprocessors=random.randint(1, 5),
            cache_bytes=random.randint(0, 60),
            memory_bytes_per_cycle=random.choice((0.25, 0.5, 1.0)),
        )
        found = arrange(grid, small)
        costs = []
        for by in ("rows", "columns"):
            for group in range(1, max(rows, columns) + 1):
                for longest in (False, True):
                    places = list(Order(by, group, longest).places(grid))
                    assert sorted(places) == [(row, column) for row in range(rows) for column in range(columns)]
                    work = slow_makespan([grid.work(place) for place in places], small.multiprocessors)
                    moved = slow_traffic(grid, places, small.multiprocessors, small.cache_bytes)
                    bandwidth = small.memory_bytes_per_cycle * small.multiprocessors
                    costs.append((max(work, -(-moved // bandwidth)), moved, work))
        # Nothing of the family is better, and what is left out of it as the same order is.
        assert (found.cycles, found.traffic_bytes, found.makespan_cycles) == min(costs), f"seed {seed}"
        assert found.work_bound <= found.makespan_cycles
        assert found.traffic_bound <= found.memory_cycles
        assert found.gap >= 0


def test_groups_of_rows_beat_row_by_row_for_a_large_product(hopper: Machine) -> None:
    grid = product(16384)
    found = arrange(grid, hopper)
    plain = traffic(grid, list(Order("rows", 1).places(grid)), hopper.multiprocessors, hopper.cache_bytes)
    assert found.order.group > 1
    assert found.traffic_bytes < plain / 2
    assert found.binds == "work"
    assert found.makespan_cycles <= 1.05 * found.work_bound
    # With a tenth of the bandwidth, the order is what decides.
    slow = replace(hopper, memory_bytes_per_cycle=hopper.memory_bytes_per_cycle / 10)
    bound = arrange(grid, slow)
    assert bound.order.group > 1
    assert bound.cycles < plain / (slow.memory_bytes_per_cycle * slow.multiprocessors)


def test_a_product_that_the_cache_holds_may_go_in_any_order(hopper: Machine) -> None:
    grid = product(2048)
    found = arrange(grid, hopper)
    assert found.traffic_bytes == grid.compulsory
    assert found.order == Order("rows", 1)


def test_causal_attention_goes_longest_first_with_heads_in_groups(hopper: Machine) -> None:
    # Heads of 128, 16384 keys: 8 MB of keys and values each, of which six fit the cache.
    blocks = 128
    causal = Grid(
        32, blocks, tuple(2200 * (block + 1) for block in range(blocks)), 2 * 16384 * 128 * 2, 0, 128 * 128 * 4
    )
    found = arrange(causal, hopper)
    assert found.order.longest_first
    as_they_are = [causal.work(place) for place in Order(found.order.by, found.order.group).places(causal)]
    assert found.makespan_cycles < makespan(as_they_are, hopper.multiprocessors)
    assert found.makespan_cycles <= 1.02 * found.work_bound
    everything = Order("rows", causal.rows, longest_first=True)
    assert found.traffic_bytes <= traffic(
        causal, list(everything.places(causal)), hopper.multiprocessors, hopper.cache_bytes
    )
    # Where memory decides, heads that are at work together fit the cache.
    slow = replace(hopper, memory_bytes_per_cycle=hopper.memory_bytes_per_cycle / 200)
    grouped = arrange(causal, slow)
    assert grouped.binds == "traffic"
    assert grouped.traffic_bytes == causal.compulsory


def test_few_tiles_are_said_to_be_better_divided(hopper: Machine) -> None:
    # One head's queries of a decoding step: eight tiles for 132 multiprocessors.
    few = Grid(8, 1, (100_000,), 1 << 20, 0, 0, 500)
    found = arrange(few, hopper)
    assert found.tail_efficiency < 0.07
    assert found.parts == 16
    assert found.parts_makespan_cycles == 100_000 // 16 + 500
    full = arrange(Grid(132, 1, (100_000,), 1 << 20, 0, 0, 500), hopper)
    assert (full.tail_efficiency, full.parts) == (1.0, 1)


def test_a_grid_and_its_order_are_read_as_they_were_written(hopper: Machine, tmp_path: Path) -> None:
    grid = product(4096)
    for item in (grid, arrange(grid, hopper)):
        files.write(item, tmp_path / "item.json")
        assert files.read(type(item), tmp_path / "item.json") == item
    assert isinstance(arrange(grid, hopper), Ordered)
    with pytest.raises(ForgeError, match="2 x 3 tiles"):
        Grid(2, 3, (1, 2), 0, 0)
    assert len(set(orders(grid))) == len(orders(grid))

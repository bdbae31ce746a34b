"""Random changes to JSON data: blind ones, and ones that know what numbers and expressions of a plan mean."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from typing import Any, TypeAlias

Place: TypeAlias = "tuple[Any, Any]"
"""A container and the key or index in it."""

SUBSTITUTES: list[Any] = [
    None, True, False, 0, 1, -1, 2, 3, 7, 63, 64, 65, 1 << 20, (1 << 31) - 1, 1 << 31, (1 << 32) + 1, (1 << 62),
    (1 << 63) - 1, 1 << 63, -(1 << 63), 1 << 64, 10**30, 0.0, -0.0, 0.5, 1e308, -1e-320, "", "x", "s0", "s1",
    "s0 * s0", "s0 // 0", "s0 - 1", "-s0", "max(s0, 3)", "s0 % 0", "mod(s0, s1)", "*", "é", "\u0000", "../x",
    "/etc/passwd", "x" * 5000, [], [0], [[]], {}, {"reg": 0}, {"reg": -1}, {"reg": 1 << 40}, {"expr": "s0"},
    {"literal": 1}, {"float": "nan"}, {"float": "inf"}, {"dtype": "bf16"}, {"device": "cuda:0"}, {"device": "meta"},
    {"layout": "sparse_coo"}, {"memory_format": "channels_last"}, {"complex": [1, 1]}, {"tuple": []},
    {"list": ["*"]},
]  # fmt: skip


def places(data: Any) -> list[Place]:
    """Everything in the data, outermost first."""
    found: list[Place] = []

    def visit(value: Any) -> None:
        keys: Any = range(len(value)) if isinstance(value, list) else value if isinstance(value, dict) else ()
        for key in keys:
            found.append((value, key))
            visit(value[key])

    visit(data)
    return found


def mutate(data: Any, draw: random.Random) -> None:
    """One random change, in place."""
    known = places(data)
    if not known:
        return
    container, key = draw.choice(known)
    value = container[key]
    match draw.randrange(8):
        case 0:
            del container[key]
        case 1 if isinstance(container, list):
            container.insert(draw.randrange(len(container) + 1), copy.deepcopy(value))
        case 2:
            other, place = draw.choice(known)
            container[key] = copy.deepcopy(other[place])
        case 3 if isinstance(container, list):
            other_key = draw.randrange(len(container))
            container[key], container[other_key] = container[other_key], container[key]
        case 4:
            container[key] = copy.deepcopy(draw.choice(SUBSTITUTES))
        case 5 if isinstance(container, dict):
            container[draw.choice(["extra", "", "kind", "dtype", "strides", str(key) + "_"])] = container.pop(key)
        case _:
            container[key] = nearby(value, draw)


def nearby(value: Any, draw: random.Random) -> Any:
    """A value of the same type that differs a little."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return draw.choice([value + 1, value - 1, value * 2, value // 2, value + 64, max(value - 64, 0), 0, 1])
    if isinstance(value, float):
        return draw.choice([-value, value * 2, 0.0, 1e30])
    if isinstance(value, str) and value:
        position = draw.randrange(len(value))
        cut = value[:position] + value[position + 1 :]
        return draw.choice([cut, value[:position] + draw.choice("s01*+-()/% .:_é") + value[position:], value * 2])
    if isinstance(value, list):
        return draw.choice([value[::-1], value[1:], value * 2, value[:1]])
    return copy.deepcopy(draw.choice(SUBSTITUTES))


def consistently(data: Any, draw: random.Random, choose: Callable[[Any], bool]) -> None:
    """Replaces one value everywhere it occurs: what is derived from one another stays consistent."""
    known = [(container, key) for container, key in places(data) if choose(container[key])]
    if not known:
        return
    container, key = draw.choice(known)
    old = container[key]
    new = nearby(old, draw) if draw.random() < 0.7 else copy.deepcopy(draw.choice(SUBSTITUTES))
    for container, key in known:
        if type(container[key]) is type(old) and container[key] == old:
            container[key] = new

"""Symbolic extents: canonical form, exactness of every simplification, text round trip."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forgec.runtime.symbolic import (
    Extent,
    SymExpr,
    bounds,
    evaluate,
    floordiv,
    free_symbols,
    is_nonnegative,
    mod,
    parse,
    substitute,
    sym_max,
    sym_min,
    symbol,
)

s0, s1, s2 = symbol("s0"), symbol("s1"), symbol("s2")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (s0 - s0, 0),
        (0 * s0, 0),
        (s0 + 1 - s0, 1),
        ((6 * s0) // 3, 2 * s0),
        ((s0 * s1) // s1, s0),
        ((s0 * s1 + s0) // (s1 + 1), s0),
        ((s0 * 4 + 3) // 4, s0),
        ((2 * s0 + 3) // 4, floordiv(s0 + 1, 2)),
        (s0 // 2 // 3, s0 // 6),
        ((s0 // 2 + 1) // 3, floordiv(s0 + 2, 6)),
        (s0 // s0, 1),
        (0 // s0, 0),
        ((4 * s0) % 2, 0),
        ((4 * s0 + 3) % 2, 1),
        ((s0 * s1) % s1, 0),
        ((s0 % 8) % 4, s0 % 4),
        ((s0 % 4) % 8, s0 % 4),
        ((s0 % 4) // 4, 0),
        ((s0 % 6 + 3) % 3, s0 % 3),
        (sym_max(s0, 0), s0),
        (sym_max(s0 + 1, s0), s0 + 1),
        (sym_max(3, 5), 5),
        (sym_max(sym_max(s0, 3), s1, 2), sym_max(s1, s0, 3)),
        (sym_min(s0, 2 * s0, 7), sym_min(7, s0)),
        (sym_min(sym_max(s0, 1), 1), 1),
        ((s0 + 1) * (s0 - 1), s0 * s0 - 1),
    ],
)
def test_simplifies(value: Extent, expected: Extent) -> None:
    assert value == expected
    assert hash(value) == hash(expected)


def test_constants_are_ints() -> None:
    assert type(s0 - s0 + 3) is int
    assert floordiv(7, 2) == 3
    assert mod(-7, 2) == 1
    assert evaluate(7, {}) == 7


@pytest.mark.parametrize(
    ("expr", "text"),
    [
        (s0 * 64 + 1, "s0 * 64 + 1"),
        (s0 * s1 + s0 // 2, "s0 * s1 + floordiv(s0, 2)"),
        (s1 - s0, "-s0 + s1"),
        (3 - 2 * s0, "s0 * -2 + 3"),
        (symbol("s10") + symbol("s2"), "s2 + s10"),
        (sym_max(s0, 1), "max(s0, 1)"),
        (s0 * s0, "s0 * s0"),
        ((s0 + 1) % s1, "mod(s0 + 1, s1)"),
    ],
)
def test_prints_and_parses(expr: SymExpr, text: str) -> None:
    assert str(expr) == text
    assert parse(text) == expr


def test_parses_operators() -> None:
    assert parse("(s0 + 3) // 2 - -s1 % 4") == (s0 + 3) // 2 - (-s1) % 4
    assert parse(" 12 ") == 12


MALFORMED = [
    "",
    "s0 +",
    "s0 s1",
    "floordiv(s0)",
    "floordiv(s0, 0)",
    "max(s0)",
    "s0 % 0",
    "1.5",
    "s0 ** 2",
    "a" * 65,
    "é",
    "(s0",
    "f(s0)",
]
HUGE = [
    "(" * 60 + "s0" + ")" * 60,
    "s0*" * 900 + "s0",
    "9" * 30,
    "s0 + " * 900 + "1",
    "*".join(["(a+b+c+d)"] * 40),
    "*".join(f"(a{i}+b{i}+c{i}+d{i}+e{i})" for i in range(8)),
]


@pytest.mark.parametrize("text", MALFORMED + HUGE)
def test_refuses_malformed_text(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse(text)


@pytest.mark.parametrize("name", ["max", "0s", "", "a b", "s.0", "x" * 65])
def test_refuses_names(name: str) -> None:
    with pytest.raises(ValueError, match="not a name"):
        symbol(name)


def test_is_immutable_and_has_no_truth() -> None:
    with pytest.raises(AttributeError):
        s0.terms = ()  # type: ignore[misc]
    with pytest.raises(TypeError):
        bool(s0)
    assert s0 != 0
    assert s0 in (s1, s0)


def test_copies() -> None:
    expr = s0 * s1 + sym_max(s0, 3) // 2
    assert pickle.loads(pickle.dumps(expr)) == expr
    assert copy.deepcopy(expr) == expr


def test_free_symbols_and_substitute() -> None:
    expr = s0 * 2 + sym_max(s1 // 2, 4)
    assert isinstance(expr, SymExpr)
    assert free_symbols(expr) == {"s0", "s1"}
    assert substitute(expr, {"s0": s2 + 1, "s1": 2 * s2}) == s2 * 2 + 2 + sym_max(s2, 4)
    assert substitute(expr, {"s0": 1, "s1": 20}) == 12


def test_evaluate_reports_what_is_missing() -> None:
    with pytest.raises(KeyError):
        evaluate(s0 + s1, {"s0": 1})
    with pytest.raises(ZeroDivisionError):
        evaluate(s0 // s1, {"s0": 1, "s1": 0})
    with pytest.raises(ZeroDivisionError):
        floordiv(s0, 0)
    with pytest.raises(ZeroDivisionError):
        mod(s0, s1 - s1)


Tree = Any  # ("sym", name) | ("int", n) | (op, left, right)

_leaves = st.one_of(
    st.tuples(st.just("sym"), st.sampled_from(["s0", "s1"])), st.tuples(st.just("int"), st.integers(-12, 12))
)
_trees = st.recursive(
    _leaves,
    lambda inner: st.tuples(st.sampled_from(["+", "-", "*", "//", "%", "max", "min"]), inner, inner),
    max_leaves=9,
)


def _build(tree: Tree) -> Extent:
    if tree[0] == "sym":
        return symbol(tree[1])
    if tree[0] == "int":
        return tree[1]
    return _apply(tree[0], _build(tree[1]), _build(tree[2]))


def _apply(op: str, left: Any, right: Any) -> Any:
    match op:
        case "+":
            return left + right
        case "-":
            return left - right
        case "*":
            return left * right
        case "//":
            return left // right
        case "%":
            return left % right
        case "max":
            return sym_max(left, right)
    return sym_min(left, right)


def _plain(tree: Tree, values: dict[str, int]) -> int:
    if tree[0] == "sym":
        return values[tree[1]]
    if tree[0] == "int":
        return tree[1]
    return _apply(tree[0], _plain(tree[1], values), _plain(tree[2], values))


@given(_trees, st.integers(0, 40), st.integers(0, 40))
def test_every_simplification_is_exact(tree: Tree, first: int, second: int) -> None:
    values = {"s0": first, "s1": second}
    try:
        expected = _plain(tree, values)
        expr = _build(tree)
    except ZeroDivisionError:
        return
    assert evaluate(expr, values) == expected


@given(_trees, st.integers(0, 40), st.integers(0, 40))
def test_substitution_is_exact(tree: Tree, first: int, second: int) -> None:
    try:
        expected = _plain(tree, {"s0": first + 1, "s1": second})
        expr = substitute(_build(tree), {"s0": s2 + 1})
    except ZeroDivisionError:
        return
    assert evaluate(expr, {"s2": first, "s1": second}) == expected


@given(_trees)
def test_text_round_trip(tree: Tree) -> None:
    try:
        expr = _build(tree)
    except ZeroDivisionError:
        return
    assert parse(str(expr)) == expr
    assert hash(parse(str(expr))) == hash(expr)


@given(_trees, st.integers(0, 40), st.integers(0, 40))
def test_nonnegative_is_never_wrong(tree: Tree, first: int, second: int) -> None:
    try:
        expr = _build(tree)
        if is_nonnegative(expr):
            assert evaluate(expr, {"s0": first, "s1": second}) >= 0
    except ZeroDivisionError:
        return


@given(_trees, st.integers(0, 40), st.integers(0, 40), st.integers(0, 9), st.integers(0, 9))
def test_values_stay_within_their_bounds(tree: Tree, first: int, second: int, below: int, above: int) -> None:
    try:
        expr = _build(tree)
        low, high = bounds(expr, {"s0": (max(first - below, 0), first + above), "s1": (second, None)})
        value = evaluate(expr, {"s0": first, "s1": second})
    except ZeroDivisionError:
        return
    assert low is None or low <= value
    assert high is None or value <= high


@given(_trees, _trees)
def test_addition_and_multiplication_are_canonical(left: Tree, right: Tree) -> None:
    try:
        a, b = _build(left), _build(right)
    except ZeroDivisionError:
        return
    assert a + b == b + a
    assert a * b == b * a
    assert a + b - b == a

"""Rules and expansions of ATen operators are found by the names that torch gives their overloads."""

from __future__ import annotations

import torch

from forgec.passes.tiles import rule
from forgec.passes.tiles.rules import all_rules


def test_every_declared_operator_is_one_of_torch() -> None:
    all_rules()
    for callee in (*rule.OPERATORS, *rule.OPERATOR_EXPANSIONS):
        name, _, overload = callee.removeprefix("aten::").partition(".")
        packet = getattr(torch.ops.aten, name)
        assert not overload or overload in packet.overloads(), callee


def test_a_name_without_an_overload_stands_for_all_that_are_not_named() -> None:
    table = {"aten::lerp": "any", "aten::lerp.Tensor": "tensor"}
    assert rule.of_operator(table, "aten::lerp.Scalar") == "any"
    assert rule.of_operator(table, "aten::lerp.Tensor") == "tensor"
    assert rule.of_operator(table, "aten::lerped") is None

"""Comparison of two calls of one entry: results, arguments that are written, states."""

from __future__ import annotations

from typing import Any

import torch

from forgec.verify.calls import Contract, Outcome
from forgec.verify.tolerance import Deviation, Tolerance, deviation


def compare_outcomes(
    contract: Contract,
    expected: Outcome,
    found: Outcome,
    tolerance: Tolerance,
    exact: Outcome | None = None,
    native: Outcome | None = None,
) -> dict[str, Deviation]:
    """What differs by more than the tolerance, by name; what one of the two does not tell is left out.

    ``exact`` and ``native`` are what the reference interpreter yields in float64 and in the program's precision: they
    say how much rounding costs.
    """
    if len(expected.leaves) != len(found.leaves):
        text = f"{len(expected.leaves)} results became {len(found.leaves)}"
        return {"output": Deviation(problem=text)}
    old, new = _named(contract, expected), _named(contract, found)
    wide, narrow = ({} if outcome is None else _named(contract, outcome) for outcome in (exact, native))
    compared: dict[str, Deviation] = {}
    for name in old.keys() & new.keys():
        allowed = tolerance.with_rounding(wide[name], narrow[name]) if name in wide else tolerance
        compared[name] = compare_leaves(old[name], new[name], allowed)
    return {name: compared[name] for name in old if name in compared and not compared[name].agrees}


def _named(contract: Contract, outcome: Outcome) -> dict[str, Any]:
    """What a call did, by name, as far as it is told."""
    inputs = [info.name for info, held in zip(contract.described, contract.is_session_state, strict=True) if not held]
    named = dict(zip((f"argument {name}" for name in inputs), outcome.arguments, strict=True))
    named |= {f"state {name}": tensor for name, tensor in outcome.states.items()}
    named |= dict(zip(contract.output_names, outcome.leaves, strict=True))
    return {name: leaf for name, leaf in named.items() if leaf is not None}


def compare_leaves(wanted: Any, found: Any, tolerance: Tolerance) -> Deviation:
    """How far a leaf is from the one expected: a tensor, a number, or anything that can be equal."""
    numbers = (bool, int, float, complex)
    if not isinstance(wanted, (torch.Tensor, *numbers)) or not isinstance(found, (torch.Tensor, *numbers)):
        return Deviation(problem="" if wanted == found else f"{wanted!r} became {found!r}")
    return deviation(as_tensor(wanted), as_tensor(found), tolerance)


def as_tensor(value: Any) -> Any:
    """A number as a tensor of rank 0, of the dtype in which Python computes."""
    if isinstance(value, torch.Tensor):
        return value
    return torch.tensor(value, dtype=torch.float64 if isinstance(value, float) else None)

"""The samples of torch's own operator tests: what torch.export accepts compiles and gives what eager PyTorch gives.

A few samples of each operator, as different as possible; ``python -m tools.opinfo`` runs all of them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest

from forgec.capture.call import ROWS, Call
from forgec.ir import unsupported
from forgec.ir.unsupported import Unsupported
from forgec.report.coverage import ops_of
from tools.opinfo import Outcome, database, is_pointwise_or_reduction, outcomes, samples

COUNT = 2
"""Samples for each dtype."""

REFUSED: dict[str, Unsupported] = {
    "chalf": unsupported.DTYPES["complex32"],
    "hash_tensor": unsupported.DTYPES["uint64"],
    "sparse_mm_reduce": unsupported.SPARSE,
    "sparse_sampled_addmm": unsupported.SPARSE,
    "to_sparse": unsupported.SPARSE,
}
"""Operators of which every sample needs something unsupported."""


@pytest.fixture(autouse=True)
def _without_logs() -> Iterator[None]:
    """pytest listens to every logger, and torch.export then writes down all that it does."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture(autouse=True)
def _rows_emit_what_they_are_said_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each row emits no other ops than ``forgec ops`` says."""

    def checked(method: Any) -> Any:
        def emit(call: Call, cls: Any, *args: Any, **kwargs: Any) -> Any:
            assert call.name not in ROWS or cls in ops_of(ROWS[call.name]), f"{call.name} emits {cls.name}"
            return method(call, cls, *args, **kwargs)

        return emit

    for name in ("emit", "emit_all", "infer"):
        monkeypatch.setattr(Call, name, checked(getattr(Call, name)))


def _failed(found: list[Outcome]) -> list[Outcome]:
    if not found:
        pytest.skip("op_db has no samples of it for the CPU")
    assert all(o.code == "FORGE-C001" for o in found if o.status == "refused")
    return [outcome for outcome in found if outcome.status == "failed"]


@pytest.mark.parametrize("name", [name for name in database() if name not in REFUSED])
def test_samples_agree(name: str) -> None:
    op = database()[name]
    failed = _failed(outcomes(samples(op, COUNT)))
    if is_pointwise_or_reduction(op):
        failed += _failed(outcomes(samples(op, 1)[:1], dynamic=True))
    assert not failed, "\n".join(map(str, failed))


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_unsupported_is_refused_with_the_reason_that_the_matrix_gives(name: str) -> None:
    found = outcomes(samples(database()[name], COUNT))
    assert found
    for outcome in found:
        assert outcome.code in ("FORGE-C003", "FORGE-C004")
        assert REFUSED[name].reason in outcome.text

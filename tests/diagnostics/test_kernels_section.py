"""docs/coverage.md tells of every op of the dialect whether it has a kernel, and else why."""

from __future__ import annotations

from forgec.ir.forge import FORGE
from forgec.passes.lower_to_tile import has_rule
from forgec.report.kernels_section import WITHOUT_KERNEL, kernels_section, recorded
from tests.models.test_architectures import ROWS
from tools.tiles import RECORD


def test_every_op_has_a_rule_or_a_reason() -> None:
    without = {cls for cls in FORGE.operations if not has_rule(cls)}
    assert without == WITHOUT_KERNEL.keys()
    assert all(reason.strip() for reason in WITHOUT_KERNEL.values())


def test_every_architecture_is_recorded_and_what_torch_runs_has_a_reason() -> None:
    found = recorded(RECORD)
    assert found.keys() == {row.name for row in ROWS if not row.refused}
    assert all(row["error"] <= 2.1e-5 for row in found.values())
    assert all(bool(row["torch"]) == bool(row["reasons"]) for row in found.values())
    text = kernels_section(found)
    assert all(f"| {name} |" in text for name, row in found.items() if row["torch"])

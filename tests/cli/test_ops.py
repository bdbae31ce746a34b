import re
from pathlib import Path

import pytest
import torch

import forgec
from forgec.backends.base import backends
from forgec.capture.call import ROWS
from forgec.diagnostics import ForgeError
from forgec.ir.forge import FORGE
from forgec.ir.unsupported import Unsupported
from forgec.report.coverage import aten_entries, control_entries, forge_entries, ops_of
from forgec.report.coverage_page import coverage_page
from tests.cli.command import forgec as command

BACKEND = backends()["aten"]
ENTRIES = {entry.name: entry for entry in (*forge_entries(BACKEND), *control_entries(), *aten_entries(BACKEND))}


def test_no_cell_is_blank():
    """What a stage cannot do says why."""
    for entry in ENTRIES.values():
        for cell in (entry.capture, entry.reference, entry.backend):
            assert isinstance(cell, Unsupported) or cell.strip(), f"{entry.name}: {entry}"
            assert not isinstance(cell, Unsupported) or cell.reason.strip()


def test_all_ops_and_all_rows_are_there():
    assert {op.name for op in FORGE.operations} <= ENTRIES.keys()
    assert [name for name in ROWS if name in ENTRIES and ENTRIES[name].kind != "row"] == []
    assert [name for name, row in ROWS.items() if not ops_of(row)] == []


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("aten::to_sparse", lambda x: x.to_sparse()),
        ("aten::quantize_per_tensor", lambda x: torch.quantize_per_tensor(x, 0.1, 0, torch.qint8)),
        ("aten::to_mkldnn", lambda x: x.to_mkldnn()),
    ],
)
def test_capture_refuses_with_the_reason_of_the_matrix(name: str, function):
    with pytest.raises(ForgeError) as refused:
        forgec.compile(function, (torch.ones(2, 3),))
    cell = next(entry.capture for key, entry in ENTRIES.items() if key.startswith(name))
    assert isinstance(cell, Unsupported)
    if refused.value.code != "FORGE-C001":  # torch.export refused before
        assert cell.reason in str(refused.value)


def test_summary():
    finished = command("ops")
    assert (finished.code, finished.err) == (0, "")
    matmul = r"forge\.matmul +bmm, dot, matmul, mm, mv +yes +lowering"
    for text in (matmul, r"forge\.moe +pass fuse-moe", "backend aten"):
        assert re.search(text, finished.out), text
    assert "'forgec ops aten::' lists them" in finished.out
    assert "[bold]" not in finished.out


def test_patterns():
    found = command("ops", "aten::add.*").out
    assert re.search(r"aten::add\.Tensor +forge\.add", found)
    assert re.search(r"aten::add\.out +as aten::add\.Tensor", found)
    assert "forge.sub" not in found
    assert re.search(r"aten::lgamma +forge\.aten +torch +call of lgamma\.out", command("ops", "lgamma").out)
    assert "no operator has 'nonsense' in its name" in command("ops", "nonsense").out


@pytest.mark.parametrize(("name", "op"), [("cond", "if"), ("while_loop", "while"), ("scan", "for"), ("map", "for")])
def test_operators_on_functions(name: str, op: str):
    assert re.search(rf"higher_order::{name}(_impl)? +scf\.{op} +yes +in every plan", command("ops", name).out)
    assert f"higher_order::{name}" in command("ops").out
    assert "calls functions in a way" in command("ops", "associative_scan").out


def test_json():
    data = command("ops", "--json", "*::topk").json
    assert data["backend"] == "aten"
    (topk,) = data["operators"]
    assert topk.pop("name") == "aten::topk"
    assert topk == {"kind": "row", "capture": "forge.topk", "reference": "yes", "backend": "lowering"}
    (refused,) = command("ops", "--json", "aten::to_mkldnn").json["operators"][:1]
    assert "oneDNN" in refused["capture"]["unsupported"]


def test_an_unknown_backend():
    finished = command("ops", "--backend", "atn", "--json")
    assert finished.code == 1
    assert finished.error_codes == ["FORGE-U003"]


def test_the_page_is_up_to_date():
    page = Path(__file__).parents[2] / "docs" / "coverage.md"
    assert page.read_text(encoding="utf-8").startswith(coverage_page()), "run make docs"

"""The IR reference is complete and up to date."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from forgec.ir import reference_docs
from forgec.ir.forge import FORGE
from forgec.ir.plan import PLAN
from forgec.ir.plan_example import plan_example
from tests.ir.build import parse, text_of


def test_the_reference_is_up_to_date(capsys: pytest.CaptureFixture[str]) -> None:
    assert reference_docs.main(["--check"]) == 0, capsys.readouterr().err


def test_the_reference_has_every_op_with_a_meaning_and_no_dead_link() -> None:
    text = reference_docs.document()
    for op in (*FORGE.operations, *PLAN.operations):
        assert f"#### {op.name}\n" in text or f"`{op.name}` | " in text
        assert (op.__doc__ or "").strip()
    links = set(re.findall(r"\]\(#(\w+)\)", text))
    anchors = set(re.findall(r'<a id="(\w+)">', text)) | {
        name.replace(".", "") for name in re.findall(r"^#### (\S+)$", text, re.MULTILINE)
    }
    assert links == anchors


def test_an_old_reference_is_noticed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(reference_docs, "PATH", tmp_path / "ir.md")
    assert reference_docs.main(["--check"]) == 1
    assert "out of date" in capsys.readouterr().err
    assert reference_docs.main([]) == 0
    assert reference_docs.main(["--check"]) == 0


def test_the_example_plan_verifies_has_every_op_and_survives_as_text() -> None:
    module = plan_example()
    module.verify()
    assert {op.name for op in module.walk()} >= {op.name for op in PLAN.operations}
    printed = text_of(module)
    assert text_of(parse(printed)) == printed
    assert text_of(parse(text_of(module, print_generic_format=True))) == printed

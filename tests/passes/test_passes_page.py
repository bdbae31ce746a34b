"""docs/passes.md: where its text comes from, and what the generator says when something is missing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from forgec.passes import pipelines
from forgec.passes.registry import added_passes, available_passes
from forgec.report import pass_cases, passes_page
from forgec.report.pass_cases import CaseError, cases_of, evaluate_cases
from tests.passes import fakes
from tools import generate_docs

CASES = Path(__file__).parent.parent / "filecheck" / "passes"

EQUAL = """
func.func @equal(%x : tensor<4xf32>) -> tensor<4xf32> {
  %0 = forge.cos %x : (tensor<4xf32>) -> tensor<4xf32>
  %1 = forge.cos %x : (tensor<4xf32>) -> tensor<4xf32>
  %2 = forge.add %0, %1 : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>
  func.return %2 : tensor<4xf32>
}
"""
ALONE = """
// -----

// Nothing is computed twice.
// CHECK-LABEL: @alone
func.func @alone(%x : tensor<4xf32>) -> tensor<4xf32> {
  func.return %x : tensor<4xf32>
}
"""


def write(folder: Path, name: str, text: str, pipeline: str = "cse") -> None:
    run = f"// RUN: forgec opt %s -p '{pipeline}' --split-input-file | filecheck %s\n\n"
    (folder / f"{name}.mlir").write_text(run + text)


@pytest.mark.parametrize("name", available_passes())
def test_every_pass_has_one_case_to_show(name: str) -> None:
    assert sum(case.shows is not None for case in cases_of(name, CASES)) == 1


def test_a_case_is_shown_without_its_checks_and_with_what_the_pass_makes_of_it(tmp_path: Path) -> None:
    write(tmp_path, "cse", f"// DOC: one of two.\n// CHECK-LABEL: @equal\n// Says more.{EQUAL}{ALONE}")
    found = evaluate_cases("cse", tmp_path)
    assert found.shown.shows == "one of two."
    assert found.shown.says == "Says more."
    assert found.shown.text == EQUAL.strip()
    assert found.after.count("forge.cos") == 1
    assert found.after.startswith("func.func @equal(")
    assert found.left_alone == ["Nothing is computed twice."]


def test_refusals_and_remarks_are_listed(tmp_path: Path) -> None:
    shape = "%0 = forge.add %x, %y : (tensor<4xf32>, tensor<TYPExf32>) -> tensor<?xf32, #forge.tensor<[s0]>>"
    text = f"func.func @f(%x : tensor<4xf32>, %y : tensor<TYPExf32>) -> () {{\n  {shape}\n  func.return\n}}\n"
    write(tmp_path, "infer-shapes", "// DOC: it fits.\n" + text.replace("TYPE", "4"), "infer-shapes")
    write(tmp_path, "infer-shapes-refuse", text.replace("TYPE", "3"), "infer-shapes")
    assert evaluate_cases("infer-shapes", tmp_path).left_alone == [
        "`FORGE-I002` forge.add: extents 4 and 3 do not broadcast"
    ]
    assert [r.code for r in evaluate_cases("fuse-elementwise", CASES).remarks] == ["FORGE-O001"] * 4


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (EQUAL, r"pass cse has no case to show: write '// DOC: what it shows\.' above a short one in .*cse\.mlir"),
        (f"// DOC: a.{EQUAL}// -----\n// DOC: b.{EQUAL}", "pass cse has 2 cases with '// DOC:'"),
        ("// DOC: a." + EQUAL.replace("{\n", "{\n" + "  %y = forge.neg %x : (tensor<4xf32>) -> tensor<4xf32>\n" * 17),
         "has 23 lines, at most 22 fit"),
        ("// DOC: a." + ALONE.partition("@alone\n")[2].join(["\n", ""]), "leaves the case that // DOC: marks as it is"),
    ],
)  # fmt: skip
def test_what_cannot_be_shown_is_refused(tmp_path: Path, text: str, message: str) -> None:
    write(tmp_path, "cse", text)
    with pytest.raises(CaseError, match=message):
        evaluate_cases("cse", tmp_path)


def test_a_file_belongs_to_the_pass_with_the_longest_name() -> None:
    with added_passes(fakes.Leave):
        assert pass_cases._owner("leave-more") == "leave"
        assert pass_cases._owner("constant-fold-symbols") == "constant-fold"
        assert pass_cases._owner("leaves") is None


def test_all_passes_that_lack_something_are_named_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, "leave", EQUAL, "leave")
    monkeypatch.setattr(passes_page, "available_passes", lambda: {p.name: (lambda p=p: p) for p in fakes.ALL[:2]})
    monkeypatch.setattr(passes_page, "_steps", dict)
    monkeypatch.setattr(generate_docs, "PAGES", {"passes.md": lambda: passes_page.passes_page(tmp_path)})
    monkeypatch.setattr(generate_docs, "DOCS", tmp_path)
    assert generate_docs.main([]) == 1
    told = capsys.readouterr().err
    for name in (p.name for p in fakes.ALL[:2]):
        assert f"pass {name} has no case to show" in told
    assert not (tmp_path / "passes.md").exists()


def test_a_pass_of_the_preset_says_why_it_stands_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "subtract-instead", f"// DOC: one of two.\n{fakes.ADDS}", "subtract-instead")
    with added_passes(fakes.SubtractInstead):
        monkeypatch.setattr(
            passes_page, "available_passes", lambda: {"subtract-instead": lambda: fakes.SubtractInstead}
        )
        monkeypatch.setattr(passes_page, "_steps", lambda: {"subtract-instead": [1]})
        with pytest.raises(CaseError, match="pass subtract-instead is part of @O2: end its docstring with 'Order: "):
            passes_page.passes_page(tmp_path)


@dataclass(frozen=True)
class Wordy(fakes.Leave):
    """Say a lot,
    in two lines.

    Before::

        %0 = not.shown

        %1 = not.shown.either

    After::

        %0 = not.shown

    It takes ``options``, as in::

        wordy{count-all=true}

    More of :mod:`forgec`.

    Order: after all else.
    """

    count_all: bool = False


def test_docstrings_are_taken_apart(tmp_path: Path) -> None:
    write(tmp_path, "cse", f"// DOC: one of two.{EQUAL}")
    described = passes_page.PassDoc.of(Wordy, evaluate_cases("cse", tmp_path))
    assert described.summary == "Say a lot,\nin two lines."
    assert described.details == ["It takes `options`, as in:", "```\nwordy{count-all=true}\n```", "More of `forgec`."]
    lines = described.lines([3, 5, 8])
    assert "Steps 3, 5 and 8 of `@O2`: after all else." in lines
    assert "| `count-all` | bool | `false` |" in lines
    assert "Before (`cse.mlir`): one of two." in lines
    assert "Not in `@O2`: after all else." in described.lines([])


def test_the_overview_says_of_each_step_why_it_stands_there() -> None:
    page = (generate_docs.DOCS / "passes.md").read_text(encoding="utf-8")
    rows = [line.split(" | ") for line in page.splitlines() if line.startswith("| ") and "](#" in line]
    numbers = sorted(int(n) for row in rows for n in row[0].removeprefix("| ").split(", "))
    assert numbers == list(range(1, len(pipelines.parse("@O2")) + 1))
    assert all(len(row[2]) > 20 for row in rows)

import pytest

from forgec.diagnostics import Diagnostic, Location
from forgec.diagnostics.diagnostic import Severity
from forgec.passes.expectations import compare, find
from forgec.passes.ir_source import Piece, split


def piece(*lines: str) -> Piece:
    return Piece("t.mlir", "\n".join(lines), 1)


def places(*lines: str) -> list[int | None]:
    expectations, malformed = find(piece(*lines))
    assert not malformed
    return [expectation.line for expectation in expectations]


def check(text: str, *reported: tuple[str, int | None], severity: Severity = "error") -> list[str]:
    expectations, malformed = find(piece(text))
    found = [(Diagnostic("FORGE-I002", message, severity=severity), line) for message, line in reported]
    return [d.message for d in malformed + compare(piece(text), expectations, found)]


def test_places():
    assert places("// expected-error {{a}}") == [1]
    assert places("", "op // expected-remark@-1 {{a}}") == [1]
    assert places("// expected-warning@+3 {{a}}") == [4]
    assert places("// expected-error@unknown {{a}}") == [None]
    assert places("// expected-error @+1 {{a}}") == [2]


def test_below_and_above_skip_other_comments():
    assert places("op", "// expected-error@below {{a}}", "// expected-error@above {{b}}", "op") == [4, 1]


def test_matching_needs_line_severity_and_text():
    assert check("// expected-error {{does not}}", ("op does not verify", 1)) == []
    assert len(check("// expected-error {{does not}}", ("op does not verify", 2))) == 2
    assert len(check("// expected-error {{does}}", ("op does not verify", 1), severity="warning")) == 2
    assert len(check("// expected-error {{other}}", ("op does not verify", 1))) == 2


def test_codes_can_be_expected():
    assert check("// expected-error {{FORGE-I002: op}}", ("op does not verify", 1)) == []


def test_one_comment_matches_one_diagnostic():
    assert check("// expected-error {{op}}", ("op", 1), ("op", 1)) == ["unexpected error: FORGE-I002: op"]
    assert check("// expected-error {{op}}") == ["expected error was not reported: op"]


def test_regular_expressions_stand_in_braces():
    assert check("// expected-error-re {{op.{{[0-9]+}}(}}", ("op.42(", 1)) == []
    assert len(check("// expected-error-re {{op.{{[0-9]+}}(}}", ("op.x(", 1))) == 2


def test_no_place():
    assert check("// expected-error@unknown {{op}}", ("op", None)) == []


@pytest.mark.parametrize("comment", ["// expected-error@1 {{a}}", "// expected-error@+ {{a}}", "// expected-error {{a"])
def test_malformed_comments_are_reported(comment: str):
    (diagnostic,) = find(piece("", comment))[1]
    assert diagnostic.code == "FORGE-P006"
    assert diagnostic.location == Location("t.mlir", 2)


def test_comments_of_later_pieces_count_from_the_start_of_the_file():
    pieces = split("t.mlir", "a\nb\n// -----\n// expected-error@+1 {{x}}\nc\n", at_separators=True)
    (expectation,) = find(pieces[1])[0]
    assert (expectation.comment_line, expectation.line) == (4, 5)

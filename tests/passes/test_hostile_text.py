"""Whatever text is given: a result, or a ForgeError with a code; never another exception."""

from hypothesis import given, settings
from hypothesis import strategies as st

from forgec.diagnostics import Diagnostic, ForgeError
from forgec.passes import expectations, ir_source
from forgec.passes.ir_source import Piece
from forgec.passes.pipelines import parse, text_of
from forgec.passes.registry import added_passes
from tests.passes import fakes

WORDS = [
    "leave",
    "subtract-instead",
    "count",
    "@O1",
    "@",
    "{",
    "}",
    "[",
    "]",
    "=",
    ",",
    " ",
    '"',
    "\\",
    "1",
    "-2.5",
    "true",
    "é",
]
CONTEXT = ir_source.context()


@given(st.lists(st.sampled_from(WORDS), max_size=8).map("".join))
@settings(deadline=None, max_examples=300)
def test_pipelines(text: str):
    with added_passes(*fakes.ALL):
        try:
            passes = parse(text)
        except ForgeError as exc:
            codes = {d.code for d in exc.diagnostics}
        else:
            codes = set()
            assert parse(text_of(passes)) == passes
    assert codes <= {"FORGE-P001", "FORGE-P002"}


@st.composite
def mutated_ir(draw: st.DrawFn) -> str:
    text = fakes.ADDS
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(text)))
        end = draw(st.integers(start, min(len(text), start + 12)))
        text = (
            text[:start]
            + draw(st.sampled_from(["", "%", "i64", "(", "}", "@f", ":", "\n", "-1", "loc(", '"', "#x", "!y"]))
            + text[end:]
        )
    return text


@given(mutated_ir())
@settings(deadline=None, max_examples=300)
def test_ir(text: str):
    diagnostics: list[Diagnostic] = []
    try:
        source = ir_source.parse(Piece("t.mlir", text, 1), CONTEXT)
        assert set(source.lines) == set(source.module.walk())
    except ForgeError as exc:
        diagnostics = exc.diagnostics
    for diagnostic in diagnostics:
        assert diagnostic.code == "FORGE-I001"
        assert diagnostic.location is not None
        assert 1 <= diagnostic.location.line <= text.count("\n") + 1


@given(
    st.lists(
        st.sampled_from(["// expected-error", "-re", "@", "@+1", "@below", " ", "{{", "}}", "[", "(", "\n", "x"]),
        max_size=12,
    )
)
@settings(deadline=None, max_examples=300)
def test_expectations(parts: list[str]):
    piece = Piece("t.mlir", "".join(parts), 1)
    found, malformed = expectations.find(piece)
    missing = expectations.compare(piece, found, [])
    assert len(missing) == len(found)
    assert {d.code for d in malformed + missing} <= {"FORGE-P006"}

"""Whatever text is given: a result, or a ForgeError with a code; never another exception."""

import io

from hypothesis import given, settings
from hypothesis import strategies as st

from forgec.diagnostics import Diagnostic, ForgeError
from forgec.ir.examples import FORGE_EXAMPLES, module_of
from forgec.passes import expectations, ir_source
from forgec.passes.ir_source import Piece
from forgec.passes.opt_driver import OptOptions, optimize
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


NO_TYPE = '"func.func"() <{sym_name = "f"}> ({\n  "func.return"() : () -> ()\n}) : () -> ()\n'


def test_a_verifier_that_relies_on_what_is_broken():
    """xDSL's return looks at the type of its function, which this one does not have."""
    result = optimize(NO_TYPE, "t.mlir", OptOptions(), io.StringIO())
    assert {d.code for d in result.diagnostics} == {"FORGE-I002"}
    assert any("function_type" in d.message for d in result.diagnostics)


def test_what_cannot_be_printed_in_its_own_form():
    result = optimize(NO_TYPE, "t.mlir", OptOptions(disable_verify=True), io.StringIO())
    assert '"func.func"()' in result.text


UNKNOWN = """
func.func @forward(%x: tensor<4xf32>) -> tensor<4xf32> {
  %r = forge.aten "func.return"(%x) : (tensor<4xf32>) -> tensor<4xf32>
  func.return %r : tensor<4xf32>
}
"""


def test_operators_that_torch_does_not_have():
    lowered = optimize(UNKNOWN, "t.mlir", OptOptions(pipeline="lower-to-plan"), io.StringIO())
    assert [d.code for d in lowered.diagnostics] == ["FORGE-B002"]
    updating = optimize(UNKNOWN.replace("(%x) :", "(%x) updates :"), "t.mlir", OptOptions(), io.StringIO())
    assert [d.code for d in updating.diagnostics] == ["FORGE-I001"]


LAUNCH = """
"builtin.module"() ({
  "plan.entry"() <{sym_name = "f", inputs = #forge.args<(operand<0>)>, in_tree = "", out_tree = "",
                   parameters = #forge.args<()>}> ({
    %x = "plan.input"() <{index = #builtin.int<0>, label = "x"}> : () -> tensor<2xf32>
    %y = "plan.output"() : () -> tensor<3xf32>
    "plan.launch"(%y, %x) <{callee = "aten::a.out", args = #forge.args<(operand<1>, operand<1>, out = operand<0>)>,
                            writes = #forge.ints<[0]>, source = ""}> : (tensor<3xf32>, tensor<2xf32>) -> ()
    "plan.return"(%y) <{leaves = #forge.args<(operand<0>)>}> : (tensor<3xf32>) -> ()
  }) : () -> ()
}) : () -> ()
"""


def test_operands_that_do_not_stand_in_the_order_of_the_call():
    """The text numbers them as the call names them, or what was printed would be another launch."""
    printed = optimize(LAUNCH, "t.mlir", OptOptions(), io.StringIO()).text
    assert 'plan.launch "aten::a.out"(%x, %x, out = %y) writes [1] from "" : (tensor<2xf32>, tensor<3xf32>)' in printed
    assert optimize(printed, "t.mlir", OptOptions(), io.StringIO()).text == printed


def test_outlining_twice():
    """The second time finds the names of the first."""
    text = next(text for text in map(module_of, FORGE_EXAMPLES) if "scf.for" in text)
    options = OptOptions(pipeline="outline-control-flow,outline-control-flow")
    assert not optimize(text, "t.mlir", options, io.StringIO()).diagnostics

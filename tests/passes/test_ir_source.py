import pytest
from xdsl.dialects.builtin import FileLineColLoc, NameLoc

from forgec.diagnostics import ForgeError
from forgec.passes import ir_source
from forgec.passes.ir_source import Piece, parse, split
from tests.passes import fakes


def test_pieces_keep_their_line_numbers():
    text = "one\n// -----\ntwo\ntwo\n// -----  \n// -----// not a separator\nthree\n"
    pieces = split("t.mlir", text, at_separators=True)
    assert [piece.first_line for piece in pieces] == [1, 2, 5]
    assert [piece.text.strip() for piece in pieces] == ["one", "two\ntwo", "// -----// not a separator\nthree"]
    for piece in pieces:
        for number, line in enumerate(piece.text.split("\n"), 1):
            assert line in (text.split("\n")[number - 1], "")


def test_without_splitting_a_file_is_one_piece():
    assert split("t.mlir", "a\n// -----\nb", at_separators=False) == [Piece("t.mlir", "a\n// -----\nb", 1)]


def test_ops_know_their_lines():
    source = parse(Piece("t.mlir", fakes.ADDS, 1), ir_source.context())
    assert [source.lines[op] for op in source.module.walk()] == [1, 1, 2, 3, 4]


def test_ops_without_a_location_get_the_one_of_the_text_and_others_keep_theirs():
    text = fakes.ADDS.replace("%a : i32\n  %y", '%a : i32 loc("layer"("f"("model.py":7:0)))\n  %y')
    first, second = fakes.adds(fakes.parse(text))
    assert isinstance(first.location, NameLoc)
    assert isinstance(second.location, FileLineColLoc)
    assert (second.location.line.data, second.location.column.data) == (3, 3)


@pytest.mark.parametrize(
    ("text", "line", "column"),
    [
        ("func.func @f() {\n  func.return\n", 3, 1),
        ("%x = no.op\n", 1, 1),
        ('\n  "no.op"() : () -> ()', 2, 3),
        ("func.func @f(%a : !no.type) {\n}", 1, 27),
        ("func.func @f() {\n  func.return %x : i32\n}", 2, 15),
        ("\x00", 1, 1),
        ("func.func @f() -> tensor<-3xf32>", 1, 26),
        ("{" * 50, 1, 1),
        ("}", 1, 1),
    ],
)
def test_syntax_errors_have_a_position(text: str, line: int, column: int):
    with pytest.raises(ForgeError) as caught:
        parse(Piece("t.mlir", text, 1), ir_source.context())
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.code == "FORGE-I001"
    assert diagnostic.location is not None
    assert (diagnostic.location.file, diagnostic.location.line) == ("t.mlir", line)
    assert diagnostic.notes[0].startswith(f"at t.mlir:{line}:{column}\n")


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("!tile.block", "!tile.block takes 1 parameter in angle brackets, found 0"),
        ("!tile.block<>", "!tile.block takes 1 parameter in angle brackets, found 0"),
        ("!aref.ring<f32, f32>", "!aref.ring takes 1 parameter in angle brackets, found 2"),
        ("!warp.token<f32>", "!warp.token takes no parameters in angle brackets, found 1"),
        ("!forge.state", "!forge.state takes 1 parameter in angle brackets, found 0"),
        ("!tile.block<f32>", "parameter 'value' does not verify: f32 should be of base attribute tensor"),
    ],
)
def test_types_with_other_parameters_than_they_have(kind: str, message: str):
    with pytest.raises(ForgeError) as caught:
        parse(Piece("t.mlir", f"\nfunc.func @f(%a: {kind}) {{\n  func.return\n}}", 1), ir_source.context())
    (diagnostic,) = caught.value.diagnostics
    assert (diagnostic.code, diagnostic.message) == ("FORGE-I001", message)
    assert diagnostic.location is not None
    assert diagnostic.location.line == 2


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ('ii = 8, bound = 9, binding = "x", stages = 1, status = optimal', "the interval 8 is below its bound 9"),
        ('ii = 8, bound = 8, binding = "x", stages = 1, status = best', "expected one of optimal, feasible, timeout"),
        ('ii = 8, bound = 8, binding = "x", stages = 1', "expected ','"),
    ],
)
def test_summaries_of_schedules_that_say_what_cannot_be(numbers: str, message: str):
    with pytest.raises(ForgeError) as caught:
        fakes.parse(f'"test.op"() {{a = #warp.schedule<{numbers}>}} : () -> ()')
    assert caught.value.code == "FORGE-I001"
    assert message in str(caught.value)


def test_a_missing_quote_is_found_at_once():
    with pytest.raises(ForgeError, match="closing string literal"):
        parse(Piece("t.mlir", '"' + "a" * 100_000, 1), ir_source.context())


def test_strings_with_escapes_are_read():
    module = fakes.parse('"test.op"() {a = "q\\"uo\\te\\0A"} : () -> ()')
    assert 'a = "q\\22uo\\09e\\0A"' in str(module), "printed with hexadecimal escapes"


def test_xdsls_dialects_are_known():
    fakes.parse('func.func @f(%a : memref<4xf32>) {\n  "test.op"(%a) : (memref<4xf32>) -> ()\n  func.return\n}')

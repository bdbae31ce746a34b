"""IR text for ``forgec opt``: every op's example, in both forms, changed, through random passes."""

from __future__ import annotations

import io
import random
import re
import traceback
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from xdsl.printer import Printer

from forgec.diagnostics import ForgeError
from forgec.ir.examples import FORGE_EXAMPLES, module_of
from forgec.ir.plan_example import plan_example
from forgec.passes import ir_source
from forgec.passes.ir_source import Piece
from forgec.passes.opt_driver import OptOptions, OptResult, optimize
from forgec.passes.pipelines import PRESETS
from forgec.passes.registry import available_passes
from tools.fuzz.batches import Outcome

DEFECTS = ("FORGE-X", "FORGE-P003", "FORGE-P004", "FORGE-P005")
"""Codes that blame forgec: text that verifies must not lead to them."""

_TOKEN = re.compile(r'"[^"\n]*"|[%@#!^]?[\w.$]+|->|\s+|.', re.DOTALL)
_WORDS = [
    "%", "%x", "%r", "@f", "@weight", "#forge.tensor<[s0]>", "!forge.state<tensor<4xf32>>", "tensor<4x8xf32>",
    "tensor<0xf32>", "tensor<?xf32>", "tensor<*xf32>", "tensor<f32>", "f32", "i64", "i1", "index", "bf16", "none",
    "loc(unknown)", "loc(", "-1", "0", "1", "99999999999999999999", "9223372036854775807", "1.0e400", "0x7F", "nan",
    "-inf", "true", "s0", "s1", "s0 * s0", "floordiv(s0, 0)", "mod(s0, 0)", "max(s0, 1)", "(", ")", "[", "]", "{",
    "}", "<", ">", "->", ":", ",", "=", '"', '"x"', "dense<1>", "dense<[]>", "unit", "operand<0>", "operand<9>",
    "expr<s0>", "complex<1, 2>", "dtype.f32", "device.cpu", "device.cuda:99", "layout.strided", "\n", "é", "\x00",
    "forge.add", "forge.aten", '"aten::topk"', '"aten::nothing"', "func.func", "func.return", "builtin.module",
    "arith.constant 1 : i32",
]  # fmt: skip


@cache
def sources() -> tuple[str, ...]:
    """Modules as text: each example as it is printed, and in the generic form."""
    context = ir_source.context()
    texts: list[str] = []
    for example in FORGE_EXAMPLES:
        text = module_of(example)
        texts += [text, _generic(ir_source.parse(Piece("example.mlir", text, 1), context).module)]
    stream = io.StringIO()
    Printer(stream).print_op(plan_example())
    return (*texts, stream.getvalue(), _generic(plan_example()))


def _generic(module: object) -> str:
    stream = io.StringIO()
    Printer(stream, print_generic_format=True).print_op(module)  # type: ignore[arg-type]
    return stream.getvalue()


class TextCase:
    """The cases of one run, by number."""

    def __init__(self, run_seed: int, folder: Path) -> None:
        self.run_seed = run_seed
        self.folder = folder
        self.sources = sources()
        self.passes = list(available_passes())

    def kind_of(self, index: int) -> str:
        return "verified" if self._verifies(index) else "not verified"

    def _verifies(self, index: int) -> bool:
        return random.Random(f"{self.run_seed}/{index}/verify").random() < 0.85

    def _draw(self, index: int) -> random.Random:
        return random.Random(f"{self.run_seed}/{index}")

    def write(self, index: int, folder: Path) -> Path:
        path = folder / f"{self.run_seed}-{index}.mlir"
        draw = self._draw(index)
        path.write_text(self._text(draw), errors="surrogatepass")
        print(f"pipeline: {self._pipeline(draw)!r}")
        return path

    def _text(self, draw: random.Random) -> str:
        return mutated(draw.choice(self.sources), self.sources, draw)

    def _pipeline(self, draw: random.Random) -> str:
        passes = [draw.choice(self.passes) for _ in range(draw.choice([0, 1, 1, 2, 3]))]
        return draw.choice(
            [*(f"@{name}" if not name.startswith("@") else name for name in PRESETS), *[",".join(passes)] * 6]
        )

    def __call__(self, index: int) -> Outcome:
        draw = self._draw(index)
        text, pipeline = self._text(draw), self._pipeline(draw)
        verifies = self._verifies(index)
        options = OptOptions(
            pipeline=pipeline,
            disable_verify=not verifies,
            print_locations=draw.random() < 0.2,
            verify_each=draw.random() < 0.2,
            split_input_file=draw.random() < 0.1,
            reproducers=self.folder,
        )
        kind = self.kind_of(index)
        try:
            result = optimize(text, "mutant.mlir", options, io.StringIO())
        except ForgeError as reason:
            str(reason)
            return Outcome(kind, f"refused, {reason.code}", _blame(verifies, [reason.code], str(reason)))
        except Exception:
            return Outcome(kind, "another exception", traceback.format_exc())
        return self._judge(kind, verifies, result)

    def _judge(self, kind: str, verifies: bool, result: OptResult) -> Outcome:
        codes = [diagnostic.code for diagnostic in result.diagnostics if diagnostic.severity == "error"]
        shown = str(ForgeError(result.diagnostics)) if result.diagnostics else ""
        if codes:
            return Outcome(kind, f"refused, {codes[0]}", _blame(verifies, codes, shown))
        if verifies:
            try:  # what was printed must be text of the same language
                ir_source.parse(Piece("printed.mlir", result.text, 1), ir_source.context())
            except ForgeError as reason:
                return Outcome(kind, "printed what cannot be read", f"{reason}\n{result.text}")
        return Outcome(kind, "went through")


def _blame(verifies: bool, codes: Sequence[str], text: str) -> str:
    return text if verifies and any(code.startswith(DEFECTS) for code in codes) else ""


def mutated(text: str, others: Sequence[str], draw: random.Random) -> str:
    """The text with a few tokens or characters changed."""
    tokens = _TOKEN.findall(text)
    if draw.random() < 0.7:
        for _ in range(draw.choice([1, 1, 2])):
            _replace_by_its_like(tokens, _TOKEN.findall(draw.choice(others)), draw)
        return "".join(tokens)
    for _ in range(draw.choice([1, 1, 1, 2, 3, 6])):
        if not tokens:
            break
        start = draw.randrange(len(tokens))
        end = min(start + draw.choice([1, 1, 2, 5]), len(tokens))
        other = _TOKEN.findall(draw.choice(others)) if draw.random() < 0.3 else tokens
        match draw.randrange(7):
            case 0:
                del tokens[start:end]
            case 1:
                tokens[start:start] = tokens[start:end]
            case 2:
                tokens[start:end] = [draw.choice(_WORDS)]
            case 3:
                tokens[start] = draw.choice(other)
            case 4:
                place = draw.randrange(len(tokens))
                tokens[start], tokens[place] = tokens[place], tokens[start]
            case 5:
                tokens[start] = _nearby(tokens[start], draw)
            case _:
                tokens.insert(start, draw.choice([*_WORDS, draw.choice(other)]))
    return "".join(tokens)


def _replace_by_its_like(tokens: list[str], others: list[str], draw: random.Random) -> None:
    """A number for a number, a type for a type, an op for an op: text that can often be read."""
    place = draw.randrange(len(tokens))
    while tokens[place].isspace() or not (tokens[place].isalnum() or len(tokens[place]) > 2):
        place = draw.randrange(len(tokens))
    old = tokens[place]
    if old.isdigit() and draw.random() < 0.5:
        tokens[place] = draw.choice(
            ["0", "1", "2", "3", "7", "64", "4294967296", str(int(old) + 1), "9223372036854775807"]
        )
        return
    if re.fullmatch(r"[0-9?x]*x?[a-z]+[0-9]+[a-z0-9]*", old) and draw.random() < 0.6:
        parts = old.split("x")
        where = draw.randrange(len(parts))
        last = where == len(parts) - 1
        parts[where] = draw.choice(
            ["f32", "bf16", "i64", "i1", "f8E4M3FN", "ui8", "i8"] if last else ["?", "0", "1", "2", "8", "1000000"]
        )
        tokens[place] = "x".join(parts if draw.random() < 0.8 else parts[1:] or parts)
        return
    like = [token for token in (*tokens, *others) if _class_of(token) == _class_of(old)]
    tokens[place] = draw.choice(like)


def _class_of(token: str) -> str:
    if token[:1] in '%@#!^"':
        return token[0]
    if token.isdigit():
        return "number"
    if re.fullmatch(r"[0-9?x]*x?[a-z]+[0-9]+", token):
        return "type"
    return "op" if "." in token else "word" if token[:1].isalpha() else "mark"


def _nearby(token: str, draw: random.Random) -> str:
    if token.isdigit():
        return str(draw.choice([int(token) + 1, max(int(token) - 1, 0), 0, int(token) * 2, -1]))
    if not token:
        return token
    position = draw.randrange(len(token))
    return token[:position] + draw.choice(["", "x", "0", "-", '"', "é"]) + token[position + 1 :]

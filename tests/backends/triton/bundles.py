"""Kernels that apply many ops to one tile, and write each result to a row of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.ir.tile.op_names import CMPF, CMPI, FLOAT_BINARY, FLOAT_BINARY_MATH, INT_BINARY, SHIFTS, UNARY

SIZE = 64
"""Elements of the tile; the tensors have fewer, so that it is not full."""


def tile(element: str, *extents: int) -> str:
    """A static tile type."""
    return f"tensor<{''.join(f'{extent}x' for extent in extents)}{element}>"


def block(element: str, *extents: int | str, strides: str | None = None) -> str:
    """A block type; extents that are names are symbols of the kernel."""
    names = [extent for extent in extents if isinstance(extent, str)]
    sizes = "".join("?x" if isinstance(extent, str) else f"{extent}x" for extent in extents)
    encoding = f"[{', '.join(names)}]" + (f", strides = {strides}" if strides else "")
    suffix = f", #forge.tensor<{encoding}>" if names or strides else ""
    return f"!tile.block<tensor<{sizes}{element}{suffix}>>"


@dataclass
class Bundle:
    """One kernel over ``inputs`` (name → element type), all of extent n0; each result is a row of an output."""

    name: str
    inputs: dict[str, str]
    lines: list[str] = field(default_factory=list)
    rows: dict[str, list[tuple[str, str]]] = field(default_factory=dict)  # by element type: (what, value)
    size: int = SIZE

    def op(self, what: str, text: str, element: str, *, value: str | None = None) -> str:
        """``text`` is the op without its result, which becomes a row of the output of this element type."""
        name = value or f"v{len(self.lines)}"
        self.lines.append(f"%{name} = {text}")
        self.rows.setdefault(element, []).append((what, name))
        return name

    def line(self, text: str) -> None:
        """An op whose result is no row."""
        self.lines.append(text)

    def text(self) -> str:
        """The kernel; outputs are named ``out_ELEMENT``."""
        outputs = {element: f"out_{element}" for element in self.rows}
        parameters = [f"%{name} : {block(element, 'n0')}" for name, element in self.inputs.items()]
        parameters += [
            f"%{name} : {block(element, len(self.rows[element]), 'n0')}" for element, name in outputs.items()
        ]
        first = len(self.inputs)
        writes = list(range(first, first + len(outputs)))
        body = ["%p = tile.program_id 0", "%o = tile.index p0 * BM (%p) : (index) -> index"]
        for name, element in self.inputs.items():
            other = "1.0" if element.startswith(("f", "b")) else "1"
            types = f"{block(element, 'n0')} -> {tile(element, self.size)}"
            body.append(f"%{name}_tile = tile.load %{name}[%o] other {other} : {types}")
        body += self.lines
        for element, name in outputs.items():
            for row, (_, value) in enumerate(self.rows[element]):
                target = block(element, len(self.rows[element]), "n0")
                flat = tile(element, 1, self.size)
                body += [
                    f"%{value}_row = arith.constant {row} : index",
                    f"%{value}_flat = tile.broadcast %{value} along [1] : {tile(element, self.size)} -> {flat}",
                    f"tile.store %{value}_flat, %{name}[%{value}_row, %o] : {flat}, {target}",
                ]
        body.append("tile.return")
        lines = "\n  ".join(body)
        return (
            f"tile.kernel @{self.name}({', '.join(parameters)}) symbols [n0] writes {writes} tiles [BM over n0] "
            f"grid [floordiv(n0 + BM - 1, BM)] bound {{BM = {self.size}}} {{\n  {lines}\n}}"
        )

    def names(self) -> dict[str, list[str]]:
        """What the rows of each output are."""
        return {f"out_{element}": [what for what, _ in rows] for element, rows in self.rows.items()}


def floats(element: str, unary: Sequence[str] = UNARY) -> Bundle:
    """Functions of one and two floats."""
    bundle = Bundle(f"floats_{element}", {"x": element, "y": element})
    kind = tile(element, bundle.size)
    for name in unary:
        bundle.op(name, f"math.{name} %x_tile : {kind}", element)
    bundle.op("negf", f"arith.negf %x_tile : {kind}", element, value="negated")
    bundle.line(f"%one = arith.constant 1.0 : {element}")
    bundle.line(f"%ones = tile.broadcast %one along [] : {element} -> {kind}")
    bundle.op("1 / negf", f"arith.divf %ones, %negated : {kind}", element)
    for name in FLOAT_BINARY:
        bundle.op(name, f"arith.{name} %x_tile, %y_tile : {kind}", element)
    for name in FLOAT_BINARY_MATH:
        bundle.op(name, f"math.{name} %x_tile, %y_tile : {kind}", element)
    bundle.op("fma", f"math.fma %x_tile, %y_tile, %x_tile : {kind}", element)
    bundle.line(f"%tenth = arith.constant 0.1 : {element}")
    bundle.line(f"%tenths = tile.broadcast %tenth along [] : {element} -> {kind}")
    for name in ("mulf", "maximumf", "divf"):
        bundle.op(f"{name} 0.1", f"arith.{name} %x_tile, %tenths : {kind}", element)
    bundle.op("0.1 divf", f"arith.divf %tenths, %x_tile : {kind}", element)
    return bundle


def signs() -> Bundle:
    """The signs of floats of all types, also of those that are no numbers, given to others."""
    bundle = Bundle("signs", {f"{name}_{element.lower()}": element for element in FLOATS for name in "xy"})
    for element in FLOATS:
        x, y = (f"%{name}_{element.lower()}_tile" for name in "xy")
        bundle.op(element, f"math.copysign {x}, {y} : {tile(element, bundle.size)}", element)
    return bundle


def float_comparisons(element: str) -> Bundle:
    """All predicates, and a choice by one."""
    bundle = Bundle(f"comparisons_{element}", {"x": element, "y": element})
    kind = tile(element, bundle.size)
    for name in CMPF:
        bundle.op(name, f"arith.cmpf {name}, %x_tile, %y_tile : {kind}", "i1", value=f"is_{name}")
    bools = tile("i1", bundle.size)
    bundle.op("select", f"arith.select %is_olt, %x_tile, %y_tile : {bools}, {kind}", element)
    for name in ("andi", "ori", "xori", "addi", "muli", "maxsi", "minui"):
        bundle.op(name, f"arith.{name} %is_olt, %is_uno : {bools}", "i1")
    for name in CMPI:
        bundle.op(f"cmpi {name}", f"arith.cmpi {name}, %is_olt, %is_une : {bools}", "i1")
    bundle.line("%yes = arith.constant true")
    bundle.line(f"%all = tile.broadcast %yes along [] : i1 -> {bools}")
    bundle.op("not", f"arith.xori %is_olt, %all : {bools}", "i1")
    for name, target in (("extui", "i32"), ("extsi", "i64"), ("uitofp", "f32"), ("sitofp", "f32")):
        bundle.op(name, f"arith.{name} %is_olt : {bools} to {tile(target, bundle.size)}", target)
    return bundle


def integers(element: str) -> Bundle:
    """Arithmetic and comparisons; ``y`` is not zero, ``s`` are counts of bits."""
    bundle = Bundle(f"integers_{element}", {"x": element, "y": element, "s": element})
    kind = tile(element, bundle.size)
    for name in INT_BINARY:
        bundle.op(name, f"arith.{name} %x_tile, %y_tile : {kind}", element)
    for name in SHIFTS:
        bundle.op(name, f"arith.{name} %x_tile, %s_tile : {kind}", element)
    bundle.op("absi", f"math.absi %x_tile : {kind}", element)
    for name in CMPI:
        bundle.op(f"cmpi {name}", f"arith.cmpi {name}, %x_tile, %y_tile : {kind}", "i1")
    bundle.line(f"%three = arith.constant 3 : {element}")
    bundle.line(f"%threes = tile.broadcast %three along [] : {element} -> {kind}")
    for name in ("addi", "maxsi", "minui", "divsi", "shrui"):
        bundle.op(f"{name} 3", f"arith.{name} %x_tile, %threes : {kind}", element)
    return bundle


FLOATS = {"f64": 64, "f32": 32, "f16": 16, "bf16": 16, "f8E4M3FN": 8, "f8E5M2": 8}
INTEGERS = {"i64": 64, "i32": 32, "i16": 16, "i8": 8}


def float_casts(element: str, floats: Sequence[str] = tuple(FLOATS)) -> Bundle:
    """From a float to every other type."""
    bundle = Bundle(f"casts_{element}", {"x": element})
    source = tile(element, bundle.size)
    for target in floats:
        if FLOATS[target] != FLOATS[element]:
            name = "extf" if FLOATS[target] > FLOATS[element] else "truncf"
            bundle.op(f"{name} {target}", f"arith.{name} %x_tile : {source} to {tile(target, bundle.size)}", target)
    for target in (*INTEGERS, "i1"):
        for name in ("fptosi", "fptoui"):
            bundle.op(f"{name} {target}", f"arith.{name} %x_tile : {source} to {tile(target, bundle.size)}", target)
    bits = f"i{FLOATS[element]}"
    bundle.op("bitcast", f"arith.bitcast %x_tile : {source} to {tile(bits, bundle.size)}", bits)
    return bundle


def integer_casts(element: str, floats: Sequence[str] = tuple(FLOATS)) -> Bundle:
    """From an integer to every other type, and to index and back."""
    bundle = Bundle(f"casts_{element}", {"x": element})
    source = tile(element, bundle.size)
    width = INTEGERS[element]
    for target, bits in INTEGERS.items():
        if bits > width:
            for name in ("extsi", "extui"):
                bundle.op(f"{name} {target}", f"arith.{name} %x_tile : {source} to {tile(target, bundle.size)}", target)
        elif bits < width:
            bundle.op(f"trunci {target}", f"arith.trunci %x_tile : {source} to {tile(target, bundle.size)}", target)
    for target in floats:
        for name in ("sitofp", "uitofp"):
            bundle.op(f"{name} {target}", f"arith.{name} %x_tile : {source} to {tile(target, bundle.size)}", target)
    bundle.op("trunci i1", f"arith.trunci %x_tile : {source} to {tile('i1', bundle.size)}", "i1")
    bundle.line(f"%place = arith.index_cast %x_tile : {source} to {tile('index', bundle.size)}")
    bundle.op("index_cast", f"arith.index_cast %place : {tile('index', bundle.size)} to {source}", element)
    return bundle

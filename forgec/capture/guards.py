"""What torch.export took for granted about dynamic extents while it traced: relations that every call must fulfil."""

from __future__ import annotations

import ast
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from functools import reduce
from traceback import FrameSummary
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind
from torch.utils import _pytree
from xdsl.dialects.builtin import LocationAttr, StringAttr

from forgec.capture.checks import CHECKS
from forgec.capture.places import is_user_file, portable_path
from forgec.capture.symbols import SymbolTable, Unknown
from forgec.diagnostics import Location
from forgec.ir.attributes import ExtentAttr
from forgec.ir.locations import to_attribute
from forgec.ir.ops.module import ConstraintOp
from forgec.runtime.plan import Constraint
from forgec.runtime.symbolic import Extent, free_symbols, sym_max, sym_min, symbol

_SYMPY = {"Equality": "eq", "Unequality": "ne", "LessThan": "le", "StrictLessThan": "lt"}
_PYTHON = {ast.Eq: "eq", ast.NotEq: "ne", ast.LtE: "le", ast.Lt: "lt"}
_MIRRORED = {"GreaterThan": "le", "StrictGreaterThan": "lt", ast.GtE: "le", ast.Gt: "lt"}


def constraints(program: ExportedProgram, symbols: SymbolTable) -> list[ConstraintOp]:
    """The relations between the program's extents, in the order in which tracing met them; each once, and without those
    that the symbols' ranges imply.

    What extents cannot say (``int(0.7 * n) == 5``) is known to hold for the example: then its symbols must have the
    example's values.
    """
    examples = _examples(program, symbols)
    found: dict[Constraint, LocationAttr] = {}
    sizes = [size for _, size in _sizes(program)]
    if not sizes:
        return []
    traced = CHECKS in program.graph_module.meta
    environment: Any = sizes[0].node.shape_env
    told = _traced(environment, symbols, examples) if traced else _saved(program, symbols, examples)
    for relations, location in told:
        for relation in map(_without_negative, relations):
            if not _is_implied(relation, symbols):
                found.setdefault(relation, to_attribute(location))
    ops: list[ConstraintOp] = []
    for relation, location in found.items():
        properties = {
            "left": ExtentAttr(relation.left),
            "predicate": StringAttr(relation.predicate),
            "right": ExtentAttr(relation.right),
        }
        ops.append(ConstraintOp.create(properties=properties, location=location))
    return ops


def _examples(program: ExportedProgram, symbols: SymbolTable) -> dict[str, int]:
    """Our symbols → the values that they had in the example."""
    values: dict[str, int] = {}
    for _, size in _sizes(program):
        if size.node.expr.is_Symbol and size.node.hint is not None and str(size.node.expr) in symbols.names:
            values[symbols.names[str(size.node.expr)]] = int(size.node.hint)
    return values


def _sizes(program: ExportedProgram) -> Iterator[tuple[str, torch.SymInt]]:
    """How torch's guards spell the dynamic extents of the inputs, and what these are."""
    specs = program.graph_signature.input_specs
    nodes = (node for node in program.graph.nodes if node.op == "placeholder")
    values = [n.meta.get("val") for n, s in zip(nodes, specs, strict=True) if s.kind == InputKind.USER_INPUT]
    described = program.module_call_graph[0].signature
    if described is None:
        return
    positional, named = described.in_spec.children()
    names = [*(described.forward_arg_names or [])[: len(positional.children())], *(named.context or [])]
    arguments = [*positional.children(), *named.children()]
    spelled_leaves = (s for name, spec in zip(names, arguments, strict=False) for s in _leaves(spec, f"L[{name!r}]"))
    for spelled, value in zip(spelled_leaves, values, strict=False):
        if isinstance(value, torch.SymInt):
            yield spelled, value
        for axis, size in enumerate(value.shape if isinstance(value, torch.Tensor) else ()):
            if isinstance(size, torch.SymInt):
                yield f"{spelled}.size()[{axis}]", size


def _leaves(spec: _pytree.TreeSpec, spelled: str) -> Iterator[str]:
    """How torch's guards spell the leaves of an argument; those inside containers of a user's are not known."""
    if spec.is_leaf():
        yield spelled
        return
    for position, child in enumerate(spec.children()):
        if spec.type in (list, tuple):
            part = f"[{position}]"
        elif spec.type in (dict, OrderedDict):
            part = f"[{spec.context[position]!r}]"
        else:
            part = f".{spec.context._fields[position]}" if hasattr(spec.context, "_fields") else f".<{position}>"
        yield from _leaves(child, spelled + part)


def _pinned(names: set[str], examples: dict[str, int]) -> list[Constraint]:
    return [Constraint(symbol(name), "eq", examples[name]) for name in sorted(names) if name in examples]


def _without_negative(relation: Constraint) -> Constraint:
    """The same relation with no negative number on either side."""
    least = min(side if isinstance(side, int) else 0 for side in (relation.left, relation.right))
    if least >= 0:
        return relation
    return Constraint(relation.left - least, relation.predicate, relation.right - least)


def _is_implied(relation: Constraint, symbols: SymbolTable) -> bool:
    """True for relations that hold for all values of the symbols within their ranges."""
    low, high = symbols.bounds_of(relation.right - relation.left)
    match relation.predicate:
        case "le":
            return low is not None and low >= 0
        case "lt":
            return low is not None and low > 0
        case "ne":
            return (low is not None and low > 0) or (high is not None and high < 0)
    return low == high == 0


def _least(relation: Constraint) -> Extent:
    """A number that is at least 0 exactly if the relation holds."""
    difference = relation.right - relation.left
    match relation.predicate:
        case "le":
            return difference
        case "lt":
            return difference - 1
        case "eq":
            return sym_min(difference, -difference)
    return sym_max(difference - 1, -difference - 1)


def _any(relations: Iterable[Constraint]) -> Constraint:
    return Constraint(0, "le", reduce(sym_max, map(_least, relations)))


def _all(relations: Iterable[Constraint]) -> Constraint:
    return Constraint(0, "le", reduce(sym_min, map(_least, relations)))


def _not(relation: Constraint) -> Constraint:
    left, predicate, right = relation.left, relation.predicate, relation.right
    if predicate in ("eq", "ne"):
        return Constraint(left, "ne" if predicate == "eq" else "eq", right)
    return Constraint(right, "lt" if predicate == "le" else "le", left)


# As sympy's expressions: a program that forgec has traced


def _traced(
    environment: Any, symbols: SymbolTable, examples: dict[str, int]
) -> Iterator[tuple[list[Constraint], Location]]:
    for guard in environment.guards:
        expression = environment.simplify(guard.expr)
        place = _place(guard.sloc)
        for part in expression.args if type(expression).__name__ == "And" else (expression,):
            if not part.free_symbols or not all(str(s) in symbols.names for s in part.free_symbols):
                continue  # of no input, or of numbers that only the run tells: these the graph checks itself
            if place.line == 0 and _is_about_layouts(part):
                continue
            try:
                yield [_relation(part, symbols)], place
            except Unknown:
                yield _pinned({symbols.names[str(s)] for s in part.free_symbols}, examples), place


def _relation(expression: Any, symbols: SymbolTable) -> Constraint:
    kind = type(expression).__name__
    if kind in ("And", "Or", "Not"):
        parts = [_relation(part, symbols) for part in expression.args]
        return _not(parts[0]) if kind == "Not" else _all(parts) if kind == "And" else _any(parts)
    if kind not in _SYMPY and kind not in _MIRRORED:
        raise Unknown
    left, right = (symbols.extent_of(side) for side in expression.args)
    if kind in _MIRRORED:
        return Constraint(right, _MIRRORED[kind], left)
    return Constraint(left, _SYMPY[kind], right)


def _is_about_layouts(expression: Any) -> bool:
    """True for what torch's own code asks, while it finds out how a tensor lies, to tell apart extents of 1 (whose
    strides do not matter) and equal ones. forge says what an op yields for all extents.
    """
    kind = type(expression).__name__
    least = expression.args[1] if kind in ("GreaterThan", "StrictGreaterThan") else None
    return kind == "Unequality" or least == (2 if kind == "GreaterThan" else 1)


def _place(site: Any) -> Location:
    """The line of the model that asked, if it did so itself and not by what torch does for it."""
    frame = getattr(site, "framework_loc", None)
    if not isinstance(frame, FrameSummary) or not is_user_file(frame.filename):
        return Location("<unknown>")
    return Location(portable_path(frame.filename), frame.lineno or 0, frame.name)


# As Python's expressions: a program that came exported, whose guards are all kept, as its ``module()`` does


def _saved(
    program: ExportedProgram, symbols: SymbolTable, examples: dict[str, int]
) -> Iterator[tuple[list[Constraint], Location]]:
    extents = {spelled: symbols.extent_of(size.node.expr) for spelled, size in _sizes(program)}
    for code in getattr(program, "_guards_code", None) or ():
        reader = _Reader(extents)
        try:
            relations = reader.relations(ast.parse(code, mode="eval").body)
        except (Unknown, SyntaxError):
            relations = _pinned(reader.seen, examples)
        yield relations, Location("<unknown>")


class _Reader:
    """Reads one guard; ``seen`` are the symbols that it speaks of."""

    def __init__(self, extents: dict[str, Extent]) -> None:
        self.extents = extents
        self.seen: set[str] = set()

    def relations(self, node: ast.expr) -> list[Constraint]:
        if isinstance(node, ast.BoolOp) and isinstance(node.op, ast.And):
            return [relation for value in node.values for relation in self.relations(value)]
        for inner in ast.walk(node):
            if isinstance(inner, ast.expr):
                self.seen |= free_symbols(self.extents.get(ast.unparse(inner), 0))
        if isinstance(node, ast.BoolOp):
            return [_any(_all(self.relations(value)) for value in node.values)]
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            return [_not(_all(self.relations(node.operand)))]
        if not isinstance(node, ast.Compare):
            raise Unknown
        values: Sequence[Extent] = [self.extent(value) for value in (node.left, *node.comparators)]
        found: list[Constraint] = []
        for left, operator, right in zip(values, node.ops, values[1:], strict=False):
            if type(operator) in _MIRRORED:
                found.append(Constraint(right, _MIRRORED[type(operator)], left))
            elif type(operator) in _PYTHON:
                found.append(Constraint(left, _PYTHON[type(operator)], right))
            else:
                raise Unknown
        return found

    def extent(self, node: ast.expr) -> Extent:
        known = self.extents.get(ast.unparse(node))
        if known is not None:
            return known
        if isinstance(node, ast.Constant) and type(node.value) is int:
            return node.value
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            return -self.extent(node.operand)
        if isinstance(node, ast.BinOp):
            left, right = self.extent(node.left), self.extent(node.right)
            match node.op:
                case ast.Add():
                    return left + right
                case ast.Sub():
                    return left - right
                case ast.Mult():
                    return left * right
                case ast.FloorDiv():
                    return left // right
                case ast.Mod():
                    return left % right
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("max", "min"):
            choose = sym_max if node.func.id == "max" else sym_min
            return reduce(choose, map(self.extent, node.args))
        raise Unknown

"""What a call must look like: its arguments by position or by name, and how both sides read in an error message."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from forgec.diagnostics import ForgeError, error
from forgec.runtime import dtypes, tree
from forgec.runtime.plan import (
    Arg,
    Device,
    DType,
    Entry,
    Layout,
    Literal,
    MemoryFormat,
    Number,
    ResultLeaf,
    SymbolDecl,
    TensorSpec,
)
from forgec.runtime.symbolic import Extent, SymExpr


class Signature:
    """The calling convention of one entry point."""

    def __init__(self, entry: Entry, symbols: Sequence[SymbolDecl]) -> None:
        self.entry = entry
        self.labels = {declared.name: declared.label or declared.name for declared in symbols}
        positional, named = entry.in_tree.children
        self.positional = positional.children
        self.named = dict(zip(map(str, named.keys), named.children, strict=True))
        self.leaf_names: list[str] = []
        for index, child in enumerate(self.positional):
            known = index < len(entry.parameters)
            self.leaf_names += tree.paths(child, entry.parameters[index] if known else f"argument {index + 1}")
        for name, child in self.named.items():
            self.leaf_names += tree.paths(child, name)

    def leaves(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Any]:
        """The leaves of the arguments in the compiled order. FORGE-R001 when they do not have the compiled
        structure."""
        if len(args) == len(self.positional) and kwargs.keys() == self.named.keys():
            ordered = [*args, *[kwargs[name] for name in self.named]]
        else:
            ordered = self._by_name(args, kwargs)
        found: list[Any] = []
        for child, value in zip((*self.positional, *self.named.values()), ordered, strict=True):
            if not tree.match(child, value, found):
                raise self._mismatch("an argument has another structure", args, kwargs)
        return found

    def _by_name(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Any]:
        """The compiled arguments in order, whichever way the call passes them."""
        parameters = self.entry.parameters
        given: dict[str | int, Any] = {**kwargs}
        for index, value in enumerate(args):
            name = parameters[index] if index < len(parameters) else index
            if name in given:
                raise self._mismatch(f"'{name}' is passed twice", args, kwargs)
            given[name] = value
        wanted: list[str | int] = [
            parameters[index] if index < len(parameters) else index for index in range(len(self.positional))
        ]
        wanted += self.named
        missing = [name for name in wanted if name not in given]
        extra = [name for name in given if name not in wanted]
        if missing or extra:
            problems = [f"{_argument(name)} is missing" for name in missing]
            problems += [f"{_argument(name)} was not passed when the model was compiled" for name in extra]
            raise self._mismatch("; ".join(problems), args, kwargs)
        return [given[name] for name in wanted]

    def _mismatch(self, problem: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> ForgeError:
        return error(
            "FORGE-R001",
            f"the call does not have the compiled structure: {problem}",
            notes=(f"compiled for {self.describe()}", f"called with {describe_call(args, kwargs)}"),
        )

    def describe(self) -> str:
        """The compiled arguments, such as ``(input_ids: i64[1, seq], use_cache=False)``."""
        texts = iter([self.describe_leaf(leaf) for leaf in self.entry.inputs])
        parts: list[str] = []
        for index, child in enumerate(self.positional):
            text = tree.describe(child, lambda: next(texts))
            named = index < len(self.entry.parameters)
            parts.append(f"{self.entry.parameters[index]}: {text}" if named else text)
        parts += [f"{name}={tree.describe(child, lambda: next(texts))}" for name, child in self.named.items()]
        return f"({', '.join(parts)})"

    def describe_leaf(self, leaf: ResultLeaf) -> str:
        if isinstance(leaf, Literal):
            return describe_literal(leaf.value)
        if isinstance(leaf, SymExpr):
            return f"int {self.describe_extent(leaf)}"
        if isinstance(leaf, Number):
            kind = self.entry.registers[leaf.id].spec.dtype
            return "bool" if kind == "i1" else "float" if kind.startswith("f") else "int"
        return self.describe_spec(self.entry.registers[leaf].spec)

    def describe_spec(self, spec: TensorSpec) -> str:
        """``f32[1, seq, 64]``: labels where the compiled program has symbols."""
        return f"{spec.dtype}[{', '.join(map(self.describe_extent, spec.shape))}]"

    def describe_extent(self, extent: Extent) -> str:
        if isinstance(extent, int):
            return str(extent)
        return re.sub(r"[A-Za-z_]\w*", lambda name: self.labels.get(name[0], name[0]), str(extent))


def result_names(structure: tree.Tree) -> list[str]:
    """Names of the leaves of a result. Dict keys and field names at the outermost level stand alone: ``logits``, not
    ``output.logits``.
    """
    if structure.kind not in ("dict", "dataclass", "model_output", "namedtuple"):
        return tree.paths(structure, "output")
    keyed = zip(structure.keys, structure.children, strict=True)
    return [name for key, child in keyed for name in tree.paths(child, str(key))]


def _argument(name: str | int) -> str:
    return f"'{name}'" if isinstance(name, str) else f"positional argument {name + 1}"


def describe_literal(value: Arg) -> str:
    """A fixed value as a user would write it."""
    match value:
        case DType() | Device() | Layout() | MemoryFormat():
            return value.name
        case tuple():
            return f"({', '.join(map(describe_literal, value))})"
    return repr(value)


def describe_value(value: Any) -> str:
    """A leaf of a call: ``f32[2, 3]`` for tensors and arrays, the value itself when it is small, else its type."""
    name = dtype_name(value)
    if getattr(value, "is_nested", False) is True:
        return "a nested tensor"
    if name is not None:
        return f"{name}[{', '.join(map(str, value.shape))}]"
    if value is None or isinstance(value, (bool, int, float, complex)):
        return repr(value)
    if isinstance(value, str):
        return repr(value if len(value) <= 40 else value[:37] + "...")
    return type(value).__name__


def dtype_name(value: Any) -> str | None:
    """The element type of a tensor or array by forgec's name where it has one, None for anything else."""
    if getattr(value, "is_nested", False) is True:  # its shape cannot be asked for
        return None
    dtype, shape = getattr(value, "dtype", None), getattr(value, "shape", None)
    if dtype is None or not isinstance(shape, tuple):
        return None
    kind = type(dtype).__module__.partition(".")[0]
    known = dtypes.from_torch(dtype) if kind == "torch" else dtypes.from_numpy(dtype) if kind == "numpy" else None
    return known or str(dtype).removeprefix("torch.")


def describe_call(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
    """The arguments of a call in the notation of ``Signature.describe``."""
    return f"({', '.join([*map(_describe, args), *(f'{name}={_describe(value)}' for name, value in kwargs.items())])})"


def _describe(value: Any) -> str:
    try:
        leaves, structure = tree.flatten(value)
    except ValueError:
        return type(value).__name__
    texts = iter([describe_value(leaf) for leaf in leaves])
    return tree.describe(structure, lambda: next(texts))

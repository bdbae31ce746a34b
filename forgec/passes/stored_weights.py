"""Weights that a file holds in fewer bits already are stored as they are there, instead of what they stand for.

A model that was loaded from such a file holds the floats that the file's numbers stand for. Which numbers those are is
found by the values: a row of a weight that equals a row of the file's tensors is that row. So neither names nor the
order of rows matter (loaders permute the rows of queries and keys, and passes put weights together), and what is stored
stands for the same floats to the bit, or the weight stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from xdsl.dialects.builtin import ModuleOp, StringAttr, UnitAttr
from xdsl.ir import Attribute

from forgec.diagnostics import error
from forgec.ir import types
from forgec.ir.ops.module import ParamOp
from forgec.passes.round_weights import Rounding
from forgec.passes.rounded_weights import Rounded
from forgec.passes.shared_weights import Weight
from forgec.runtime.dtypes import from_torch

Parts = Mapping[str, Any]
"""``numbers`` [N, K] (one to the element), ``scales`` and perhaps ``zeros`` [N, K / group], as tensors."""


@dataclass(frozen=True)
class StoredRows:
    """Rows of one format: what they hold, and the floats that those stand for, [N, K] in float32.

    ``format`` is the file's name for it. With ``zeros_last`` zeros are subtracted from the product with the scale.
    """

    format: str
    parts: Parts
    floats: Any
    zeros_last: bool = False

    @property
    def group(self) -> int:
        return self.parts["numbers"].shape[1] // self.parts["scales"].shape[1]


@dataclass(frozen=True)
class Taken:
    """The new tensors by the names of parameters, and an entry for the report for each weight."""

    tensors: dict[str, Any]
    entries: list[dict[str, Any]]


def take_stored_weights(module: ModuleOp, values: Mapping[str, Any], stored: Iterable[StoredRows]) -> Taken:
    """Has linears and embeddings read what a file stores for their weights.

    ``values`` are the tensors of the module's parameters. Raises FORGE-U009 where the file has none of the weights.
    """
    taking = _Taking(module, values, stored)
    taking.run()
    return Taken(taking.tensors, taking.entries)


class _Taking(Rounding):
    def __init__(self, module: ModuleOp, values: Mapping[str, Any], stored: Iterable[StoredRows]) -> None:
        super().__init__(module, "the file has it")
        self.values = values
        self.tensors: dict[str, Any] = {}
        self.entries: list[dict[str, Any]] = []
        self.pending: dict[str, StoredRows] = {}
        self.by_columns: dict[int, list[StoredRows]] = {}
        for rows in stored:
            self.by_columns.setdefault(rows.floats.shape[1], []).append(rows)
        self.index: dict[int, dict[bytes, tuple[int, int]]] = {}

    def _form(self, weight: Weight, dtype: str, columns: int, is_turned: bool) -> Rounded | str:
        if dtype != "f32":
            return f"is {dtype}, not float32"
        found: dict[str, StoredRows] = {}
        for name in weight.names:
            value = self.values[name].detach()
            rows = self._rows(value.T if is_turned else value)
            if isinstance(rows, str):
                return rows
            found[name] = rows
        if len({(rows.format, rows.zeros_last) for rows in found.values()}) > 1:
            common = {name: in_bytes(rows) for name, rows in found.items()}
            if None in common.values():
                formats = ", ".join(sorted({rows.format for rows in found.values()}))
                return f"is stored as {formats}, in layers that share their code"
            found = {name: rows for name, rows in common.items() if rows is not None}
        first = next(iter(found.values()))
        properties: dict[str, Attribute] = {"compute": StringAttr("f32")}
        if first.parts["numbers"].dtype != _torch().int8:
            properties["packing"] = StringAttr("u4")
            if columns % 8:
                return f"has rows of {columns} numbers, which do not fill words"
        if first.zeros_last:
            properties["zeros_last"] = UnitAttr()
        self.pending = found
        return Rounded(first.format.lower(), dict.fromkeys(_order(first.parts), _never), properties)

    def _rows(self, value: Any) -> StoredRows | str:
        """The rows of the file that a weight consists of."""
        columns = value.shape[1]
        candidates = self.by_columns.get(columns, [])
        if columns not in self.index:
            self.index[columns] = {
                row: (number, place)
                for number, candidate in enumerate(candidates)
                for place, row in enumerate(_bytes_of_rows(candidate.floats))
            }
        found = [self.index[columns].get(row) for row in _bytes_of_rows(value)]
        if None in found:
            return "is not in the file as the model has it"
        places = [each for each in found if each is not None]
        used = {number: candidates[number] for number, _ in places}
        if len({(rows.format, rows.zeros_last) for rows in used.values()}) > 1:
            common = {number: in_bytes(rows) for number, rows in used.items()}
            if None in common.values():
                return f"is stored as {', '.join(sorted({rows.format for rows in used.values()}))}"
            used = {number: rows for number, rows in common.items() if rows is not None}
        return _gathered(used, places)

    def _param(self, name: str, part: str, rounded: Rounded, known: Mapping[str, ParamOp], is_turned: bool) -> ParamOp:
        rows = self.pending[name]
        tensor = rows.parts[part]
        if part == "numbers" and "packing" in rounded.properties:
            tensor = in_words(tensor)
        own = f"{name}.{rounded.name}" if part == "numbers" else f"{name}.{rounded.name}.{part}"
        while own in self.params:
            own += "_"
        kind = types.tensor(from_torch(tensor.dtype) or "", tuple(tensor.shape))
        made = ParamOp.create(properties={"sym_name": StringAttr(own), "type": kind})
        before = self.params[name]
        made.location = before.location
        self.module.body.block.insert_op_after(made, list(self.params.values())[-1])
        self.params[own] = made
        self.tensors[own] = tensor.contiguous()
        if part == "numbers":
            held = [self.tensors[each.sym_name.data] for each in known.values()] + [self.tensors[own]]
            self.entries.append(_entry(name, rows, held))
        return made


def _entry(name: str, rows: StoredRows, held: Sequence[Any]) -> dict[str, Any]:
    return {
        "name": name,
        "precision": rows.format,
        "bytes_before": rows.floats.numel() * 4,
        "bytes": sum(tensor.numel() * tensor.element_size() for tensor in held),
        "max": 0.0,
        "rms": 0.0,
        "output_rms": 0.0,
    }


def _gathered(used: Mapping[int, StoredRows], places: Sequence[tuple[int, int]]) -> StoredRows:
    """Rows of several tensors of one format, in this order."""
    torch = _torch()
    starts, total = {}, 0
    for number, rows in used.items():
        starts[number] = total
        total += rows.floats.shape[0]
    order = torch.tensor([starts[number] + place for number, place in places])
    first = next(iter(used.values()))
    parts = {part: torch.cat([rows.parts[part] for rows in used.values()])[order] for part in first.parts}
    floats = torch.cat([rows.floats for rows in used.values()])[order]
    return StoredRows(first.format, parts, floats, first.zeros_last)


def in_bytes(rows: StoredRows) -> StoredRows | None:
    """The same numbers in 8 bits with their sign, 16 to the scale; None where that cannot stand for the same floats."""
    numbers, scales = rows.parts["numbers"], rows.parts["scales"].float()
    if rows.zeros_last or rows.group % 16:
        return None
    if "zeros" in rows.parts:
        zeros = rows.parts["zeros"].repeat_interleave(rows.group, 1)
        numbers = (numbers.int() - zeros.int()).to(_torch().int8)
    parts = {"numbers": numbers, "scales": scales.repeat_interleave(rows.group // 16, 1)}
    return StoredRows("8 bits", parts, rows.floats)


def in_words(numbers: Any) -> Any:
    """Numbers from 0 to 15 [N, K], eight to the word."""
    torch = _torch()
    pairs = numbers.to(torch.uint8).unflatten(1, (-1, 2))
    return (pairs[:, :, 0] | (pairs[:, :, 1] << 4)).contiguous().view(torch.int32)


def _order(parts: Parts) -> list[str]:
    """Names of parts, the numbers last."""
    return [*(part for part in ("scales", "zeros") if part in parts), "numbers"]


def _bytes_of_rows(floats: Any) -> list[bytes]:
    """A key for each row: equal where the bits are (but for the sign of 0, which makes no difference)."""
    from hashlib import blake2b

    rows = (floats + 0.0).contiguous().numpy()
    return [blake2b(memoryview(row).cast("B"), digest_size=16).digest() for row in rows]


def _never(*_: Any) -> Any:
    raise error("FORGE-X001", "what a file stores is not computed")


def _torch() -> Any:
    import torch

    return torch

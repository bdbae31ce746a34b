"""The level of tiles as text: each kernel with what was chosen for it, and its LLVM IR."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

_KERNEL = re.compile(r"^( *)tile\.kernel @([A-Za-z0-9_]+)\(")


def annotated(text: str, kernels: Sequence[Mapping[str, Any]], only: str | None = None) -> str:
    """The IR with comments above each kernel: how often it is launched, its extents, what it costs, and the candidates
    for its tiles. ``only`` names the one kernel to show.
    """
    described = {str(kernel["name"]): kernel for kernel in kernels}
    lines: list[str] = []
    shown, closing = only is None, ""
    for line in text.splitlines():
        found = _KERNEL.match(line)
        if found is not None and (only is None or found[2] == only):
            shown, closing = True, f"{found[1]}}}"
            if found[2] in described:
                lines += [f"{found[1]}// {comment}".rstrip() for comment in _comments(described[found[2]])]
        if shown:
            lines.append(line)
        if only is not None and line == closing:
            shown = False
    return "\n".join(lines) + "\n"


def kernel_names(text: str) -> list[str]:
    """The kernels that a module's text defines, in order."""
    return [found[2] for line in text.splitlines() if (found := _KERNEL.match(line)) is not None]


def _comments(kernel: Mapping[str, Any]) -> list[str]:
    where = ", ".join(f"{name} = {extent}" for name, extent in kernel["extents"].items())
    times = f"{kernel['launches']} launch{'es' * (kernel['launches'] != 1)}"
    cost = f"{_number(kernel['flops'])}FLOP, {_number(kernel['bytes_moved'])}B moved"
    found = [f"{times} of {kernel['kind'] or 'a kernel'}; one{f' (for {where})' * bool(where)}: {cost}"]
    if not kernel["tiles"]:
        return found
    rows = [("tiles", "programs", "live", "estimated", "")]
    for number, candidate in enumerate(kernel["candidates"]):
        tiles = ",".join(f"{name}={extent}" for name, extent in candidate["tiles"].items())
        note = "chosen" if number == 0 else ""
        if candidate["limit"] is not None:
            note = f"{note}{', ' * bool(note)}{candidate['limit']}"
        time = _number(candidate["estimated_seconds"])
        rows.append((tiles, str(candidate["programs"]), f"{_number(candidate['live_bytes'])}B", f"{time}s", note))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for tiles, *numbers, note in rows:
        cells = [tiles.ljust(widths[0]), *(n.rjust(w) for n, w in zip(numbers, widths[1:], strict=True)), note]
        found.append("  ".join(cells))
    more = kernel["candidates_more"]
    return [*found, f"and {more} more"] if more else found


_PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1, ""), (1e-3, "m"), (1e-6, "µ"), (1e-9, "n"))


def _number(value: float) -> str:
    """Three digits with a prefix: ``1.5 k``, to be followed by a unit."""
    if not value:
        return "0 "
    for scale, prefix in _PREFIXES:
        if value >= scale * 0.9995:
            return f"{value / scale:.3g} {prefix}"
    return f"{value:.2g} "


def llvm(text: str, variant: str, only: str | None = None) -> str:
    """The LLVM IR of the kernels in a module's text for an instruction set, as it is made of the tiles, before LLVM's
    passes.
    """
    from xdsl.dialects.builtin import ModuleOp

    from forgec.backends.cpu.backend import lowered_kernel
    from forgec.backends.cpu.to_llvm import llvm_text
    from forgec.ir.tile.kernel import KernelOp
    from forgec.passes import ir_source
    from forgec.passes.ir_source import Piece

    module = ir_source.parse(Piece("ir/tile.mlir", text, 1), ir_source.context()).module
    assert isinstance(module, ModuleOp)
    kernels = [op for op in module.ops if isinstance(op, KernelOp) and only in (None, op.sym_name.data)]
    return "\n".join(llvm_text(lowered_kernel(kernel, variant)).rstrip() + "\n" for kernel in kernels)

"""Memory that ATen's CPU kernels allocate and free within one launch, beside their results.

Read off torch 2.13's allocations: oneDNN's convolutions reorder operands into blocked layouts, fused attention keeps
a block of scores for each thread, normalizations keep their statistics. Operators that are not listed are taken to
need nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

from forgec.runtime.dtypes import itemsize
from forgec.runtime.plan import Arg, Entry, External, Launch, Reg

Shape = Sequence[int]
FLOAT_BYTES = 4
"""Statistics, scores and accumulators are float32."""
BLOCKED_CHANNELS = 5
"""From this many input channels on, oneDNN reorders the input of a convolution too."""


def workspace_bytes(entry: Entry, launch: Launch, shapes: Sequence[Shape], threads: int) -> int:
    """Bytes for one launch, for the shapes of a binding and torch's number of intra-op threads."""
    rule = _RULES.get(launch.op)
    if rule is None or not launch.results or launch.results[0] is None:
        return 0
    result = launch.results[0]
    operands = [shapes[arg.id] if isinstance(arg, Reg) else None for arg in launch.args]
    if launch.op == "aten::scaled_dot_product_attention" and not _is_boolean(entry, launch.args[3:4]):
        operands[3:4] = [None]  # only a boolean mask is converted
    register = entry.registers[result]
    assert isinstance(register, External)
    try:
        return rule(operands, shapes[result], itemsize(register.spec.dtype), threads)
    except IndexError:  # ranks that the operation refuses: it allocates nothing
        return 0


def _is_boolean(entry: Entry, args: Sequence[Arg]) -> bool:
    return any(isinstance(arg, Reg) and entry.registers[arg.id].spec.dtype == "i1" for arg in args)


Rule = Callable[[Sequence[Shape | None], Shape, int, int], int]


def _convolution(operands: Sequence[Shape | None], result: Shape, item: int, threads: int) -> int:
    source, weight = operands[0], operands[1]
    if source is None or weight is None:
        return 0
    blocked = prod(weight) * item + (prod(source) * item if source[-len(weight) + 1] >= BLOCKED_CHANNELS else 0)
    return max(blocked, prod(result) * item)


def _attention(operands: Sequence[Shape | None], result: Shape, item: int, threads: int) -> int:
    query, key, mask = operands[0], operands[1], operands[3]
    if query is None or key is None or len(query) != 4:
        return 0
    batch, heads, rows, _ = query
    split = min(256 if rows >= 768 else 64 if rows >= 192 else 32, rows)
    scores = min(512, max(key[-2], 1))
    per_thread = split * scores + 2 * split + split * result[-1]
    converted = 0 if mask is None else prod(mask)
    return (batch * heads * rows + converted + threads * per_thread) * FLOAT_BYTES


def _layer_norm(operands: Sequence[Shape | None], result: Shape, item: int, threads: int) -> int:
    return 2 * prod(result[:-1]) * FLOAT_BYTES


def _rms_norm(operands: Sequence[Shape | None], result: Shape, item: int, threads: int) -> int:
    return (prod(result) + prod(result[:-1])) * item


_RULES: dict[str, Rule] = {
    "aten::conv1d": _convolution,
    "aten::conv2d": _convolution,
    "aten::conv3d": _convolution,
    "aten::scaled_dot_product_attention": _attention,
    "aten::layer_norm": _layer_norm,
    "aten::rms_norm": _rms_norm,
}

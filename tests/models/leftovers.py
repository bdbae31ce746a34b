"""What the optimiser recognised in a model, and what it left spelled out: for tests and for ``tools.recognition``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation

from forgec.capture.capture import export_model, import_program
from forgec.diagnostics import Diagnostic
from forgec.ir import context, types
from forgec.ir.cost import module_cost
from forgec.ir.locations import location_of
from forgec.ir.ops import activation, binary, norm, reduction, shape, unary
from forgec.ir.ops.aten import AtenOp
from forgec.ir.ops.attention import AttentionOp
from forgec.ir.ops.base import producer
from forgec.ir.ops.composite import GluOp, RopeOp
from forgec.ir.ops.contraction import MatmulOp
from forgec.passes import pipelines
from forgec.passes.manager import run_pipeline
from forgec.passes.patterns import through, with_number
from tests.models.architectures.row import Row

RECOGNISED: dict[str, tuple[type[Operation], ...]] = {
    "attention": (AttentionOp,),
    "norm": (norm.RmsNormOp, norm.LayerNormOp, norm.GroupNormOp, norm.BatchNormOp),
    "rope": (RopeOp,),
    "glu": (GluOp,),
    "activation": (unary.GeluOp, unary.SiluOp, activation.SwishOp, activation.MishOp),
}
GATES = (unary.SiluOp, activation.SwishOp, unary.GeluOp, unary.SigmoidOp, unary.ReluOp, unary.TanhOp)
VIEWS = (shape.ReshapeOp, shape.TransposeOp, shape.SliceOp, shape.CopyOp, shape.BroadcastOp, unary.CastOp)


@dataclass
class Recognition:
    """Counts of what was recognised; the ops that look like parts of something that was not, by kind."""

    captured: int = 0
    optimised: int = 0
    launches: int = 0
    recognised: Counter[str] = field(default_factory=Counter)
    masks: Counter[str] = field(default_factory=Counter)
    left: Counter[tuple[str, str]] = field(default_factory=Counter)
    missed: Counter[tuple[str, str]] = field(default_factory=Counter)
    attentions: list[AttentionOp] = field(default_factory=list)

    def left_of(self, *kinds: str) -> dict[tuple[str, str], int]:
        """What is left of some kinds, by kind and line."""
        return {key: count for key, count in self.left.items() if key[0] in kinds}


def implementations(model: Any) -> Iterator[str | None]:
    """The attention implementations that a model has; None, its own, where it has no choice."""
    found = False
    for name in ("sdpa", "eager"):
        try:
            model.set_attn_implementation(name)
        except (ValueError, AttributeError, NotImplementedError):
            continue
        config = getattr(model.config, "_attn_implementation", None)
        if config == name:
            found = True
            yield name
    if not found:
        yield None


def captured(row: Row, implementation: str | None, dynamic: bool = False) -> ModuleOp:
    """A row's model as it was captured; with ``attn_implementation`` if one is given."""
    model: Any = row.build()
    if implementation is not None:
        model.set_attn_implementation(implementation)
    arguments = row.arguments()
    shapes = row.dynamic_shapes(row.dims(row.extents() - row.fixed.keys())) if dynamic else None
    program = export_model(model, (), arguments, shapes)
    return import_program(program, model, (), arguments, shapes).module


def recognise(module: ModuleOp, pipeline: str = "@O2,inline-layers") -> Recognition:
    """Optimise a module and count."""
    found = Recognition(captured=sum(1 for _ in module.walk()))
    said = [
        remark for run in run_pipeline(module, pipelines.parse(pipeline), context=context()) for remark in run.remarks
    ]
    found.missed.update((remark.message, place_of(remark)) for remark in said if remark.code == "FORGE-O002")
    found.launches = module_cost(module).total.launches
    for op in module.walk():
        found.optimised += 1
        for kind, classes in RECOGNISED.items():
            found.recognised[kind] += isinstance(op, classes)
        if isinstance(op, AttentionOp):
            found.attentions.append(op)
            found.masks[said_by(op)] += 1
        found.left.update((kind, place(op)) for kind in leftovers(op))
    return found


def said_by(op: AttentionOp) -> str:
    """The modifiers of an attention op, as words."""
    words = [name for name in ("causal", "window", "chunk", "offset", "softcap") if getattr(op, name) is not None]
    words += [name for name in ("keys", "sinks") if getattr(op, name) is not None]
    if op.mask is not None:
        words.append("mask" if types.dtype(op.mask) == "i1" else "bias")
    return " ".join(words) or "plain"


def place(op: Operation) -> str:
    """The model's line that an op came from."""
    location = location_of(op)
    return "?" if location is None else _short(location.file, location.line)


def place_of(remark: Diagnostic) -> str:
    """The model's line that a remark speaks of."""
    return "?" if remark.location is None else _short(remark.location.file, remark.location.line)


def _short(file: str, line: int) -> str:
    return f"{'/'.join(file.split('/')[-2:])}:{line}"


def leftovers(op: Operation) -> Iterator[str]:
    """The kinds of things that an op may be an unrecognised part of."""
    match op:
        case reduction.SoftmaxOp():
            yield "softmax"
        case MatmulOp() if types.rank(op.lhs) > 2 and types.rank(op.rhs) > 2:
            yield "product"
        case unary.RsqrtOp() | unary.SqrtOp() | reduction.VarOp() | reduction.StdOp() | reduction.VectorNormOp():
            yield "norm"
        case reduction.MeanOp() | reduction.SumOp() if isinstance(producer(op.input), (binary.PowOp, binary.MulOp)):
            yield "norm"
        case shape.ConcatOp() if any(isinstance(producer(through(v, *VIEWS)), unary.NegOp) for v in op.inputs):
            yield "rope"
        case AtenOp() if op.callee.data in ("aten::view_as_complex", "aten::view_as_real", "aten::polar"):
            yield "rope"
        case binary.MulOp() if op.rhs is not None and types.dtype(op.result) in types.FLOATS:
            sides = [producer(through(v, *VIEWS)) for v in (op.lhs, op.rhs)]
            if any(isinstance(side, GATES) for side in sides):
                yield "gate"
            if any(isinstance(side, (unary.CosOp, unary.SinOp)) for side in sides):
                yield "rope"
        case unary.TanhOp() | unary.ErfOp() | unary.ExpOp():
            yield op.name.removeprefix("forge.")
        case binary.PowOp() if (found := with_number(op)) is not None and found[1] == 3:
            yield "gelu"
        case _:
            pass

"""A small plan with every op of the plan dialect, for the IR reference and the tests."""

from __future__ import annotations

from collections.abc import Sequence

from xdsl.dialects.builtin import DenseIntOrFPElementsAttr, IntAttr, ModuleOp, StringAttr, TensorType, UnitAttr, f32
from xdsl.ir import Attribute, Block, Operation, Region, SSAValue

from forgec.ir import plan, types
from forgec.ir.attributes import ArgsAttr, ExtentAttr, IntsAttr
from forgec.runtime.plan import Arg, Reg


def plan_example() -> ModuleOp:
    """``state += x``; ``return gelu(state @ w.T * 2)``, with one buffer and one result that ATen allocates itself."""
    block = Block()
    cache = _declare(block, plan.StateOp, "cache", (2, 4), {"label": StringAttr("cache"), "zeros": UnitAttr()})
    x = _declare(block, plan.InputOp, "x", (2, 4), {"index": IntAttr(0), "label": StringAttr("x")})
    w = _declare(block, plan.ParamOp, "w", (8, 4), {"label": StringAttr("proj.weight")})
    two = _declare(block, plan.ConstantOp, "two", (1,), {"value": _two()})
    _launch(block, "aten::add.out", [Reg(0), Reg(1)], [cache, x], [0], "forge.add")
    life: dict[str, Attribute] = {"nbytes": ExtentAttr(64), "offset": ExtentAttr(0), "live": IntsAttr([1, 4])}
    product = _declare(block, plan.BufferOp, "product", (2, 8), life)
    turned = plan.ViewOp.create(
        operands=[w], properties={"offset": ExtentAttr(0)}, result_types=[types.tensor("f32", (4, 8), (1, 4))]
    )
    transposed = _add(block, turned, "transposed")
    _launch(block, "aten::mm.out", [Reg(0), Reg(1)], [cache, transposed, product], [2], "forge.linear")
    _launch(block, "aten::mul.out", [Reg(0), Reg(1)], [product, two], [0], "forge.mul")
    result = _declare(block, plan.OutputOp, "result", (2, 8), {})
    _launch(block, "aten::gelu.out", [Reg(0)], [product, result], [1], "forge.gelu")
    norm = plan.LaunchOp.create(
        operands=[result],
        properties={
            "callee": StringAttr("aten::layer_norm"),
            "args": ArgsAttr.of([Reg(0), (8,)]),
            "writes": IntsAttr([]),
            "source": StringAttr("forge.layer_norm"),
        },
        result_types=[types.tensor("f32", (2, 8))],
    )
    normalized = _add(block, norm, "normalized")
    leaves = ArgsAttr.of([Reg(0), Reg(1)])
    block.add_op(plan.ReturnOp.create(operands=[result, normalized], properties={"leaves": leaves}))
    properties: dict[str, Attribute] = {
        "sym_name": StringAttr("forward"),
        "inputs": ArgsAttr.of([Reg(0)]),
        "in_tree": StringAttr('{"tuple":["*"]}'),
        "out_tree": StringAttr('{"tuple":["*","*"]}'),
        "parameters": ArgsAttr.of(["x"]),
        "arena_bytes": ExtentAttr(64),
        "peak_bytes": ExtentAttr(192),
    }
    return ModuleOp([plan.EntryOp.create(properties=properties, regions=[Region(block)])])


def _two() -> DenseIntOrFPElementsAttr:
    return DenseIntOrFPElementsAttr.from_list(TensorType(f32, [1]), [2.0])


def _declare(
    block: Block, cls: type[plan.RegisterOp], name: str, shape: tuple[int, ...], properties: dict[str, Attribute]
) -> SSAValue:
    return _add(block, cls.create(properties=properties, result_types=[types.tensor("f32", shape)]), name)


def _add(block: Block, op: Operation, name: str) -> SSAValue:
    block.add_op(op)
    op.results[0].name_hint = name
    return op.results[0]


def _launch(
    block: Block, callee: str, args: Sequence[Arg], operands: Sequence[SSAValue], writes: Sequence[int], source: str
) -> None:
    """A call of an operator with an ``out`` argument, which is the last operand (or the first, in place)."""
    out = Reg(writes[0])
    properties: dict[str, Attribute] = {
        "callee": StringAttr(callee),
        "args": ArgsAttr.of(args, [("out", out)]),
        "writes": IntsAttr(writes),
        "source": StringAttr(source),
    }
    block.add_op(plan.LaunchOp.create(operands=operands, properties=properties))

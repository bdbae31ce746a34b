"""Modules for tests: from text, from one op, from the types of tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from io import StringIO
from typing import Any

import torch
from xdsl.builder import Builder
from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Attribute, Block, Region, SSAValue
from xdsl.parser import Parser
from xdsl.printer import Printer
from xdsl.rewriter import InsertPoint

from forgec.ir import context, types
from forgec.ir.interpreter import held_type, interpret
from forgec.ir.ops.base import ForgeOp
from forgec.runtime.dtypes import from_torch, torch_dtype
from forgec.runtime.symbolic import evaluate


def parse(text: str) -> ModuleOp:
    """The module that a text stands for, verified."""
    module = Parser(context(), text).parse_module()
    module.verify()
    return module


def text_of(module: ModuleOp, **options: Any) -> str:
    """The module's text."""
    stream = StringIO()
    Printer(stream=stream, **options).print_op(module)
    return stream.getvalue()


def type_of(tensor: torch.Tensor) -> Attribute:
    """The static tensor type of a torch tensor, row-major."""
    name = from_torch(tensor.dtype)
    assert name is not None
    return types.tensor(name, tuple(tensor.shape))


Body = Callable[[Builder, Sequence[SSAValue]], Sequence[SSAValue]]


def function(arguments: Sequence[Attribute], body: Body) -> ModuleOp:
    """A module with one function ``forward``, whose body a callback builds; verified."""
    block = Block(arg_types=arguments)
    results = body(Builder(InsertPoint.at_end(block)), block.args)
    block.add_op(ReturnOp(*results))
    module = ModuleOp([FuncOp("forward", (list(arguments), [v.type for v in results]), Region(block))])
    module.verify()
    return module


def module_of_op(
    cls: type[ForgeOp],
    inputs: Sequence[torch.Tensor | None],
    properties: Mapping[str, Attribute] | None = None,
    result_types: Sequence[Attribute] | None = None,
) -> ModuleOp:
    """A function that applies one op to its arguments, one for each tensor that is not None."""

    def body(builder: Builder, arguments: Sequence[SSAValue]) -> Sequence[SSAValue]:
        rest = iter(arguments)
        operands = [None if tensor is None else next(rest) for tensor in inputs]
        return builder.insert(cls.make(operands, properties, result_types)).results

    return function([type_of(tensor) for tensor in inputs if tensor is not None], body)


def run_op(
    cls: type[ForgeOp],
    inputs: Sequence[torch.Tensor | None],
    properties: Mapping[str, Attribute] | None = None,
    result_types: Sequence[Attribute] | None = None,
    *,
    float64: bool = False,
) -> torch.Tensor:
    """What the reference interpreter gives for one op (its first result)."""
    module = module_of_op(cls, inputs, properties, result_types)
    return interpret(module, [tensor for tensor in inputs if tensor is not None], float64=float64)[0]


def random_inputs(module: ModuleOp, *, seed: int = 0, symbol_value: int = 5) -> list[torch.Tensor]:
    """Random tensors for the arguments of ``forward``; integers are 0, 1 or 2, dynamic extents ``symbol_value``."""
    generator = torch.Generator().manual_seed(seed)
    (callee,) = (op for op in module.ops if isinstance(op, FuncOp))
    tensors = []
    for argument in callee.body.block.args:
        kind = held_type(argument.type)
        symbols = dict.fromkeys(["s0", "s1"], symbol_value)
        shape = [evaluate(extent, symbols) for extent in types.shape(kind)]
        dtype = torch_dtype(types.dtype(kind))
        if dtype.is_floating_point:
            tensors.append(torch.randn(shape, generator=generator).to(dtype))
        elif dtype == torch.bool:
            tensors.append(torch.rand(shape, generator=generator) > 0.5)
        else:
            tensors.append(torch.randint(0, 3, shape, generator=generator).to(dtype))
    return tensors

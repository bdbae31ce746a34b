"""Tensors as literals: exact in every dtype, and the same attribute that text gives."""

from __future__ import annotations

import pytest
import torch
from xdsl.dialects.builtin import AnyTensorType, ModuleOp

from forgec.ir import types
from forgec.ir.literals import literal, to_tensor
from forgec.ir.ops.module import ConstantOp
from forgec.runtime.dtypes import torch_dtype
from tests.ir.build import parse, text_of


@pytest.mark.parametrize("shape", [(), (1,), (0,), (2, 0), (3,), (2, 3)])
@pytest.mark.parametrize("name", list(types.ELEMENT_TYPES))
def test_tensors_survive_as_literals_and_as_text(name: str, shape: tuple[int, ...]) -> None:
    tensor = (torch.randn(shape) * 3).to(torch_dtype(name))
    attribute = literal(tensor, like=_kind(name))
    back = to_tensor(attribute)
    assert back.dtype == tensor.dtype
    assert back.shape == tensor.shape
    assert torch.equal(back.reshape(-1).view(torch.uint8), tensor.reshape(-1).view(torch.uint8))
    constant = ConstantOp.create(properties={"value": attribute}, result_types=[attribute.type])
    (parsed,) = parse(text_of(ModuleOp([constant]))).ops
    assert isinstance(parsed, ConstantOp)
    assert parsed.value == attribute


def test_non_contiguous_tensors_are_stored_row_major() -> None:
    tensor = torch.arange(6.0).reshape(2, 3).T
    assert torch.equal(to_tensor(literal(tensor, like=_kind("f32"))), tensor)


def test_splats_are_read() -> None:
    (constant,) = parse("%0 = forge.constant dense<true> : tensor<2x2xi1>").ops
    assert isinstance(constant, ConstantOp)
    assert to_tensor(constant.value).sum() == 4
    assert constant.value == literal(torch.ones(2, 2, dtype=torch.bool), constant.result)


def _kind(name: str) -> AnyTensorType:
    return types.tensor(name, (1,))


def test_literals_that_text_can_say_are_readable() -> None:
    attribute = literal(torch.ones(10, 10, dtype=torch.bool).tril(), like=_kind("i1"))
    constant = ConstantOp.create(properties={"value": attribute}, result_types=[attribute.type])
    assert "[true, false, false" in text_of(ModuleOp([constant]))

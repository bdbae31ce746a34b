"""LLVM IR of modules that are written down, with xDSL's own ops."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest
from xdsl.context import Context
from xdsl.dialects.builtin import Builtin, ModuleOp, bf16, f16, f32, f64
from xdsl.dialects.llvm import LLVM
from xdsl.ir import Attribute
from xdsl.parser import Parser

from forgec.backends.cpu.llvm_types import i1, i8
from forgec.backends.cpu.to_llvm import literal, llvm_text
from tests.backends.cpu.native import Native


def parse(text: str) -> ModuleOp:
    context = Context()
    context.load_dialect(Builtin)
    context.load_dialect(LLVM)
    return Parser(context, text).parse_module()


@pytest.mark.parametrize(
    ("type", "number", "expected"),
    [
        (f32, 0.1, "0x3FB99999A0000000"),
        (f32, 1e39, "0x7FF0000000000000"),
        (f32, float("nan"), "0x7FF8000000000000"),
        (f64, -0.0, "0x8000000000000000"),
        (f16, 1.5, "0xH3E00"),
        (f16, 1e6, "0xH7C00"),
        (bf16, 1.0, str(0x3F80)),
        (bf16, 1 + 2.0**-8, str(0x3F80)),
        (bf16, 1 + 3 * 2.0**-8, str(0x3F82)),
        (bf16, float("nan"), str(0x7FC0)),
        (bf16, 3.4e38, str(0x7F80)),
        (i1, 1, "true"),
        (i1, 0, "false"),
        (i8, -3, "-3"),
    ],
)
def test_literals(type: Attribute, number: float, expected: str) -> None:
    assert literal(type, number) == expected


def test_tables_in_the_object() -> None:
    module = parse("""
    builtin.module {
      "llvm.mlir.global"() <{
        global_type = !llvm.array<4 x f32>, sym_name = "table", linkage = #llvm.linkage<"internal">,
        addr_space = 0 : i32, constant,
        value = dense<[1.5, 2.5, -0.0, 4.0]> : tensor<4xf32>, unnamed_addr = 0 : i64, visibility_ = 0 : i64
      }> ({}) : () -> ()
      llvm.func @pick(%index : i64) -> f32 {
        %base = "llvm.mlir.addressof"() <{global_name = @table}> : () -> !llvm.ptr
        %at = "llvm.getelementptr"(%base, %index) <{
          elem_type = f32, noWrapFlags = 0 : i32, rawConstantIndices = array<i32: -2147483648>
        }> : (!llvm.ptr, i64) -> !llvm.ptr
        %value = "llvm.load"(%at) <{ordering = 0 : i64}> : (!llvm.ptr) -> f32
        llvm.return %value : f32
      }
    }
    """)
    native = Native(module)
    assert [native("pick", k, result=ctypes.c_float) for k in range(4)] == [1.5, 2.5, 0.0, 4.0]


def test_branches_with_values_become_phis() -> None:
    module = parse("""
    builtin.module {
      llvm.func @power(%base : i64, %exponent : i64) -> i64 {
        %zero = llvm.mlir.constant(0) : i64
        %one = llvm.mlir.constant(1) : i64
        llvm.br ^head(%one, %zero : i64, i64)
      ^head(%product : i64, %k : i64):
        %more = llvm.icmp "slt" %k, %exponent : i64
        llvm.cond_br %more, ^body, ^end(%product : i64)
      ^body:
        %next = llvm.mul %product, %base : i64
        %following = llvm.add %k, %one overflow<nsw> : i64
        llvm.br ^head(%next, %following : i64, i64)
      ^end(%result : i64):
        llvm.return %result : i64
      }
    }
    """)
    text = llvm_text(module)
    assert "add nsw i64" in text
    assert text.count(" phi ") == 3
    assert Native(module)("power", 3, 5, result=ctypes.c_int64) == 243


def test_attributes_of_arguments_and_functions() -> None:
    module = parse("""
    builtin.module {
      llvm.func @f(%p : !llvm.ptr {llvm.noalias, llvm.align = 16 : i64})
          attributes {passthrough = [["prefer-vector-width", "512"]]} {
        llvm.return
      }
    }
    """)
    assert 'define void @f(ptr noalias align 16 %a0) #0 "prefer-vector-width"="512"' in llvm_text(module)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ('%s = "llvm.intr.stacksave"() : () -> !llvm.ptr', "llvm.intr.stacksave has no translation"),
        ('%v = "llvm.load"(%p) <{ordering = 4 : i64}> : (!llvm.ptr) -> i64', "atomic loads"),
        ('%c = "llvm.mlir.constant"() <{value = "text"}> : () -> i64', "constant"),
    ],
)
def test_what_is_not_understood_is_refused(body: str, message: str) -> None:
    module = parse(f"builtin.module {{ llvm.func @f(%p : !llvm.ptr) {{ {body}\n llvm.return }} }}")
    with pytest.raises(NotImplementedError, match=message):
        llvm_text(module)


def test_numbers_survive_arrays() -> None:
    values = np.array([0.1, -1e-45, 3.4e38, 1e-38], np.float32)
    assert [
        float(np.float32(np.uint64(int(literal(f32, float(v)), 16)).view(np.float64))) for v in values
    ] == values.tolist()

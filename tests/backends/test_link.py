"""Objects as LLVM emits them become one image that runs where it lies."""

from __future__ import annotations

import ctypes
import random
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from forgec.backends.cpu import link as link_module
from forgec.backends.cpu import memory_functions
from forgec.backends.cpu.elf import ObjectFile
from forgec.backends.cpu.link import FlatImage, link
from forgec.diagnostics import ForgeError
from forgec.runtime.code_image import CodeImage
from forgec.runtime.kernel_table import PAGE_BYTES, Kernel, KernelTable, NativeCode
from tests.runtime.native import KERNELS, object_of

SIGNATURE = "(ptr %ctx, ptr %args, i64 %begin, i64 %end)"


@contextmanager
def running(image: FlatImage) -> Iterator[dict[str, Any]]:
    kernels = tuple(Kernel(name, offset, 0, 0) for name, offset in image.functions.items())
    mapped = CodeImage(NativeCode(KernelTable("x86-64", kernels), image.code))
    yield {name: loaded.function for name, loaded in mapped.kernels.items()}


def refused(objects: dict[str, bytes]) -> str:
    with pytest.raises(ForgeError) as caught:
        link(objects)
    assert caught.value.code == "FORGE-B004"
    return str(caught.value)


def test_calls_constants_and_addresses_of_functions() -> None:
    ir = f"""
@table = private unnamed_addr constant [4 x i32] [i32 10, i32 20, i32 30, i32 40]
@shared = constant i32 7
define internal i32 @inside(i32 %x) noinline {{
  %r = mul i32 %x, 3
  ret i32 %r
}}
define i32 @outside(i32 %x) noinline {{
  %r = add i32 %x, 5
  ret i32 %r
}}
define i32 @k{SIGNATURE} {{
  %at = getelementptr i32, ptr @table, i64 %begin
  %a = load i32, ptr %at
  %b = call i32 @inside(i32 %a)
  %chosen = icmp eq i64 %end, 0
  %f = select i1 %chosen, ptr @outside, ptr @inside
  %c = call i32 %f(i32 %b)
  %d = load i32, ptr @shared
  %e = add i32 %c, %d
  ret i32 %e
}}
"""
    image = link({"k": object_of(ir)})
    assert list(image.functions) == ["k", "outside"]
    with running(image) as functions:
        assert functions["k"](None, None, 2, 0) == 30 * 3 + 5 + 7
        assert functions["k"](None, None, 3, 1) == 40 * 9 + 7


def test_jump_tables_and_calls_through_tables() -> None:
    cases = "\n".join(f"    i64 {i}, label %l{i}" for i in range(8))
    blocks = "\n".join(
        f"l{i}:\n  store i{2 ** (3 + i % 4)} {i + 1}, ptr %out\n"
        f"  %r{i} = call i32 @other(i32 {i * i + 1})\n  ret i32 %r{i}"
        for i in range(8)
    )
    k = f"""
declare i32 @other(i32) nonlazybind
define i32 @k{SIGNATURE} {{
  %out = load ptr, ptr %args
  switch i64 %begin, label %none [
{cases}
  ]
none:
  %f = call i32 @other(i32 -1)
  %g = tail call i32 @other(i32 %f)
  ret i32 %g
{blocks}
}}
"""
    other = "define i32 @other(i32 %x) {\n  %r = mul i32 %x, 2\n  ret i32 %r\n}\n"
    used = {relocation.type for _, found in ObjectFile(object_of(k)).relocations() for relocation in found}
    assert {link_module._PC32, link_module._GOTPCRELX} <= used
    image = link({"k": object_of(k), "other": object_of(other)})
    result = ctypes.c_int64()
    args = (ctypes.c_int64 * 1)(ctypes.addressof(result))
    with running(image) as functions:
        assert [functions["k"](None, ctypes.addressof(args), i, 0) for i in range(9)] == [
            *(2 * (i * i + 1) for i in range(8)),
            -4,
        ]


def test_each_object_has_its_own_constants_and_local_functions() -> None:
    def ir(name: str, value: int) -> str:
        return f"""
@three = private constant [3 x i64] [i64 {value}, i64 {value + 1}, i64 {value + 2}]
define internal i64 @helper(i64 %i) noinline {{
  %at = getelementptr i64, ptr @three, i64 %i
  %v = load i64, ptr %at
  ret i64 %v
}}
define i32 @{name}{SIGNATURE} {{
  %v = call i64 @helper(i64 %begin)
  %r = trunc i64 %v to i32
  ret i32 %r
}}
"""

    image = link({name: object_of(ir(name, value)) for name, value in (("a", 10), ("b", 20), ("c", 30))})
    with running(image) as functions:
        assert [functions[name](None, None, 1, 0) for name in "abc"] == [11, 21, 31]


def test_the_image_is_whole_pages_and_the_same_each_time() -> None:
    objects = {name: object_of(KERNELS[name][0]) for name in KERNELS}
    image = link(objects)
    assert image == link(dict(objects))
    assert len(image.code) % PAGE_BYTES == 0
    assert set(image.functions) == set(KERNELS)
    assert all(offset % 16 == 0 for offset in image.functions.values())


def test_a_weak_function_is_there_once() -> None:
    def ir(name: str, kind: str, value: int) -> str:
        return f"""
define {kind} i32 @common() noinline {{
  ret i32 {value}
}}
define i32 @{name}{SIGNATURE} {{
  %r = call i32 @common()
  ret i32 %r
}}
"""

    weak = {"a": object_of(ir("a", "linkonce_odr", 1)), "b": object_of(ir("b", "linkonce_odr", 2))}
    with running(link(weak)) as functions:
        assert functions["a"](None, None, 0, 0) == functions["b"](None, None, 0, 0) == 1
    strong = {**weak, "c": object_of(ir("c", "", 3))}
    with running(link(strong)) as functions:
        assert [functions[name](None, None, 0, 0) for name in "abc"] == [3, 3, 3]
    text = refused({"c": object_of(ir("c", "", 3)), "d": object_of(ir("d", "", 4))})
    assert "kernel 'd' cannot be linked: 'common' is also defined by kernel 'c'" in text


def test_an_undefined_symbol_is_told_with_its_kernel() -> None:
    ir = f"""
declare float @expf(float)
define i32 @fine{SIGNATURE} {{
  ret i32 0
}}
define i32 @softmax{SIGNATURE} {{
  %x = call float @expf(float 1.0)
  %r = fptosi float %x to i32
  ret i32 %r
}}
"""
    assert "kernel 'softmax' refers to 'expf', which no kernel defines" in refused({"object": object_of(ir)})


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("@a = private constant i8 1\n@k = constant [2 x ptr] [ptr @a, ptr @k]", "R_X86_64_64 against"),
        ("@k = global i32 3", "section .data is writable"),
        ("@k = global i32 0", "section .bss is writable"),
        ("@k = thread_local global i32 1", "section .tdata needs a loader"),
        ("@k = common global i32 0", "'k' is defined outside of code and constants"),
    ],
)
def test_what_no_image_can_hold(text: str, reason: str) -> None:
    assert reason in refused({"k": object_of(text)})


def test_an_address_that_only_a_table_has() -> None:
    ir = f"""
define i32 @other() {{
  ret i32 1
}}
define i32 @k{SIGNATURE} {{
  %p = load ptr, ptr %args
  %same = icmp eq ptr %p, @other
  %r = zext i1 %same to i32
  ret i32 %r
}}
"""
    assert "in an instruction (opcode 0x3b) that needs a table" in refused({"k": object_of(ir)})


def test_damaged_objects() -> None:
    content = object_of(KERNELS["take"][0])
    assert "no 64-bit little-endian ELF" in refused({"k": b"\x7fELF\x01\x01" + content[6:]})
    assert "machine 183" in refused({"k": content[:18] + struct.pack("<H", 183) + content[20:]})
    assert "it is damaged" in refused({"k": content[:30]})
    draw = random.Random(0)
    codes: set[str] = set()
    for _ in range(2000):
        damaged = bytearray(content)
        for _ in range(draw.choice([1, 4])):
            damaged[draw.randrange(len(damaged))] = draw.randrange(256)
        end = draw.choice([len(damaged), draw.randrange(len(damaged))])
        try:
            assert len(link({"k": bytes(damaged[:end])}).code) % PAGE_BYTES == 0
        except ForgeError as reason:
            codes.add(reason.code)
    assert codes == {"FORGE-B004"}


def test_memory_functions() -> None:
    types = {"memcpy": "ptr", "memmove": "ptr", "memset": "i32"}
    ir = "".join(
        f"declare ptr @{name}(ptr, {kind}, i64)\n"
        f"define ptr @my_{name}(ptr %a, {kind} %b, i64 %c) {{\n"
        f"  %r = call ptr @{name}(ptr %a, {kind} %b, i64 %c)\n  ret ptr %r\n}}\n"
        for name, kind in types.items()
    )
    image = link({"k": object_of(ir)})
    assert set(image.functions) == {f"my_{name}" for name in memory_functions.NAMES}
    mapped = CodeImage(NativeCode(KernelTable("x86-64"), image.code))
    call = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
    copy, move, fill = (call(mapped.address + image.functions[f"my_{name}"]) for name in types)
    draw = random.Random(3)
    memory = (ctypes.c_uint8 * 200)()
    start = ctypes.addressof(memory)
    for _ in range(3000):
        before = draw.randbytes(200)
        ctypes.memmove(memory, before, 200)
        count = draw.randrange(90)
        to, source, value = draw.randrange(200 - count), draw.randrange(200 - count), draw.randrange(256)
        expected = bytearray(before)
        expected[to : to + count] = before[source : source + count]
        assert move(start + to, start + source, count) == start + to
        assert bytes(memory) == bytes(expected)
        expected[to : to + count] = bytes([value]) * count
        assert fill(start + to, value, count) == start + to
        assert bytes(memory) == bytes(expected)
        half = count % 50
        expected[100 : 100 + half] = expected[:half]
        assert copy(start + 100, start, half) == start + 100
        assert bytes(memory) == bytes(expected)

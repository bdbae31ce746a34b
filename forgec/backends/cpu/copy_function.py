"""``forgec_copy`` in LLVM IR: a launch that copies elements between layouts, for what no kernel was compiled.

``runtime/native_copy.py`` says what its slots hold. A program is a piece of a row: the innermost axis, or so much of it
as is worth a program. Rows without gaps are bytes; others go element by element.
"""

from __future__ import annotations

from functools import lru_cache

from forgec.runtime.native_copy import AXES, FIELDS

_SLOT = """  %{name}.at = getelementptr i64, ptr %args, i64 {index}
  %{name} = load {kind}, ptr %{name}.at
"""

_HEAD = """
declare ptr @memcpy(ptr, ptr, i64)
declare i64 @llvm.umin.i64(i64, i64)

define i32 @forgec_copy(ptr %ctx, ptr %args, i64 %begin, i64 %end) #0 {{
entry:
{slots}
  %axes = getelementptr i64, ptr %args, i64 {axes}
  %to.dense = icmp eq i64 %to_step, %item
  %from.dense = icmp eq i64 %from_step, %item
  %dense = and i1 %to.dense, %from.dense
  br label %program
program:
  %i = phi i64 [ %begin, %entry ], [ %i.next, %copied ]
  %more = icmp ult i64 %i, %end
  br i1 %more, label %place, label %done
place:
  %row = udiv i64 %i, %pieces
  %part = urem i64 %i, %pieces
  %first = mul i64 %part, %piece
  %left = sub i64 %count, %first
  %n = call i64 @llvm.umin.i64(i64 %left, i64 %piece)
  %to.first = mul i64 %first, %to_step
  %from.first = mul i64 %first, %from_step
  br label %axis
axis: ; the last one first
  %a = phi i64 [ %rank, %place ], [ %a.next, %along ]
  %rest = phi i64 [ %row, %place ], [ %rest.next, %along ]
  %to.offset = phi i64 [ %to.first, %place ], [ %to.next, %along ]
  %from.offset = phi i64 [ %from.first, %place ], [ %from.next, %along ]
  %any = icmp ugt i64 %a, 0
  br i1 %any, label %along, label %placed
along:
  %a.next = sub i64 %a, 1
  %at = mul i64 %a.next, 3
  %extent.at = getelementptr i64, ptr %axes, i64 %at
  %extent = load i64, ptr %extent.at
  %to.stride.at = getelementptr i64, ptr %extent.at, i64 1
  %to.stride = load i64, ptr %to.stride.at
  %from.stride.at = getelementptr i64, ptr %extent.at, i64 2
  %from.stride = load i64, ptr %from.stride.at
  %k = urem i64 %rest, %extent
  %rest.next = udiv i64 %rest, %extent
  %to.more = mul i64 %k, %to.stride
  %to.next = add i64 %to.offset, %to.more
  %from.more = mul i64 %k, %from.stride
  %from.next = add i64 %from.offset, %from.more
  br label %axis
placed:
  %t = getelementptr i8, ptr %to, i64 %to.offset
  %f = getelementptr i8, ptr %from, i64 %from.offset
  br i1 %dense, label %bytes, label %elements
bytes:
  %nbytes = mul i64 %n, %item
  %r = call ptr @memcpy(ptr %t, ptr %f, i64 %nbytes)
  br label %copied
elements:
  switch i64 %item, label %size.1 [ i64 2, label %size.2
    i64 4, label %size.4
    i64 8, label %size.8
    i64 16, label %size.16 ]
"""

_LOOP = """
size.{size}:
  %j.{size} = phi i64 [ 0, %elements ], [ %j.{size}.next, %size.{size} ]
  %t.{size}.step = mul i64 %j.{size}, %to_step
  %f.{size}.step = mul i64 %j.{size}, %from_step
  %t.{size} = getelementptr i8, ptr %t, i64 %t.{size}.step
  %f.{size} = getelementptr i8, ptr %f, i64 %f.{size}.step
  %v.{size} = load {kind}, ptr %f.{size}, align 1
  store {kind} %v.{size}, ptr %t.{size}, align 1
  %j.{size}.next = add i64 %j.{size}, 1
  %j.{size}.more = icmp ult i64 %j.{size}.next, %n
  br i1 %j.{size}.more, label %size.{size}, label %copied
"""

_TAIL = """
copied:
  %i.next = add i64 %i, 1
  br label %program
done:
  ret i32 0
}

attributes #0 = { nounwind "no-builtins" }
"""

_KINDS = {1: "i8", 2: "i16", 4: "i32", 8: "i64", 16: "<2 x i64>"}


def text() -> str:
    """The IR, for any type of machine."""
    slots = [
        _SLOT.format(name=name, index=index, kind="ptr" if index < 2 else "i64") for index, name in enumerate(FIELDS)
    ]
    head = _HEAD.format(slots="".join(slots), axes=AXES)
    return head + "".join(_LOOP.format(size=size, kind=kind) for size, kind in _KINDS.items()) + _TAIL


@lru_cache(maxsize=1)
def object_code() -> bytes:
    """The function as an ELF object for any x86-64 processor."""
    from forgec.backends.cpu.compile import compile_text  # kernels out of the cache are linked without LLVM

    return compile_text(text(), cpu="x86-64")

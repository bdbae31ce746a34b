"""``memcpy``, ``memmove`` and ``memset`` for images: LLVM calls them for block operations of its own."""

from __future__ import annotations

from functools import lru_cache

IR = r"""
define weak hidden ptr @memcpy(ptr %to, ptr %from, i64 %count) #0 {
  %r = call ptr @memmove(ptr %to, ptr %from, i64 %count)
  ret ptr %r
}

; Upwards where the target does not begin inside the source, else downwards; 16 bytes at a time, then single ones.
define weak hidden ptr @memmove(ptr %to, ptr %from, i64 %count) #0 {
entry:
  %t = ptrtoint ptr %to to i64
  %f = ptrtoint ptr %from to i64
  %distance = sub i64 %t, %f
  %apart = icmp uge i64 %distance, %count
  %blocks = and i64 %count, -16
  br i1 %apart, label %up, label %down

up:
  %i = phi i64 [ 0, %entry ], [ %i.next, %up.block ]
  %i.more = icmp ult i64 %i, %blocks
  br i1 %i.more, label %up.block, label %up.rest
up.block:
  %i.from = getelementptr i8, ptr %from, i64 %i
  %i.to = getelementptr i8, ptr %to, i64 %i
  %i.value = load <16 x i8>, ptr %i.from, align 1
  store <16 x i8> %i.value, ptr %i.to, align 1
  %i.next = add i64 %i, 16
  br label %up
up.rest:
  %j = phi i64 [ %blocks, %up ], [ %j.next, %up.byte ]
  %j.more = icmp ult i64 %j, %count
  br i1 %j.more, label %up.byte, label %done
up.byte:
  %j.from = getelementptr i8, ptr %from, i64 %j
  %j.to = getelementptr i8, ptr %to, i64 %j
  %j.value = load i8, ptr %j.from
  store i8 %j.value, ptr %j.to
  %j.next = add i64 %j, 1
  br label %up.rest

down:
  %k = phi i64 [ %count, %entry ], [ %k.next, %down.byte ]
  %k.more = icmp ugt i64 %k, %blocks
  br i1 %k.more, label %down.byte, label %down.rest
down.byte:
  %k.next = sub i64 %k, 1
  %k.from = getelementptr i8, ptr %from, i64 %k.next
  %k.to = getelementptr i8, ptr %to, i64 %k.next
  %k.value = load i8, ptr %k.from
  store i8 %k.value, ptr %k.to
  br label %down
down.rest:
  %l = phi i64 [ %blocks, %down ], [ %l.next, %down.block ]
  %l.more = icmp ugt i64 %l, 0
  br i1 %l.more, label %down.block, label %done
down.block:
  %l.next = sub i64 %l, 16
  %l.from = getelementptr i8, ptr %from, i64 %l.next
  %l.to = getelementptr i8, ptr %to, i64 %l.next
  %l.value = load <16 x i8>, ptr %l.from, align 1
  store <16 x i8> %l.value, ptr %l.to, align 1
  br label %down.rest

done:
  ret ptr %to
}

define weak hidden ptr @memset(ptr %to, i32 %value, i64 %count) #0 {
entry:
  %byte = trunc i32 %value to i8
  %one = insertelement <16 x i8> poison, i8 %byte, i32 0
  %all = shufflevector <16 x i8> %one, <16 x i8> poison, <16 x i32> zeroinitializer
  %blocks = and i64 %count, -16
  br label %loop
loop:
  %i = phi i64 [ 0, %entry ], [ %i.next, %block ]
  %i.more = icmp ult i64 %i, %blocks
  br i1 %i.more, label %block, label %rest
block:
  %i.to = getelementptr i8, ptr %to, i64 %i
  store <16 x i8> %all, ptr %i.to, align 1
  %i.next = add i64 %i, 16
  br label %loop
rest:
  %j = phi i64 [ %blocks, %loop ], [ %j.next, %single ]
  %j.more = icmp ult i64 %j, %count
  br i1 %j.more, label %single, label %done
single:
  %j.to = getelementptr i8, ptr %to, i64 %j
  store i8 %byte, ptr %j.to
  %j.next = add i64 %j, 1
  br label %rest
done:
  ret ptr %to
}

attributes #0 = { nounwind "no-builtins" }
"""

NAMES = ("memcpy", "memmove", "memset")
"""What objects may call."""


@lru_cache(maxsize=1)
def object_code() -> bytes:
    """The functions as an ELF object for any x86-64 processor."""
    from forgec.backends.cpu.compile import compile_text  # kernels out of the cache are linked without LLVM

    return compile_text(IR, cpu="x86-64")

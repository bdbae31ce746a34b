"""Kernels written by hand in LLVM IR, linked into images, for tests of what runs them."""

from __future__ import annotations

from functools import cache

from llvmlite import binding

from forgec.backends.cpu import driver
from forgec.backends.cpu.link import link
from forgec.runtime.kernel_table import Kernel, KernelTable, NativeCode
from forgec.runtime.plan import Plan, TensorSpec
from tests.runtime.build import EntryBuilder, f32, plan_of
from tests.runtime.examples import SEQ, s0

LOOP = """
define i32 @{name}(ptr %ctx, ptr %args, i64 %begin, i64 %end) {{
entry:
{prologue}
  br label %loop
loop:
  %i = phi i64 [ %begin, %entry ], [ %next, %body.end ]
  %more = icmp ult i64 %i, %end
  br i1 %more, label %body, label %done
body:
{body}
  br label %body.end
body.end:
  %next = add i64 %i, 1
  br label %loop
done:
  ret i32 0
{epilogue}
}}
"""


def slot(name: str, index: int, kind: str = "ptr") -> str:
    """Reads slot ``index`` of the arguments."""
    return f"  %{name}.slot = getelementptr i64, ptr %args, i64 {index}\n  %{name} = load {kind}, ptr %{name}.slot\n"


def loop(name: str, prologue: str, body: str, epilogue: str = "") -> str:
    """A kernel that runs ``body`` for each of its programs ``%i``."""
    return LOOP.format(name=name, prologue=prologue, body=body, epilogue=epilogue)


ELEMENT = """  %x.at = getelementptr float, ptr %x, i64 %i
  %y.at = getelementptr float, ptr %y, i64 %i
"""

DOUBLE = loop(
    "double_it",
    slot("x", 0) + slot("y", 1),
    ELEMENT + "  %v = load float, ptr %x.at\n  %w = fmul float %v, 2.0\n  store float %w, ptr %y.at\n",
)
"""y = 2 x: one program for each element."""

SCALE_ROWS = loop(
    "scale_rows",
    slot("x", 0) + slot("s", 1) + slot("y", 2) + slot("columns", 3, "i64"),
    """  %row = mul i64 %i, %columns
  %s.at = getelementptr float, ptr %s, i64 %i
  %factor = load float, ptr %s.at
  br label %columns.loop
columns.loop:
  %j = phi i64 [ 0, %body ], [ %j.next, %columns.body ]
  %j.more = icmp ult i64 %j, %columns
  br i1 %j.more, label %columns.body, label %columns.done
columns.body:
  %at = add i64 %row, %j
  %x.at = getelementptr float, ptr %x, i64 %at
  %v = load float, ptr %x.at
  %w = fmul float %v, %factor
  %y.at = getelementptr float, ptr %y, i64 %at
  store float %w, ptr %y.at
  %j.next = add i64 %j, 1
  br label %columns.loop
columns.done:
""",
)
"""y[i, j] = x[i, j] s[i], rows of ``columns`` elements: one program for each row."""

SHIFTED = loop(
    "shifted",
    slot("x", 0) + slot("y", 1) + slot("from", 2, "i64") + slot("to", 3, "i64"),
    """  %read = add i64 %i, %from
  %read.before = sub i64 %read, 1
  %x.at = getelementptr float, ptr %x, i64 %read.before
  %v = load float, ptr %x.at
  %write = add i64 %i, %to
  %write.before = sub i64 %write, 1
  %y.at = getelementptr float, ptr %y, i64 %write.before
  store float %v, ptr %y.at
""",
)
"""y[i + to - 1] = x[i + from - 1]: outside of them for other numbers than 1."""

COPY = f"""
declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)
define i32 @copy_bytes(ptr %ctx, ptr %args, i64 %begin, i64 %end) {{
{slot("x", 0)}{slot("y", 1)}{slot("count", 2, "i64")}
  call void @llvm.memcpy.p0.p0.i64(ptr %y, ptr %x, i64 %count, i1 false)
  ret i32 0
}}
"""
"""y = x, so many bytes, by the memcpy of the image."""

TAKE = loop(
    "take",
    slot("table", 0) + slot("index", 1) + slot("y", 2) + slot("rows", 3, "i64"),
    """  %index.at = getelementptr i64, ptr %index, i64 %i
  %k = load i64, ptr %index.at
  %inside = icmp ult i64 %k, %rows
  br i1 %inside, label %fine, label %outside
fine:
  %table.at = getelementptr float, ptr %table, i64 %k
  %v = load float, ptr %table.at
  %y.at = getelementptr float, ptr %y, i64 %i
  store float %v, ptr %y.at
""",
    "outside:\n  ret i32 1\n",
)
"""y[i] = table[index[i]]; 1 for an index outside the ``rows`` of the table."""

CHECKED = "index out of range in self"

KERNELS = {
    "double_it": (DOUBLE, 2, 0, ()),
    "scale_rows": (SCALE_ROWS, 3, 1, ()),
    "copy_bytes": (COPY, 2, 1, ()),
    "shifted": (SHIFTED, 2, 2, ()),
    "take": (TAKE, 3, 1, (CHECKED,)),
}


@cache
def object_of(ir: str, cpu: str = "x86-64") -> bytes:
    """The object code of LLVM IR, as compiled for kernels."""
    binding.initialize_all_targets()
    binding.initialize_all_asmprinters()
    target = binding.Target.from_triple("x86_64-unknown-linux-gnu")
    machine = target.create_target_machine(cpu=cpu, opt=2, reloc="pic", codemodel="small")
    return machine.emit_object(binding.parse_assembly(f'target triple = "{machine.triple}"\n{ir}'))


def native(*names: str, isa: str = "x86-64", features: tuple[str, ...] = ()) -> NativeCode:
    """An image of the named kernels."""
    objects = {name: object_of(KERNELS[name][0]) for name in names}
    image = link({**objects, **driver.objects()})
    kernels = [Kernel(name, image.functions[name], *KERNELS[name][1:]) for name in names]
    return NativeCode(KernelTable(isa, tuple(kernels), features, driver.place(image.functions)), image.code)


def scaled(columns: int = 6) -> Plan:
    """double(double(x) * s), row by row: an input, a param, two buffers of the arena, an output."""
    b = EntryBuilder()
    x, s = b.input("x", f32(s0, columns)), b.input("s", f32(s0))
    doubled = b.buffer("doubled", f32(s0, columns), None, 0, 2)
    product = b.buffer("product", f32(s0, columns), None, 1, 3)
    y = b.output("y", f32(s0, columns))
    b.kernel("double_it", x, doubled, grid=(s0, columns), writes=(doubled,))
    b.kernel("scale_rows", doubled, s, product, columns, grid=(s0,), writes=(product,))
    b.kernel("double_it", product, y, grid=(s0 * columns,), writes=(y,))
    return plan_of(b.build(y), symbols=(SEQ,))


def gather() -> Plan:
    """The elements of a table at an index, which is checked."""
    b = EntryBuilder()
    index = b.input("index", TensorSpec.contiguous("i64", (s0,)))
    table = b.param("table", f32(10))
    y = b.output("y", f32(s0))
    b.kernel("take", table, index, y, 10, grid=(s0,), writes=(y,))
    return plan_of(b.build(y), symbols=(SEQ,))

"""``Emitter``: builds the body of a kernel in xDSL's ``llvm`` dialect, op by op.

Values are of i1, i8 … i64, f16, bf16, f32, f64, ``!llvm.ptr``, and of builtin vectors of these of one static
dimension::

    func = function("double", (PTR, i64), VOID)
    e = Emitter(func)
    pointer, count = e.arguments

    def body(index, carried):
        address = e.element(pointer, index, f32)
        e.store(e.fmul(e.load(vector(f32, 8), address), 2.0), address)
        return []

    e.loop(e.const(i64, 0), count, e.const(i64, 8), (), body)
    e.ret()
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from functools import cache

from xdsl.dialects import llvm
from xdsl.dialects.builtin import DenseArrayBase, IntegerAttr, UnitAttr
from xdsl.ir import Attribute, Block, Region, SSAValue
from xdsl.traits import IsTerminator

from forgec.backends.cpu import llvm_ops
from forgec.backends.cpu.llvm_types import (
    PTR,
    VOID,
    element_type,
    i1,
    i8,
    i32,
    i64,
    is_float,
    lanes,
    size_bytes,
    vector,
    with_element,
)
from forgec.backends.cpu.value_emitter import Operand, ValueEmitter

_INDEX = DenseArrayBase.from_list(i32, (llvm.GEP_USE_SSA_VAL,))
_NO_WRAP_FLAGS = IntegerAttr(0, 32)
_ALIGNMENT = {n: IntegerAttr(n, i64) for n in (1, 2, 4, 8, 16, 32, 64)}
_ORDERING = IntegerAttr(0, i64)


def function(
    name: str, inputs: Sequence[Attribute], output: Attribute = VOID, *, internal: bool = False
) -> llvm.FuncOp:
    """A function with an empty entry block. ``internal`` ones are not seen outside of the object."""
    return llvm.FuncOp(
        name,
        llvm.LLVMFunctionType(inputs, output),
        linkage=llvm.LinkageAttr("internal" if internal else "external"),
        body=Region([Block(arg_types=inputs)]),
    )


class Emitter(ValueEmitter):
    """``ValueEmitter`` with memory, reductions and control flow.

    ``block`` is where the next op goes. ``loop``, ``if_`` and ``return_if`` end it and leave it at a new block.
    """

    def __init__(self, func: llvm.FuncOp, block: Block | None = None) -> None:
        super().__init__(func, block)
        self._loops: list[tuple[Block, dict[Hashable, SSAValue]]] = []
        """The loops around ``block``: what comes before each, and what the loop has put there."""
        self._levels: dict[Block, int] = {self.entry: 0}

    @property
    def arguments(self) -> Sequence[SSAValue]:
        """The function's arguments."""
        return self.entry.args

    # -- memory --

    def gep(self, pointer: SSAValue, offset_bytes: Operand) -> SSAValue:
        """The address so many bytes on; a vector of offsets gives a vector of addresses."""
        return self.element(pointer, offset_bytes, i8)

    def element(self, pointer: SSAValue, index: Operand, element: Attribute) -> SSAValue:
        """The address of element ``index`` of an array of ``element`` (booleans: bytes); a vector gives a vector."""
        position = index if isinstance(index, SSAValue) else self.const(i64, index)
        properties: dict[str, Attribute] = {
            "elem_type": i8 if element == i1 else element,
            "noWrapFlags": _NO_WRAP_FLAGS,
            "rawConstantIndices": _INDEX,
        }
        result = with_element(position.type, PTR) if lanes(pointer.type) is None else pointer.type
        return self._emit(llvm_ops.GEPOp, (pointer, position), result, properties)

    def load(self, type: Attribute, pointer: SSAValue, alignment: int | None = None) -> SSAValue:
        """One element, or a vector of consecutive ones, aligned (in bytes) like one by default. Booleans are bytes."""
        if element_type(type) == i1:
            return self.icmp("ne", self.load(with_element(type, i8), pointer, alignment), 0)
        properties: dict[str, Attribute] = {"alignment": _align(type, alignment), "ordering": _ORDERING}
        return self._emit(llvm.LoadOp, (pointer,), type, properties)

    def store(
        self, value: SSAValue, pointer: SSAValue, alignment: int | None = None, *, streamed: bool = False
    ) -> None:
        """Store a scalar or a vector to consecutive elements; see ``load``. ``streamed`` stores go past the caches and
        do not read the lines first; other threads see them after a ``fence``.
        """
        if element_type(value.type) == i1:
            return self.store(self.zext(value, i8), pointer, alignment, streamed=streamed)
        properties: dict[str, Attribute] = {"alignment": _align(value.type, alignment), "ordering": _ORDERING}
        if streamed:
            properties["nontemporal"] = UnitAttr()
        self.block.add_op(llvm.StoreOp.create(operands=(value, pointer), properties=properties))

    def fence(self) -> None:
        """Other threads see what was stored before it."""
        self.block.add_op(llvm_ops.FenceOp.create())

    def masked_load(
        self,
        type: Attribute,
        pointer: SSAValue,
        mask: SSAValue,
        otherwise: SSAValue | None = None,
    ) -> SSAValue:
        """Consecutive elements where the mask has the lane, else ``otherwise`` (zero), without touching memory."""
        return self._masked_read("llvm.masked.load", type, pointer, mask, otherwise)

    def masked_store(self, value: SSAValue, pointer: SSAValue, mask: SSAValue) -> None:
        """Store the lanes that the mask has to consecutive elements."""
        self._masked_write("llvm.masked.store", value, pointer, mask)

    def gather(
        self,
        type: Attribute,
        pointers: SSAValue,
        mask: SSAValue,
        otherwise: SSAValue | None = None,
    ) -> SSAValue:
        """What stands at each lane's address, ``otherwise`` (zero) where the mask has no lane."""
        return self._masked_read("llvm.masked.gather", type, pointers, mask, otherwise)

    def scatter(self, value: SSAValue, pointers: SSAValue, mask: SSAValue) -> None:
        """Store each lane that the mask has to its address, in the order of the lanes."""
        self._masked_write("llvm.masked.scatter", value, pointers, mask)

    def _masked_read(
        self, name: str, type: Attribute, pointer: SSAValue, mask: SSAValue, otherwise: SSAValue | None
    ) -> SSAValue:
        if element_type(type) == i1:
            wide = None if otherwise is None else self.zext(otherwise, i8)
            return self.icmp("ne", self._masked_read(name, with_element(type, i8), pointer, mask, wide), 0)
        rest = self.zero(type) if otherwise is None else otherwise
        operands = (pointer, self.const(i32, size_bytes(type)), mask, rest)
        return self.intrinsic(name, operands, type, overloaded=(type, pointer.type))

    def _masked_write(self, name: str, value: SSAValue, pointer: SSAValue, mask: SSAValue) -> None:
        if element_type(value.type) == i1:
            value = self.zext(value, i8)
        operands = (value, pointer, self.const(i32, size_bytes(value.type)), mask)
        self._intrinsic(name, operands, (), (value.type, pointer.type))

    def alloca(self, type: Attribute, count: int = 1, alignment: int = 64) -> SSAValue:
        """Memory of the function's frame for ``count`` elements, uninitialised, allocated once when it is entered."""
        size = self.const(i64, count)
        properties: dict[str, Attribute] = {
            "elem_type": with_element(type, i8) if element_type(type) == i1 else type,
            "alignment": _ALIGNMENT[alignment],
        }
        return self._insert_in_entry(llvm.AllocaOp.create(operands=(size,), result_types=(PTR,), properties=properties))

    def variable(self, type: Attribute) -> SSAValue:
        """The address of a number in the function's frame that is 0 when the function begins."""
        pointer = self.alloca(type)
        store = llvm.StoreOp.create(
            operands=(self.zero(type), pointer), properties={"alignment": _align(type, None), "ordering": _ORDERING}
        )
        last = self.entry.last_op
        if last is not None and last.has_trait(IsTerminator):
            self.entry.insert_op_before(store, last)
        else:
            self.entry.add_op(store)
        return pointer

    def prefetch(self, pointer: SSAValue, level: int = 2) -> None:
        """Ask for the line of an address, whatever is there, in a cache of this level."""
        operands = (pointer, self.const(i32, 0), self.const(i32, 4 - level), self.const(i32, 1))
        self._intrinsic("llvm.prefetch", operands, (), (pointer.type,))

    def opaque(self, pointer: SSAValue) -> SSAValue:
        """The same address, of which LLVM does not know that it is."""
        found = llvm.InlineAsmOp("", "=r,0", [pointer], [pointer.type])
        self.block.add_op(found)
        assert found.res is not None, "it has one"
        return found.res

    # -- reductions --

    def combine(self, kind: str, a: SSAValue, b: SSAValue, *, signed: bool = True) -> SSAValue:
        """One step of a reduction: ``add mul min max`` (NaN-propagating in floats), ``maxnum`` (``b`` if it is
        greater, else ``a``), ``and or xor``.
        """
        if kind == "maxnum":
            return self.select(self.fcmp("ogt", b, a), b, a)
        if is_float(a.type):
            return {"add": self.fadd, "mul": self.fmul, "min": self.fmin, "max": self.fmax}[kind](a, b)
        if kind in ("min", "max"):
            return getattr(self, ("s" if signed and element_type(a.type) != i1 else "u") + kind)(a, b)
        return {"add": self.add, "mul": self.mul, "and": self.and_, "or": self.or_, "xor": self.xor}[kind](a, b)

    def reduce(self, kind: str, value: SSAValue, *, signed: bool = True) -> SSAValue:
        """All lanes combined into a scalar, halves with halves (see ``combine``)."""
        count = lanes(value.type)
        if count is None:
            return value
        rest: list[SSAValue] = []
        while count > 1:
            if count % 2:
                rest.append(self.extract(value, count - 1))
                value, count = self.slice(value, 0, count - 1), count - 1
            count //= 2
            value = self.combine(kind, self.slice(value, 0, count), self.slice(value, count, count), signed=signed)
        result = self.extract(value, 0)
        for lane in rest:
            result = self.combine(kind, result, lane, signed=signed)
        return result

    # -- control flow --

    def _begin(self, block: Block) -> Block:
        """Go on in a block that is in the same loops as the one before."""
        self.block = block
        self._levels[block] = len(self._loops)
        return block

    def _enter_loop(self, head: Block) -> None:
        self._loops.append((self.block, {}))
        self._begin(head)

    def once_outside(self, key: Hashable, operands: Sequence[SSAValue], compute: Callable[[], SSAValue]) -> SSAValue:
        """``remember`` of what has no effect and is made of ``operands`` alone: it is emitted before the innermost loop
        if they are known there. LLVM's code generator leaves cheap arithmetic in the loops where it is written.
        """
        inside = len(self._loops)
        if not inside or any(self.level(operand) == inside for operand in operands):
            return self.remember(key, compute)
        before, known = self._loops[-1]
        if (found := known.get(key)) is None:
            here, self.block = self.block, before
            found = known[key] = compute()
            self.block = here
        return found

    def level(self, value: SSAValue) -> int:
        """How many loops are around the place where a value is made."""
        owner = value.owner
        block = owner if isinstance(owner, Block) else owner.parent
        return len(self._loops) if block is None else self._levels.get(block, len(self._loops))

    def new_block(self, arg_types: Sequence[Attribute] = ()) -> Block:
        """A block after all others, in which nothing is emitted yet."""
        block = Block(arg_types=arg_types)
        self.func.body.add_block(block)
        return block

    def branch(self, target: Block, values: Sequence[SSAValue] = ()) -> None:
        self.block.add_op(llvm.BrOp.create(operands=values, successors=(target,)))

    def branch_if(
        self,
        condition: SSAValue,
        then: Block,
        then_values: Sequence[SSAValue],
        otherwise: Block,
        otherwise_values: Sequence[SSAValue],
    ) -> None:
        sizes = _branch_segments(len(then_values), len(otherwise_values))
        self.block.add_op(
            llvm.CondBrOp.create(
                operands=(condition, *then_values, *otherwise_values),
                properties={"operandSegmentSizes": sizes},
                successors=(then, otherwise),
            )
        )

    def loop(
        self,
        start: Operand,
        end: Operand,
        step: Operand,
        carried: Sequence[SSAValue],
        body: Callable[[SSAValue, list[SSAValue]], Sequence[SSAValue]],
    ) -> list[SSAValue]:
        """``for index in range(start, end, step)``, with a positive step, signed, and ``end + step`` in range.

        ``body(index, carried)`` emits one iteration and returns the next values of ``carried``. The results are the
        last ones; they are the first ones if there is no iteration. The index has the type of the bounds, i64 if all
        of them are numbers.
        """
        like = next((v.type for v in (end, start, step) if isinstance(v, SSAValue)), i64)
        start, end, step = (v if isinstance(v, SSAValue) else self.const(like, v) for v in (start, end, step))
        types = [value.type for value in carried]
        head = self.new_block([start.type, *types])
        exit_ = Block(arg_types=types)
        before = self.block
        self._enter_loop(head)
        index = head.args[0]
        following = list(body(index, list(head.args[1:])))
        if [value.type for value in following] != types:
            raise TypeError(f"the loop carries {types}, its body gives {[value.type for value in following]}")
        next_index = self.add(index, step, nsw=True)
        more = self.icmp("slt", next_index, end)
        self.branch_if(more, head, (next_index, *following), exit_, following)
        self._loops.pop()
        # The condition stands at the end, behind a guard: the form that LLVM's loop passes would bring it into. The way
        # into the loop comes last, since the body may have put what does not change (``once_outside``) before it.
        self.block = before
        first, last = constant_number(start), constant_number(end)
        if first is not None and last is not None and first < last:
            self.branch(head, (start, *carried))
        else:
            self.branch_if(self.icmp("slt", start, end), head, (start, *carried), exit_, carried)
        self.func.body.add_block(exit_)
        self._begin(exit_)
        return list(exit_.args)

    def repeat(
        self,
        carried: Sequence[SSAValue],
        body: Callable[[list[SSAValue]], tuple[SSAValue, Sequence[SSAValue]]],
    ) -> list[SSAValue]:
        """``do … while``: ``body(carried)`` returns whether to go on, and the next values, then the results."""
        types = [value.type for value in carried]
        head, exit_ = self.new_block(types), Block(arg_types=types)
        before = self.block
        self._enter_loop(head)
        more, following = body(list(head.args))
        if [value.type for value in following] != types:
            raise TypeError(f"the loop carries {types}, its body gives {[value.type for value in following]}")
        self.branch_if(more, head, following, exit_, following)
        self._loops.pop()
        self.block = before
        self.branch(head, carried)
        self.func.body.add_block(exit_)
        self._begin(exit_)
        return list(exit_.args)

    def if_(
        self,
        condition: SSAValue,
        then: Callable[[], Sequence[SSAValue]],
        otherwise: Callable[[], Sequence[SSAValue]] | None = None,
        unchanged: Sequence[SSAValue] = (),
    ) -> list[SSAValue]:
        """The values of the branch taken; without ``otherwise``, ``unchanged`` if the condition does not hold."""
        before = self.block
        then_block = self._begin(self.new_block())
        then_values = list(then())
        join = Block(arg_types=[value.type for value in then_values])
        self.branch(join, then_values)
        if otherwise is None:
            other_values, else_block = list(unchanged), join
        else:
            else_block = self._begin(self.new_block())
            other_values = list(otherwise())
            self.branch(join, other_values)
        if [value.type for value in other_values] != [value.type for value in then_values]:
            raise TypeError("the branches give values of different types")
        self.block = before
        self.branch_if(condition, then_block, (), else_block, other_values if otherwise is None else ())
        self.func.body.add_block(join)
        self._begin(join)
        return list(join.args)

    def return_if(self, condition: SSAValue, value: SSAValue | None = None) -> None:
        """Leave the function if the condition holds."""
        leave, proceed = self.new_block(), self.new_block()
        self.branch_if(condition, leave, (), proceed, ())
        self.block = leave
        self.ret(value)
        self._begin(proceed)

    def ret(self, value: SSAValue | None = None) -> None:
        self.block.add_op(llvm.ReturnOp.create(operands=() if value is None else (value,)))

    def unreachable(self) -> None:
        self.block.add_op(llvm.UnreachableOp.create())

    def call(self, callee: llvm.FuncOp, operands: Sequence[SSAValue]) -> SSAValue | None:
        """Call a function of the same module."""
        output = callee.function_type.output
        call = llvm.CallOp(callee.sym_name.data, *operands, return_type=None if output == VOID else output)
        self.block.add_op(call)
        return call.results[0] if call.results else None

    def any(self, mask: SSAValue) -> SSAValue:
        """Whether a lane of a vector of i1 is true, as one i1; a scalar is itself."""
        count = lanes(mask.type)
        if count is None:
            return mask
        return self.intrinsic("llvm.vector.reduce.or", (mask,), i1, overloaded=(vector(i1, count),))


@cache
def _branch_segments(then: int, otherwise: int) -> DenseArrayBase:
    return DenseArrayBase.from_list(i32, (1, then, otherwise))


def _align(type: Attribute, alignment: int | None) -> IntegerAttr:
    return _ALIGNMENT[size_bytes(type) if alignment is None else alignment]


def constant_number(value: SSAValue) -> int | None:
    """The integer constant that a value is."""
    if isinstance(value.owner, llvm.ConstantOp) and isinstance(value.owner.value, IntegerAttr):
        return value.owner.value.value.data
    return None

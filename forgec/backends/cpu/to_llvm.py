"""Text of LLVM IR for a module of xDSL's ``llvm`` dialect.

Used in the place of ``xdsl.backend.llvm``, which has no bfloat16, no ``uitofp``, ``extractelement`` or poison, no
flags on intrinsics and no function attributes, and which builds a second object graph (llvmlite's) only to print it:
LLVM parses text either way.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable, Mapping

import numpy as np
from xdsl.dialects import llvm
from xdsl.dialects.builtin import (
    ArrayAttr,
    BFloat16Type,
    DenseArrayBase,
    DenseIntOrFPElementsAttr,
    Float16Type,
    Float32Type,
    FloatAttr,
    IntegerAttr,
    IntegerType,
    ModuleOp,
    StringAttr,
)
from xdsl.ir import Attribute, Block, Operation, SSAValue

from forgec.backends.cpu.llvm_types import element_type, lanes, mangled, spelling

_BINARY = {
    f"llvm.{name}": name  # the same word in both
    for name in (
        *("add", "sub", "mul", "udiv", "sdiv", "urem", "srem", "and", "or", "xor", "shl", "lshr", "ashr"),
        *("fadd", "fsub", "fmul", "fdiv", "frem"),
    )
}
_CASTS = {
    f"llvm.{name}": name
    for name in (
        *("trunc", "zext", "sext", "fpext", "fptrunc", "sitofp", "uitofp", "fptosi", "fptoui"),
        *("bitcast", "ptrtoint", "inttoptr"),
    )
}
_INTRINSIC_OPS = {
    "llvm.intr.fma": "llvm.fma",
    "llvm.intr.fabs": "llvm.fabs",
    "llvm.intr.sqrt": "llvm.sqrt",
    "llvm.intr.ceil": "llvm.ceil",
    "llvm.intr.floor": "llvm.floor",
    "llvm.intr.copysign": "llvm.copysign",
    "llvm.intr.maxnum": "llvm.maxnum",
    "llvm.intr.minnum": "llvm.minnum",
}
_OVERFLOW = ("", "nsw ", "nuw ", "nsw nuw ")
_ICMP = [flag.value for flag in sorted(llvm.ICmpPredicateFlag, key=lambda flag: flag.to_int())]
_FCMP = [flag.value.lstrip("_") for flag in sorted(llvm.FCmpPredicateFlag, key=lambda flag: flag.to_int())]
_ARGUMENT_FLAGS = ("noalias", "nonnull", "noundef", "readonly", "writeonly", "zeroext", "signext")
_ARGUMENT_NUMBERS = {"llvm.align": "align {}", "llvm.dereferenceable": "dereferenceable({})"}

# No loop becomes a call of memset or memcpy, and no sequence one of libm: the objects have nobody to call.
_FUNCTION_ATTRIBUTES = 'nounwind "no-builtins"'


def llvm_text(module: ModuleOp, *, triple: str = "", attributes: str = "") -> str:
    """The module, of ``llvm.func`` and ``llvm.mlir.global``, as LLVM IR; ``attributes`` are added to each function's.

    Raises:
        NotImplementedError: an op or an attribute that has no translation here. No kernel has one: their functions come
            from ``Emitter``, whose ops all are translated; what a kernel has no code for is FORGE-B002 before.
    """
    return _Writer(f"{_FUNCTION_ATTRIBUTES} {attributes}".rstrip()).module(module, triple)


def literal(type: Attribute, number: int | float) -> str:
    """The number as a constant of a scalar type."""
    match type:
        case IntegerType():
            if type.width.data == 1:
                return "true" if number else "false"
            return str(int(number))
        case Float16Type():
            with np.errstate(over="ignore"):
                return f"0xH{np.float16(number).view(np.uint16):04X}"
        case BFloat16Type():
            whole = struct.unpack("<I", struct.pack("<f", ctypes.c_float(number).value))[0]
            rounded = whole | 0x400000 if number != number else whole + 0x7FFF + (whole >> 16 & 1)
            return str(rounded >> 16)
        case Float32Type():
            number = ctypes.c_float(number).value
    return f"0x{struct.unpack('<Q', struct.pack('<d', number))[0]:016X}"


class _Writer:
    def __init__(self, attributes: str) -> None:
        self.attributes = attributes
        self.lines: list[str] = []
        self.declarations: dict[str, str] = {}
        self.types: dict[int, tuple[str, Attribute]] = {}
        self.names: dict[SSAValue, str] = {}
        self.labels: dict[Block, str] = {}
        self.metadata = ""

    def type(self, type: Attribute) -> str:
        known = self.types.get(id(type))
        if known is None:
            known = self.types[id(type)] = (spelling(type), type)  # the type is kept, so that its id stays its own
        return known[0]

    def typed(self, value: SSAValue) -> str:
        return f"{self.type(value.type)} {self.names[value]}"

    def module(self, module: ModuleOp, triple: str) -> str:
        functions: list[llvm.FuncOp] = []
        for op in module.ops:
            if isinstance(op, llvm.GlobalOp):
                self.lines.append(_global(op))
            elif isinstance(op, llvm.FuncOp):
                functions.append(op)
            else:
                raise NotImplementedError(f"{op.name} at the level of the module")
        defined = {op.sym_name.data for op in functions}
        for op in functions:
            self.function(op)
        header = [f'target triple = "{triple}"'] if triple else []
        declared = [text for name, text in self.declarations.items() if name not in defined]
        attributes = f"attributes #0 = {{ {self.attributes} }}"
        return "\n".join([*header, *declared, *self.lines, attributes, self.metadata])

    def function(self, op: llvm.FuncOp) -> None:
        inputs = [self.type(t) for t in op.function_type.inputs]
        output, name = self.type(op.function_type.output), op.sym_name.data
        attributes = [""] * len(inputs) if op.arg_attrs is None else [_argument(a.data) for a in op.arg_attrs]
        if not op.body.blocks:
            self.declarations[name] = f"declare {output} @{name}({', '.join(inputs)}) #0"
            return
        blocks = list(op.body.blocks)
        self.names, self.labels = {}, {block: f"b{i}" for i, block in enumerate(blocks)}
        arguments = [f"%a{i}" for i in range(len(inputs))]
        self.names.update(zip(blocks[0].args, arguments, strict=True))
        linkage = "" if op.linkage.linkage.data == "external" else op.linkage.linkage.data + " "
        passthrough = op.passthrough or op.attributes.get("passthrough")  # xDSL's parser leaves it among the attributes
        extra = " " + _passthrough(passthrough) if isinstance(passthrough, ArrayAttr) else ""
        signature = ", ".join(f"{t}{a} {n}" for t, a, n in zip(inputs, attributes, arguments, strict=True))
        self.lines.append(f"define {linkage}{output} @{name}({signature}) #0{extra} {{")
        # Names first: a phi names values of blocks that follow.
        count = 0
        for i, block in enumerate(blocks):
            for arg in block.args if i else ():
                self.names[arg] = f"%p{count}"
                count += 1
            for inner in block.ops:
                for result in inner.results:
                    value = _constant(inner)
                    self.names[result] = f"%v{count}" if value is None else value
                    count += 1
        incoming = self.incoming(blocks)
        for i, block in enumerate(blocks):
            self.lines.append(f"{self.labels[block]}:")
            for k, arg in enumerate(block.args if i else ()):
                pairs = ", ".join(f"[ {self.names[values[k]]}, %{label} ]" for label, values in incoming[block])
                self.lines.append(f"  {self.names[arg]} = phi {self.type(arg.type)} {pairs}")
            for inner in block.ops:
                self.op(inner)
        self.lines.append("}")

    def incoming(self, blocks: list[Block]) -> dict[Block, list[tuple[str, list[SSAValue]]]]:
        """For each block the label of each predecessor, and the values it passes."""
        result: dict[Block, list[tuple[str, list[SSAValue]]]] = {block: [] for block in blocks}
        for block in blocks:
            label = self.labels[block]
            match block.last_op:
                case llvm.BrOp() as br:
                    result[br.successor].append((label, list(br.arguments)))
                case llvm.CondBrOp() as br:
                    if br.then_block is br.else_block and list(br.then_arguments) != list(br.else_arguments):
                        raise NotImplementedError("a branch to one block with different values")
                    result[br.then_block].append((label, list(br.then_arguments)))
                    result[br.else_block].append((label, list(br.else_arguments)))
        return result

    def op(self, op: Operation) -> None:
        name = op.name
        operands, names = op.operands, self.names
        if (word := _BINARY.get(name)) is not None:
            left, right = operands
            text = f"{word} {_flags(op)}{self.type(left.type)} {names[left]}, {names[right]}"
        elif (word := _CASTS.get(name)) is not None:
            text = f"{word} {self.typed(operands[0])} to {self.type(op.results[0].type)}"
        elif (word := _INTRINSIC_OPS.get(name)) is not None:
            text = self.call(f"{word}.{mangled(op.results[0].type)}", op)
        elif (write := _WRITERS.get(name)) is not None:
            text = write(self, op)
        else:
            raise NotImplementedError(f"{name} has no translation to LLVM IR")
        if text:
            self.lines.append(f"  {names[op.results[0]]} = {text}" if op.results else f"  {text}")

    def call(self, callee: str, op: Operation) -> str:
        output = self.type(op.results[0].type) if op.results else "void"
        if callee not in self.declarations:
            inputs = ", ".join(self.type(value.type) for value in op.operands)
            self.declarations[callee] = f"declare {output} @{callee}({inputs})"
        flags = _fast_math(op)
        # llvm.abs and the like want constants in places; constants are printed in place.
        return f"call {flags}{output} @{callee}({', '.join(map(self.typed, op.operands))})"


def _fast_math(op: Operation) -> str:
    flags = op.properties.get("fastmathFlags")
    return "".join(f"{flag.value} " for flag in flags.data) if isinstance(flags, llvm.FastMathAttr) else ""


def _flags(op: Operation) -> str:
    if not op.properties:
        return ""
    overflow = op.properties.get("overflowFlags")
    if isinstance(overflow, IntegerAttr):
        return _OVERFLOW[overflow.value.data]
    if "isExact" in op.properties:
        return "exact "
    if "isDisjoint" in op.properties:
        return "disjoint "
    return _fast_math(op)


def _constant(op: Operation) -> str | None:
    """The text of a value that is a constant."""
    name = op.name
    if name == "llvm.mlir.constant":
        return _value(op.results[0].type, op.properties["value"])
    if name == "llvm.mlir.poison" or name == "llvm.mlir.undef":
        return "poison" if name == "llvm.mlir.poison" else "undef"
    if name == "llvm.mlir.zero":
        return "null" if isinstance(op.results[0].type, llvm.LLVMPointerType) else "zeroinitializer"
    if name == "llvm.mlir.addressof":
        assert isinstance(op, llvm.AddressOfOp)
        return f"@{op.global_name.root_reference.data}"
    return None


def _value(type: Attribute, value: Attribute) -> str:
    if isinstance(value, IntegerAttr | FloatAttr):
        number = value.value.data
        if lanes(type) is None:
            return literal(type, number)
        return f"splat ({spelling(element_type(type))} {literal(element_type(type), number)})"
    if isinstance(value, DenseIntOrFPElementsAttr):
        element = value.get_element_type()
        numbers = list(value.get_values())
        one, count = spelling(element), lanes(type)
        if count is not None and all(_same(n, numbers[0]) for n in numbers):
            return f"splat ({one} {literal(element, numbers[0])})"
        items = ", ".join(f"{one} {literal(element, n)}" for n in numbers)
        return f"[{items}]" if count is None else f"<{items}>"
    raise NotImplementedError(f"constant {value}")


def _same(a: int | float, b: int | float) -> bool:
    return struct.pack("d", a) == struct.pack("d", b) if isinstance(a, float) else a == b


def _global(op: llvm.GlobalOp) -> str:
    if op.value is None:
        raise NotImplementedError(f"global @{op.sym_name.data} has no value")
    kind = "global" if op.constant is None else "constant"
    if isinstance(op.value, StringAttr):
        raw = op.value.data.encode()
        escaped = "".join(chr(b) if 32 <= b < 127 and b not in b'"\\' else f"\\{b:02X}" for b in raw)
        text = f'[{len(raw)} x i8] c"{escaped}"'
    else:
        text = f"{spelling(op.global_type)} {_value(op.global_type, op.value)}"
    linkage = op.linkage.linkage.data
    return f"@{op.sym_name.data} = {'' if linkage == 'external' else linkage + ' '}unnamed_addr {kind} {text}, align 64"


def _argument(attributes: Mapping[str, Attribute]) -> str:
    words: list[str] = []
    for name, value in attributes.items():
        if name.removeprefix("llvm.") in _ARGUMENT_FLAGS:
            words.append(name.removeprefix("llvm."))
        elif name in _ARGUMENT_NUMBERS and isinstance(value, IntegerAttr):
            words.append(_ARGUMENT_NUMBERS[name].format(value.value.data))
        else:
            raise NotImplementedError(f"attribute {name} of an argument")
    return "".join(" " + word for word in words)


def _passthrough(attributes: ArrayAttr) -> str:
    words: list[str] = []
    for attribute in attributes:
        if isinstance(attribute, ArrayAttr):
            words.append("=".join(f'"{part.data}"' for part in attribute if isinstance(part, StringAttr)))
        elif isinstance(attribute, StringAttr):
            words.append(attribute.data)
    return " ".join(words)


def _alignment(op: Operation) -> str:
    alignment = op.properties.get("alignment")
    return f", align {alignment.value.data}" if isinstance(alignment, IntegerAttr) else ""


def _compare(word: str, predicates: list[str]) -> Callable[[_Writer, Operation], str]:
    def write(writer: _Writer, op: Operation) -> str:
        predicate = op.properties["predicate"]
        assert isinstance(predicate, IntegerAttr)
        words = f"{word} {_fast_math(op)}{predicates[predicate.value.data]}"
        return f"{words} {writer.typed(op.operands[0])}, {writer.names[op.operands[1]]}"

    return write


def _refuse_atomic(op: Operation, what: str) -> None:
    if getattr(op.properties.get("ordering"), "value", None) not in (None, _NOT_ATOMIC):
        raise NotImplementedError(f"atomic {what}")


def _load(writer: _Writer, op: Operation) -> str:
    _refuse_atomic(op, "loads")
    return f"load {writer.type(op.results[0].type)}, {writer.typed(op.operands[0])}{_alignment(op)}"


def _store(writer: _Writer, op: Operation) -> str:
    _refuse_atomic(op, "stores")
    text = f"store {writer.typed(op.operands[0])}, {writer.typed(op.operands[1])}{_alignment(op)}"
    if "nontemporal" not in op.properties:
        return text
    writer.metadata = _NONTEMPORAL
    return f"{text}, !nontemporal !0"


def _gep(writer: _Writer, op: Operation) -> str:
    constants, element = op.properties["rawConstantIndices"], op.properties["elem_type"]
    assert isinstance(constants, DenseArrayBase)
    dynamic = iter(op.operands[1:])
    indices = [
        writer.typed(next(dynamic)) if index == llvm.GEP_USE_SSA_VAL else f"i32 {index}"
        for index in constants.iter_values()
    ]
    inbounds = "inbounds " if op.properties.get("inbounds") is not None else ""
    return f"getelementptr {inbounds}{writer.type(element)}, {writer.typed(op.operands[0])}, {', '.join(indices)}"


def _shuffle(writer: _Writer, op: Operation) -> str:
    mask = op.properties["mask"]
    assert isinstance(mask, DenseArrayBase)
    lanes_ = list(mask.iter_values())
    text = ", ".join("i32 poison" if lane < 0 else f"i32 {lane}" for lane in lanes_)
    return (
        f"shufflevector {writer.typed(op.operands[0])}, {writer.typed(op.operands[1])}, <{len(lanes_)} x i32> <{text}>"
    )


def _intrinsic(writer: _Writer, op: Operation) -> str:
    name = op.properties["intrin"]
    assert isinstance(name, StringAttr)
    return writer.call(name.data, op)


def _call(writer: _Writer, op: Operation) -> str:
    assert isinstance(op, llvm.CallOp)
    if op.callee is None:
        raise NotImplementedError("calls of function pointers")
    return writer.call(op.callee.root_reference.data, op)


def _alloca(writer: _Writer, op: Operation) -> str:
    return f"alloca {writer.type(op.properties['elem_type'])}, {writer.typed(op.operands[0])}{_alignment(op)}"


def _return(writer: _Writer, op: Operation) -> str:
    return f"ret {writer.typed(op.operands[0])}" if op.operands else "ret void"


def _branch(writer: _Writer, op: Operation) -> str:
    return f"br label %{writer.labels[op.successors[0]]}"


def _branch_if(writer: _Writer, op: Operation) -> str:
    then, otherwise = (writer.labels[block] for block in op.successors)
    return f"br {writer.typed(op.operands[0])}, label %{then}, label %{otherwise}"


def _typed_operands(word: str) -> Callable[[_Writer, Operation], str]:
    return lambda writer, op: f"{word} {_fast_math(op)}{', '.join(map(writer.typed, op.operands))}"


def _assembly(writer: _Writer, op: Operation) -> str:
    assert isinstance(op, llvm.InlineAsmOp)
    output = writer.type(op.res.type) if op.res is not None else "void"
    operands = ", ".join(map(writer.typed, op.operands))
    return f'call {output} asm "{op.asm_string.data}", "{op.constraints.data}"({operands})'


def _extract_value(writer: _Writer, op: Operation) -> str:
    position = op.properties["position"]
    assert isinstance(position, DenseArrayBase)
    return f"extractvalue {writer.typed(op.operands[0])}, {', '.join(map(str, position.iter_values()))}"


_NONTEMPORAL = "!0 = !{i32 1}"
_NOT_ATOMIC = IntegerAttr(0, 64).value
_WRITERS: dict[str, Callable[[_Writer, Operation], str]] = {
    "llvm.icmp": _compare("icmp", _ICMP),
    "llvm.fcmp": _compare("fcmp", _FCMP),
    "llvm.fneg": _typed_operands("fneg"),
    "llvm.select": _typed_operands("select"),
    "llvm.extractelement": _typed_operands("extractelement"),
    "llvm.insertelement": _typed_operands("insertelement"),
    "llvm.shufflevector": _shuffle,
    "llvm.load": _load,
    "llvm.store": _store,
    "llvm.getelementptr": _gep,
    "llvm.alloca": _alloca,
    "llvm.call_intrinsic": _intrinsic,
    "llvm.call": _call,
    "llvm.inline_asm": _assembly,
    "llvm.cmpxchg": lambda writer, op: f"cmpxchg {', '.join(map(writer.typed, op.operands))} monotonic monotonic",
    "llvm.extractvalue": _extract_value,
    "llvm.fence": lambda writer, op: "fence seq_cst",
    "llvm.return": _return,
    "llvm.br": _branch,
    "llvm.cond_br": _branch_if,
    "llvm.unreachable": lambda writer, op: "unreachable",
    "llvm.mlir.constant": lambda writer, op: "",
    "llvm.mlir.poison": lambda writer, op: "",
    "llvm.mlir.undef": lambda writer, op: "",
    "llvm.mlir.zero": lambda writer, op: "",
    "llvm.mlir.addressof": lambda writer, op: "",
}

"""Modules of ``llvm`` functions to object code."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from threading import Lock
from time import process_time

import llvmlite.binding as binding
from xdsl.dialects import llvm
from xdsl.dialects.builtin import ModuleOp

from forgec.backends.cpu.elf import ObjectFile
from forgec.backends.cpu.memory_functions import NAMES
from forgec.backends.cpu.to_llvm import llvm_text
from forgec.diagnostics import error

TRIPLE = "x86_64-unknown-linux-gnu"
"""What objects are for, whatever machine compiles them: images are laid out for it."""

AARCH64 = "aarch64-unknown-linux-gnu"
"""What assembly can be had for as well, to see what kernels become there: nothing runs it yet."""

STAGES = ("printing", "parsing", "passes", "emission")
"""From a module of LLVM's dialect to an object."""

_LOCK = Lock()  # a target machine is for one thread at a time


@dataclass(frozen=True, slots=True)
class Printed:
    """LLVM IR that is to be compiled: its text, what it is for, and its functions, for messages."""

    text: str
    cpu: str
    features: str | None
    functions: str


def compile_module(
    module: ModuleOp, *, cpu: str = "host", features: str | None = None, vector_bits: int | None = None
) -> bytes:
    """The relocatable object (ELF, position-independent, small code model) of a module of ``llvm`` functions.

    Equal modules give equal bytes. ``cpu`` is ``host`` or one of LLVM's names (``x86-64-v3``), ``features`` LLVM's
    list of additions and exceptions (``+avx512fp16,-gfni``); for ``host`` it is what this CPU has unless given.
    ``vector_bits`` says how wide registers may be used, where LLVM would prefer narrower ones.

    Raises:
        ForgeError: FORGE-B003 if LLVM refuses the module, or if the object needs functions that no kernel may call.
    """
    return compile_printed(printed(module, cpu=cpu, features=features, vector_bits=vector_bits))


def printed(
    module: ModuleOp, *, cpu: str = "host", features: str | None = None, vector_bits: int | None = None
) -> Printed:
    """The first half of ``compile_module``, which is Python's."""
    return Printed(_text(module, vector_bits), cpu, features, _functions(module))


def compile_printed(printed: Printed) -> bytes:
    """The second half, which is LLVM's, and which other threads of Python need not wait for."""
    object_ = _object(printed, {})
    missing = sorted(ObjectFile(object_).undefined.difference(NAMES))
    if missing:
        raise error(
            "FORGE-B003",
            f"the object code of {printed.functions} for {printed.cpu} calls {', '.join(missing)}",
            notes=(
                "kernels run without libraries; LLVM calls such functions for what the CPU has no instructions for",
            ),
        )
    return object_


def staged_object(
    module: ModuleOp, *, cpu: str, features: str | None, vector_bits: int | None, seconds: dict[str, float]
) -> bytes:
    """The object, as it is; ``seconds`` gets the CPU time of each of the ``STAGES``."""
    started = process_time()
    text = printed(module, cpu=cpu, features=features, vector_bits=vector_bits)
    seconds[STAGES[0]] = process_time() - started
    return _object(text, seconds)


def _object(printed: Printed, seconds: dict[str, float]) -> bytes:
    with _LOCK:
        machine = _machine(printed.cpu, printed.features)
        clock = [process_time()]
        parsed = _parsed(printed)
        clock.append(process_time())
        _clean(parsed, machine)
        clock.append(process_time())
        with _loops_as_they_are():
            object_ = machine.emit_object(parsed)
        clock.append(process_time())
    seconds.update(zip(STAGES[1:], (after - before for before, after in pairwise(clock)), strict=True))
    return object_


def compile_text(text: str, *, cpu: str) -> bytes:
    """The object of LLVM IR as it is written, without passes."""
    with _LOCK:
        machine = _machine(cpu, "")
        text = f'target triple = "{machine.triple}"\n{text}'
        return machine.emit_object(binding.parse_assembly(text, binding.create_context()))


def assembly(
    module: ModuleOp,
    *,
    cpu: str = "host",
    features: str | None = None,
    vector_bits: int | None = None,
    triple: str = TRIPLE,
) -> str:
    """What ``compile_module`` generates, as assembly to read; of another processor's, given its ``triple``."""
    with _LOCK:
        machine = _machine(cpu, features, triple)
        text = Printed(_text(module, vector_bits, triple), cpu, features, _functions(module))
        optimized = _optimized(text, machine)
        with _loops_as_they_are():
            return machine.emit_assembly(optimized)


def optimized_llvm(
    module: ModuleOp, *, cpu: str = "host", features: str | None = None, vector_bits: int | None = None
) -> str:
    """The LLVM IR from which ``compile_module`` generates code."""
    with _LOCK:
        text = printed(module, cpu=cpu, features=features, vector_bits=vector_bits)
        return str(_optimized(text, _machine(cpu, features)))


def _functions(module: ModuleOp) -> str:
    return ", ".join(op.sym_name.data for op in module.ops if isinstance(op, llvm.FuncOp))


def _optimized(printed: Printed, machine: binding.TargetMachine) -> binding.ModuleRef:
    parsed = _parsed(printed)
    _clean(parsed, machine)
    return parsed


def _text(module: ModuleOp, vector_bits: int | None, triple: str = TRIPLE) -> str:
    widths = (
        "" if vector_bits is None else f'"prefer-vector-width"="{vector_bits}" "min-legal-vector-width"="{vector_bits}"'
    )
    return llvm_text(module, triple=triple, attributes=widths)


def _parsed(printed: Printed) -> binding.ModuleRef:
    try:
        parsed = binding.parse_assembly(printed.text, binding.create_context())  # LLVM's global context would only grow
        parsed.verify()
    except RuntimeError as fault:
        raise error("FORGE-B003", f"LLVM refuses the code of {printed.functions}: {str(fault).strip()}") from fault
    parsed.name = "kernels"
    return parsed


def _clean(parsed: binding.ModuleRef, machine: binding.TargetMachine) -> None:
    builder = binding.create_pass_builder(machine, binding.create_pipeline_tuning_options(speed_level=2))
    _passes().run(parsed, builder)


def _passes() -> binding.ModulePassManager:
    """Few passes: kernels are generated in the form that loops and vectors shall have; what is left is to clean up.

    LLVM's own pipelines (-O1, -O2) take three to five times as long and leave as many instructions: there is nothing to
    vectorise, and the code generator, whose own time is most of it, removes common subexpressions and hoists what loops
    do not change. NewGVN is left out: LLVM itself does not enable it.
    """
    passes = binding.create_new_module_pass_manager()
    passes.add_sroa_pass()
    passes.add_instruction_combine_pass()
    passes.add_dead_code_elimination_pass()
    passes.add_simplify_cfg_pass()
    return passes


@contextmanager
def _loops_as_they_are() -> Iterator[None]:
    """The code generator without loop strength reduction, which is two fifths of its time and changes nothing here:
    addresses in the loops of kernels are a base, an index and a constant, as the processor's own addresses are.

    The option is LLVM's, for all of the process, and has no place in a target machine: it is set for as long as an
    object is emitted, so that others who use LLVM get what they are used to.
    """
    binding.set_option("", "-disable-lsr=true")
    try:
        yield
    finally:
        binding.set_option("", "-disable-lsr=false")


@cache
def _machine(cpu: str, features: str | None, triple: str = TRIPLE) -> binding.TargetMachine:
    binding.initialize_all_targets()
    binding.initialize_all_asmprinters()
    if cpu == "host":
        cpu = binding.get_host_cpu_name()
        features = binding.get_host_cpu_features().flatten() if features is None else features
    target = binding.Target.from_triple(triple)
    return target.create_target_machine(cpu=cpu, features=features or "", opt=2, reloc="pic", codemodel="small")

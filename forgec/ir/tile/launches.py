"""Whether launches fit the kernels that they name: what no op can check alone."""

from __future__ import annotations

from collections.abc import Iterator

from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation
from xdsl.traits import SymbolTable
from xdsl.utils.exceptions import VerifyException

from forgec.ir.tile.kernel import Kernel, LaunchOp
from forgec.ir.tile.substitution import substituted_tensor
from forgec.ir.tile.types import block_type


def misfitting_launches(module: ModuleOp) -> Iterator[tuple[Operation, str]]:
    """The launches that do not fit their kernels, each with what is wrong."""
    for op in module.walk():
        if not isinstance(op, LaunchOp):
            continue
        try:
            reason = _misfit(op)
        except VerifyException:  # a type that is broken in itself, which the op's own verifier has found
            continue
        if reason is not None:
            yield op, f"does not fit its kernel: {reason}"


def _misfit(launch: LaunchOp) -> str | None:
    name = launch.kernel.string_value()
    kernel = SymbolTable.lookup_symbol(launch, launch.kernel)
    if not isinstance(kernel, Kernel):
        return f"the module has no kernel {name}"
    if len(launch.extents.data) != len(kernel.symbol_names):
        return f"{name} has {len(kernel.symbol_names)} symbols, found {len(launch.extents.data)} extents"
    if launch.writes != kernel.writes or launch.updates != kernel.updates:
        return f"{name} writes {kernel.writes.text()} and updates {kernel.updates.text()}"
    taken = len(kernel.parameters) - len(kernel.writes.data) + len(kernel.updates.data)
    if len(launch.inputs) != taken or len(launch.outputs) != len(kernel.writes.data):
        return f"{name} takes {taken} tensors and yields {len(kernel.writes.data)}"
    values = dict(zip(kernel.symbol_names, launch.extents.data, strict=True))
    for position, (operand, result) in enumerate(launch.parameters()):
        wanted = substituted_tensor(block_type(kernel.parameters[position]), values)
        for value in (operand, None if result is None else launch.outputs[result]):
            if value is not None and value.type != wanted:
                return f"parameter {position} of {name} is {wanted}, found {value.type}"
    return None

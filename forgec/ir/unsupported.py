"""What forgec refuses because it has no support for it, and why.

One table for all who refuse: capture's diagnostics say these reasons, and ``forgec ops`` shows them where an operator
has no other entry. A reason completes "cannot be captured: …".
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from forgec.diagnostics import ForgeError, error
from forgec.runtime.aten import BUILT_IN


@dataclass(frozen=True)
class Unsupported:
    """``reason`` says why something is refused, ``remedy`` what a user can do instead."""

    reason: str
    remedy: str | None = None

    def __str__(self) -> str:
        return f'Unsupported("{self.reason}")'

    def error(self, what: str, code: str = "FORGE-C003") -> ForgeError:
        """The diagnostic for ``what``, which this refuses."""
        return error(code, f"{what} cannot be captured: {self.reason}", help=self.remedy)


SPARSE = Unsupported("a value of the IR is dense, not sparse", "convert it to dense")
NESTED = Unsupported("a value of the IR has one shape, a nested tensor has several", "pad it to one shape")
MKLDNN = Unsupported("a value of the IR is dense in strides, not in oneDNN's blocks", "convert it to dense")
QUANTIZED = Unsupported("the IR has no quantized element types", "keep integers, with scales as tensors of their own")
NO_TENSOR = Unsupported("it yields something that is no tensor", "compute a tensor")
NO_CPU_KERNEL = Unsupported("torch has no kernel of it for the CPU")
NO_LITERAL = Unsupported("it takes something that is neither a tensor nor a literal of the plan")
ON_FUNCTIONS = Unsupported(
    "it calls functions in a way that the IR has no form for", "say it with torch.cond, while_loop, scan or map"
)
EXPORTED = Unsupported(
    "forgec writes it out while it exports a model itself", "compile the model instead of the exported program"
)
BY_STRIDES = Unsupported("it addresses memory by strides, which a value does not have")

LAYOUTS: dict[str, Unsupported] = {
    **dict.fromkeys(("sparse_coo", "sparse_csr", "sparse_csc", "sparse_bsr", "sparse_bsc"), SPARSE),
    "_mkldnn": MKLDNN,
    "jagged": NESTED,
}
"""Layouts of tensors, by torch's names."""

DTYPES: dict[str, Unsupported] = {
    **{
        name: Unsupported(f"torch cannot add or order numbers of {name} on the CPU", f"keep them as {wider}, {why}")
        for name, wider, why in (
            ("uint16", "int32", "which holds them all"),
            ("uint32", "int64", "which holds them all"),
            ("uint64", "int64", "which holds those below 2**63"),
        )
    },
    "complex32": Unsupported("torch does not sum or divide numbers of complex32 on the CPU", "use complex64"),
    **dict.fromkeys(("qint8", "quint8", "qint32", "quint4x2", "quint2x4"), QUANTIZED),
}
"""Element types, by torch's names; all others that the IR lacks are ``OTHER_DTYPE``."""

OTHER_DTYPE = Unsupported("the IR has no such element type")
OTHER_LAYOUT = Unsupported("a value of the IR is dense and addressed by strides", "convert it to dense")

_KERNELS = (
    ("SparseCPU", SPARSE),
    ("SparseCsrCPU", SPARSE),
    ("MkldnnCPU", MKLDNN),
    ("QuantizedCPU", QUANTIZED),
    ("NestedTensorCPU", NESTED),
)
"""An operator that has a kernel for one of these, and none for plain tensors, works on such tensors only."""

_PLAIN_KERNELS = (
    "CPU",
    "CompositeImplicitAutograd",
    "CompositeExplicitAutograd",
    "CompositeExplicitAutogradNonFunctional",
)

_MAKERS = (
    (r"_?to_sparse(_\w+)?|_?(sparse_\w+_tensor|sparse_compressed_tensor)(_\w+)?|_spdiags", SPARSE),
    (r"to_mkldnn(_\w+)?|_to_mkldnn", MKLDNN),
    (r"quantize_per_\w+|_(make|empty)_\w*quantized\w*|fake_quantize_\w+_cachemask_quantized", QUANTIZED),
    (r"_nested_(tensor|view|from|get)\w*", NESTED),
)
"""Operators that make such tensors of dense ones, by the pattern of their names: their schemas do not tell."""

_HELD = ("Storage", "Stream", "Dimname", "DeviceObjType", "__torch__")
"""Types of arguments that a plan cannot hold."""

FORGE_OPS: dict[str, Unsupported] = {
    **dict.fromkeys(
        ("forge.rope", "forge.glu", "forge.moe", "forge.swish"),
        Unsupported("no one operator of ATen says it; passes compose it, or IR text has it"),
    ),
}
"""Ops of the dialect that capture never makes."""


def of_layout(layout: Any) -> Unsupported:
    """Why tensors of a layout (not ``torch.strided``) are refused."""
    return LAYOUTS.get(str(layout).removeprefix("torch."), OTHER_LAYOUT)


def of_dtype(dtype: Any) -> Unsupported:
    """Why tensors of a dtype that the IR lacks are refused."""
    return DTYPES.get(str(dtype).removeprefix("torch."), OTHER_DTYPE)


@lru_cache(maxsize=4096)
def of_operator(overload: Any) -> Unsupported | None:
    """Why every call of an ``OpOverload`` is refused, or None: by its name, its kernels and its schema."""
    import torch

    name = overload.name()
    packet = name.partition("::")[2].partition(".")[0]
    for pattern, reason in _MAKERS:
        if name.startswith("aten::") and re.fullmatch(pattern, packet):
            return reason
    has_kernel = torch._C._dispatch_has_kernel_for_dispatch_key
    if not any(has_kernel(name, key) for key in _PLAIN_KERNELS):
        return next((reason for key, reason in _KERNELS if has_kernel(name, key)), NO_CPU_KERNEL)
    schema = overload._schema
    if not yields_tensors(schema) and not yields_number(schema):
        return NO_TENSOR
    required = [str(a.type) for a in schema.arguments if not a.has_default_value()]
    if any(held in kind for kind in required for held in _HELD):
        return NO_LITERAL
    return None


def yields_number(schema: Any) -> bool:
    """True if the one result is a number that torch.export follows: an extent, or an element of a tensor."""
    kinds = [str(result.type) for result in schema.returns]
    name = schema.name.removeprefix("aten::")
    return len(kinds) == 1 and (name.startswith("sym_") or name in ("item", "_local_scalar_dense"))


def yields_tensors(schema: Any) -> bool:
    """True if all results are tensors, lists of them or a user's numbers, or an operator only writes an argument."""
    kinds = [str(result.type) for result in schema.returns]
    if not kinds:
        return any(a.alias_info is not None and a.alias_info.is_write for a in schema.arguments)
    numbers = ("int", "float", "bool") if schema.name.partition("::")[0] not in BUILT_IN else ()
    return all(kind in ("Tensor", "List[Tensor]", "Optional[Tensor]", *numbers) for kind in kinds)


def is_of_users(overload: Any) -> bool:
    """True for an operator that is none of torch's own."""
    import torch

    return isinstance(overload, torch._ops.OpOverload) and overload.namespace not in BUILT_IN

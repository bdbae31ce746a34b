"""What the processor can do, and what a kernel image asks of it.

The levels of x86-64 are those of the psABI (x86-64 System V ABI, chapter "Micro-Architecture Levels"); features have
LLVM's names, and Linux lists them as flags in ``/proc/cpuinfo``, some under other names. A flag is only there when the
kernel of the system also saves the registers that it needs.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable
from pathlib import Path

from forgec.diagnostics import error

CPUINFO = Path("/proc/cpuinfo")

_BASE = ("cmov", "cx8", "fxsr", "mmx", "sse", "sse2")
_V2 = (*_BASE, "cx16", "sahf", "popcnt", "sse3", "ssse3", "sse4.1", "sse4.2")
_V3 = (*_V2, "avx", "avx2", "bmi", "bmi2", "f16c", "fma", "lzcnt", "movbe", "xsave")
_V4 = (*_V3, "avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl")
LEVELS: dict[str, tuple[str, ...]] = {"x86-64": _BASE, "x86-64-v2": _V2, "x86-64-v3": _V3, "x86-64-v4": _V4}

_OTHER_NAMES = {
    "sahf": "lahf_lm",
    "sse3": "pni",
    "sse4.1": "sse4_1",
    "sse4.2": "sse4_2",
    "bmi": "bmi1",
    "lzcnt": "abm",
    "avxvnni": "avx_vnni",
    "avxvnniint8": "avx_vnni_int8",
    "avxneconvert": "avx_ne_convert",
    "avxifma": "avx_ifma",
    "avx512vnni": "avx512_vnni",
    "avx512bf16": "avx512_bf16",
    "avx512fp16": "avx512_fp16",
    "avx512vbmi2": "avx512_vbmi2",
    "avx512bitalg": "avx512_bitalg",
    "avx512vpopcntdq": "avx512_vpopcntdq",
    "avx512vp2intersect": "avx512_vp2intersect",
    "amx-tile": "amx_tile",
    "amx-bf16": "amx_bf16",
    "amx-int8": "amx_int8",
    "amx-fp16": "amx_fp16",
    "pclmul": "pclmulqdq",
    "rdrnd": "rdrand",
    "sha": "sha_ni",
    "prfchw": "3dnowprefetch",
    "crc32": "sse4_2",
    "64bit": "lm",
}
"""LLVM's name of a feature → Linux' name of its flag; the other names are the same."""

_SYSTEM = frozenset(
    {"64bit", "clflushopt", "clwb", "clzero", "fsgsbase", "invpcid", "mwaitx", "pku", "rdpid", "rdpru", "rdrnd"}
    | {"rdseed", "shstk", "wbnoinvd", "xsave", "xsavec", "xsaveopt", "xsaves"}
)
"""Instructions that no kernel has: LLVM uses them where they are asked for by name."""


def requirements(features: Iterable[str]) -> tuple[str, tuple[str, ...]]:
    """What the table of an image says of code that LLVM may have used these features for: the highest level of x86-64
    that they contain, and the others."""
    given = {*features}
    isa, level = max(
        ((isa, level) for isa, level in LEVELS.items() if {*level} <= given | _SYSTEM | {*_BASE}),
        key=lambda pair: len(pair[1]),
    )
    return isa, tuple(sorted(given - {*level} - _SYSTEM))


def flags_of(text: str) -> frozenset[str] | None:
    """The flags of the first processor in a ``/proc/cpuinfo``; None when it lists none."""
    for line in text.splitlines():
        name, colon, flags = line.partition(":")
        if colon and name.strip() == "flags":
            return frozenset(flags.split())
    return None


def missing_features(isa: str, features: Iterable[str], flags: frozenset[str]) -> list[str] | None:
    """What a processor with these flags lacks of an instruction set and further features, by LLVM's names; None for an
    instruction set that is not known."""
    level = LEVELS.get(isa)
    if level is None:
        return None
    return [name for name in dict.fromkeys((*level, *features)) if _OTHER_NAMES.get(name, name) not in flags]


def host_flags() -> frozenset[str] | None:
    """The flags of this machine's processor; None when ``CPUINFO`` lists none. ``OSError`` when it cannot be read."""
    with CPUINFO.open(errors="replace") as file:  # one processor's part: some systems list hundreds
        return next((found for line in file if (found := flags_of(line)) is not None), None)


def require(isa: str, features: Iterable[str]) -> None:
    """FORGE-A007, naming what is missing, unless this processor runs code for the instruction set."""
    help = "compile for this machine, or for an older instruction set"
    needs = f"the kernels were compiled for {isa}"
    machine = platform.machine()
    if machine not in ("x86_64", "AMD64"):
        raise error("FORGE-A007", f"{needs}, this is a machine of type {machine or 'unknown'}", help=help)
    try:
        flags = host_flags()
    except OSError as reason:
        raise error("FORGE-A007", f"{needs}, and {CPUINFO} cannot be read: {reason.strerror}", help=help) from None
    if flags is None:
        raise error("FORGE-A007", f"{needs}, and {CPUINFO} does not tell what this processor has", help=help)
    lacking = missing_features(isa, features, flags)
    if lacking is None:
        raise error("FORGE-A007", f"{needs}, which this runtime does not know", help=help)
    if lacking:
        raise error("FORGE-A007", f"{needs}, and this processor lacks {', '.join(lacking)}", help=help)

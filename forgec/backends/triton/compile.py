"""From a kernel's source to machine code for one architecture, on any machine: no GPU, no driver, nothing cached.

Triton is imported here alone, when the first kernel is compiled. The stages are Triton's own, up to PTX; ptxas is run
here, so that its warnings are read. No argument is specialised but for the alignments that ``aligned`` asserts: they
are part of what is returned, and whoever launches the kernel checks them.
"""

from __future__ import annotations

import json
import linecache
import re
import subprocess
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from forgec import __version__
from forgec.backends.kernel_cache import KernelCache, kernel_key, versions
from forgec.backends.triton.alone import compile_alone
from forgec.backends.triton.printer import TritonSource, print_kernel, without_comments
from forgec.diagnostics import Diagnostic, ForgeError, error
from forgec.ir.tile.kernel import KernelOp
from forgec.runtime.symbolic import Bounds

SHARED_BYTES = {"sm_80": 166912, "sm_90a": 232448, "sm_100a": 232448}
"""Shared memory that one block of threads may have (CUDA C++ Programming Guide, table of technical specifications:
163 KB and 227 KB); the keys are the architectures that are known.
"""
ALIGNMENT = 16
"""Bytes of an aligned pointer, and what an aligned integer is divisible by."""
SERIALIZED = re.compile(r"\bC75\d\d\b.*serialized")


@dataclass(frozen=True)
class CompiledKernel:
    """Machine code and what a launch needs to know.

    ``parameters`` are (name, Triton's type) in the order of the code's parameters, which two null pointers close
    (scratch memory that these kernels do not use). Those at the places ``aligned`` must be addresses, or numbers,
    divisible by 16. A launch has ``prod(grid)`` blocks of ``32 * num_warps`` threads and ``shared_bytes`` of dynamic
    shared memory.
    """

    name: str
    architecture: str
    code: bytes
    parameters: tuple[tuple[str, str], ...]
    aligned: tuple[int, ...]
    num_warps: int
    num_stages: int
    shared_bytes: int
    registers: int
    spilled_bytes: int
    checks: tuple[tuple[int, str], ...]

    def metadata(self) -> dict[str, Any]:
        """All but the code, for JSON."""
        found = asdict(self)
        del found["code"]
        return found

    def to_bytes(self) -> bytes:
        """For the cache."""
        head = json.dumps(self.metadata()).encode()
        return len(head).to_bytes(8, "little") + head + self.code

    @staticmethod
    def from_bytes(content: bytes) -> CompiledKernel:
        """The inverse of ``to_bytes``."""
        start = 8 + int.from_bytes(content[:8], "little")
        return CompiledKernel.of(json.loads(content[8:start]), content[start:])

    @staticmethod
    def of(metadata: dict[str, Any], code: bytes) -> CompiledKernel:
        """The inverse of ``metadata``."""
        pairs = {key: tuple((left, right) for left, right in metadata[key]) for key in ("parameters", "checks")}
        return CompiledKernel(**{**metadata, **pairs, "aligned": tuple(metadata["aligned"]), "code": code})


def compile_kernel(
    kernel: KernelOp,
    architecture: str,
    *,
    ranges: Mapping[str, Bounds] | None = None,
    aligned: Collection[int] = (),
    cache: KernelCache | None = None,
) -> CompiledKernel:
    """The machine code of a bound kernel; one that was compiled before, under whatever name, comes from the cache.

    ``ranges`` are those of ``print_kernel``, the rest and the errors those of ``compile_source``. The function is
    called as the kernel was when it was compiled first: the result says how.
    """
    known = sorted((name, bounds) for name, bounds in (ranges or {}).items())
    parts = (architecture, repr(known), repr(sorted(aligned)), __version__, versions(Path(__file__).parent, "triton"))
    made = (KernelCache() if cache is None else cache).find_or_make(
        kernel_key(kernel, *parts),
        lambda: compile_source(print_kernel(kernel, ranges), architecture, aligned=aligned).to_bytes(),
    )
    return CompiledKernel.from_bytes(made)


class SerializedProducts(ForgeError):
    """FORGE-B006: what ptxas does when it cannot keep apart the registers of products that run on their own."""


def compile_source(
    source: TritonSource,
    architecture: str,
    *,
    aligned: Collection[int] = (),
) -> CompiledKernel:
    """The machine code of a kernel for ``sm_80``, ``sm_90a`` or ``sm_100a``.

    ``aligned`` are the places of parameters that will be divisible by 16. Warps are chosen by the largest tile, stages
    by what shared memory holds. Raises FORGE-U003 for other architectures, FORGE-B006 for what the compiler refuses,
    FORGE-B007 without Triton.
    """
    if architecture not in SHARED_BYTES:
        raise error(
            "FORGE-U003",
            f"unknown GPU architecture {architecture!r}",
            notes=(f"known architectures: {', '.join(SHARED_BYTES)}",),
        )
    warps = _warps(source)
    stages = 3 if source.has_dot and source.has_loop else 1
    others = [count for count in (8, 4) if count != warps]
    while True:
        try:
            found = _compile(source, architecture, aligned, warps, stages)
        except SerializedProducts:
            if stages > 1:  # loads no longer stand between products that run on their own
                stages = 1
            elif others:  # other warps hold other parts of the result
                warps = others.pop(0)
            else:
                raise
            continue
        if found.shared_bytes <= SHARED_BYTES[architecture]:
            return found
        if stages == 1:
            raise error(
                "FORGE-B006",
                f"kernel {source.name} needs {found.shared_bytes} bytes of shared memory, {architecture} has "
                f"{SHARED_BYTES[architecture]}",
            )
        stages -= 1


def _warps(source: TritonSource) -> int:
    """A thread for some 8 to 32 elements of the largest tile."""
    for limit, warps in ((256, 1), (1024, 2), (8192, 4)):
        if source.largest_tile <= limit:
            return max(warps, 4) if source.has_dot else warps
    return 8


def _compile(
    source: TritonSource, architecture: str, aligned: Collection[int], num_warps: int, num_stages: int
) -> CompiledKernel:
    has_float8 = "tl.float8" in without_comments(source.text) or any("fp8" in kind for _, kind in source.signature)
    if has_float8 and not _converts_float8(architecture):
        return CompiledKernel.from_bytes(compile_alone(source, architecture, aligned, num_warps, num_stages))
    return compile_here(source, architecture, aligned, num_warps, num_stages)


def _converts_float8(architecture: str) -> bool:
    """True if Triton converts 8-bit floats in this process as this architecture does (see ``alone``)."""
    if not _FOUND:
        _FOUND.append("e5m2x2" in _translate(_PROBE, architecture, (), 1, 1)[0])
    return _FOUND[0] == (architecture != "sm_80")


_FOUND: list[bool] = []
"""Whether the table of this process has the instructions that are there from sm_89 on; the probe fills an empty one."""
_PROBE = TritonSource(
    "probe",
    """
import triton
import triton.language as tl


@triton.jit
def probe(x_ptr, y_ptr):
    offs = tl.arange(0, 128)
    tl.store(y_ptr + offs, tl.load(x_ptr + offs).to(tl.float16))
""",
    (("x_ptr", "*fp8e5"), ("y_ptr", "*fp16")),
    (),
    (),
    has_dot=False,
    has_loop=False,
    largest_tile=128,
)


def compile_here(
    source: TritonSource, architecture: str, aligned: Collection[int], num_warps: int, num_stages: int
) -> CompiledKernel:
    """``compile_source`` with all choices made, in this process."""
    ptx, metadata = _translate(source, architecture, aligned, num_warps, num_stages)
    binary, log = _assemble(without_packed_sums(ptx), architecture, source.name)
    used = re.search(r"Used (\d+) registers", log)
    spilled = re.search(r"(\d+) bytes spill stores", log)
    return CompiledKernel(
        metadata["name"],
        architecture,
        binary,
        source.signature,
        tuple(sorted(aligned)),
        metadata["num_warps"],
        num_stages,
        metadata["shared"],
        int(used.group(1)) if used else 0,
        int(spilled.group(1)) if spilled else 0,
        source.checks,
    )


def _translate(
    source: TritonSource, architecture: str, aligned: Collection[int], num_warps: int, num_stages: int
) -> tuple[str, dict[str, Any]]:
    """The PTX of a kernel, and Triton's metadata."""
    try:
        from triton import knobs
        from triton._C.libtriton import ir
        from triton.backends.compiler import GPUTarget
        from triton.compiler import ASTSource
        from triton.compiler.compiler import make_backend
    except ImportError:
        raise error("FORGE-B007", "compiling for a GPU needs Triton", help="pip install 'forgec[gpu]'") from None

    target = GPUTarget("cuda", int(re.sub(r"\D", "", architecture)), 32)
    backend: Any = make_backend(target)
    options = backend.parse_options(
        {
            "num_warps": num_warps,
            "num_stages": num_stages,
            "enable_fp_fusion": False,  # no contraction: what the IR says is what is computed
            "enable_reflect_ftz": False,
            "sanitize_overflow": False,
        }
    )
    names = [name for name, _ in source.signature]
    attributes = {(place,): [["tt.divisibility", ALIGNMENT]] for place in sorted(aligned)}
    signature = {**dict(source.signature), **{name: "constexpr" for name, _ in source.constants}}
    constants = {(len(names) + number,): value for number, (_, value) in enumerate(source.constants)}
    with functions_of(source) as module, knobs.compilation.scope():
        knobs.compilation.disable_line_info = True
        try:
            code = ASTSource(module[source.name], signature, constants, attributes)
            stages: dict[str, Any] = {}
            backend.add_stages(stages, options, code.language)
            context = ir.context()
            ir.load_dialects(context)
            backend.load_dialects(context)
            metadata: dict[str, Any] = {"target": target, **vars(options)}
            found: Any = code.make_ir(
                target, options, backend.get_codegen_implementation(options), backend.get_module_map(), context
            )
            for stage, run in stages.items():
                if stage != "cubin":
                    found = run(found, metadata)
                if stage == "ttir" and "tl.sum(" in without_comments(source.text):
                    _refuse_new_products(source, str(found))
        except ForgeError:
            raise
        except Exception as reason:  # Triton's front end raises whatever its parts raise, its passes RuntimeError
            raise error(
                "FORGE-B006",
                f"Triton refused kernel {source.name} for {architecture}",
                notes=(_words(reason),),
            ) from reason
    if metadata.get("global_scratch_size") or metadata.get("profile_scratch_size"):
        raise error("FORGE-B006", f"kernel {source.name} needs scratch memory, which launches do not give")
    return found, metadata


def _refuse_new_products(source: TritonSource, text: str) -> None:
    """Triton makes products in tf32 of some sums of products (``elementwise._mulf``): none that the source lacks."""
    if text.count("tt.dot ") > without_comments(source.text).count("tl.dot("):
        raise error("FORGE-B006", f"Triton makes a tf32 product of a sum in kernel {source.name}")


_PACKED_SUM = re.compile(r"add\.s16x2\s+(\S+), (\S+), (\S+);")


def without_packed_sums(ptx: str) -> str:
    """PTX in which no two 16-bit numbers are added at once.

    LLVM packs narrow arithmetic of places so, and ptxas 12.8 and 12.9 take the constant 65535 (-1 beside 0) of such a
    sum for 0 on sm_90: a place one before the first then passes for the first, and is read.
    """
    return _PACKED_SUM.sub(
        "{\n\t.reg .b16 a0, a1, b0, b1, c0, c1;\n\tmov.b32 {a0, a1}, \\2;\n\tmov.b32 {b0, b1}, \\3;\n"
        "\tadd.s16 c0, a0, b0;\n\tadd.s16 c1, a1, b1;\n\tmov.b32 \\1, {c0, c1};\n\t}",
        ptx,
    )


def _assemble(ptx: str, architecture: str, name: str) -> tuple[bytes, str]:
    """ptxas, with its log. No line information is asked for, so the code holds no paths."""
    from triton.backends.nvidia.compiler import get_ptxas

    program = get_ptxas(int(re.sub(r"\D", "", architecture))).path
    with tempfile.TemporaryDirectory(prefix="forgec-") as folder:
        text, binary = Path(folder) / "kernel.ptx", Path(folder) / "kernel.cubin"
        text.write_text(ptx, encoding="utf-8")
        finished = subprocess.run(
            [program, "-v", "--fmad=false", f"--gpu-name={architecture}", "kernel.ptx", "-o", "kernel.cubin"],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
        log = finished.stderr + finished.stdout
        if finished.returncode != 0 or not binary.exists():
            raise error("FORGE-B006", f"ptxas refused kernel {name} for {architecture}", notes=(log.strip()[-2000:],))
        if SERIALIZED.search(log):
            lines = [line.strip() for line in log.splitlines() if SERIALIZED.search(line)]
            message = f"ptxas serialises asynchronous matrix products of kernel {name} for {architecture}"
            raise SerializedProducts([Diagnostic("FORGE-B006", message, notes=tuple(dict.fromkeys(lines)))])
        return binary.read_bytes(), log


@contextmanager
def functions_of(source: TritonSource) -> Iterator[dict[str, Any]]:
    """The functions of a source's module. Triton reads the text of functions, which the line cache holds meanwhile."""
    place = f"<triton kernel {source.name}>"
    linecache.cache[place] = (len(source.text), None, source.text.splitlines(keepends=True), place)
    module: dict[str, Any] = {"__name__": f"forgec_kernel_{source.name}"}
    try:
        exec(compile(source.text, place, "exec"), module)  # our own printer wrote it
        yield module
    finally:
        linecache.cache.pop(place, None)


def _words(reason: BaseException) -> str:
    """What an exception and those that it came from say, each once."""
    parts: dict[str, None] = {}
    found: BaseException | None = reason
    while found is not None:
        text = str(getattr(found, "error_message", None) or found).strip()
        parts[text[-1500:] or type(found).__name__] = None
        found = found.__cause__ or found.__context__
    return "; ".join(parts)

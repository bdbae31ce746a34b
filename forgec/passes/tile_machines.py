"""What the choice of tile extents knows of machines: rates, sizes, and what a tile may be there."""

from __future__ import annotations

from dataclasses import dataclass

from forgec.diagnostics import error


@dataclass(frozen=True)
class TileMachine:
    """A machine as the cost model of tiles sees it. Rates are per unit (a core, a multiprocessor) and second.

    ``dot_flops`` are those of products of float32, ``narrow_dot_flops`` of 16-bit floats; ``element_ops`` other
    operations on elements. ``near_bytes`` hold a program's tiles at ``near_rate`` (first-level cache, registers),
    ``middle_bytes`` what a program reads again at ``middle_rate`` (second level), and memory has ``memory_rate`` for
    all units together. ``program_seconds`` is what starting one program costs, ``op_seconds`` one op on a tile however
    small. Units of a CPU are cores: a launch that one does within ``alone_seconds``
    runs on one. It is 0 for GPUs.

    ``live_limit`` bounds the bytes of tiles that live together, ``dot_limit`` (None: no limit) both operands of a
    product times ``dot_stages``, ``unrolled_limit`` (None: no limit) the multiply-adds of all products in a kernel's
    text: of wide operands each is an instruction of a thread. ``elements_limit`` bounds the elements of one tile.
    ``over`` are the extents that a parameter over an axis may have, ``dot_least`` the least one of an axis of products;
    ``over_long`` those that it may have as well in kernels without products, and ``run_seconds`` what it costs to begin
    to read or write another row of memory. ``sum_least`` is the least extent that is preferred, where it divides the
    one along which products sum, to one that reaches beyond the end. ``whole_multiple`` is what whole extents are
    rounded up to a multiple of; 0: to a power of two.
    """

    name: str
    units: int
    dot_flops: float
    narrow_dot_flops: float
    element_ops: float
    near_bytes: int
    near_rate: float
    middle_bytes: int
    middle_rate: float
    memory_rate: float
    program_seconds: float
    op_seconds: float
    alone_seconds: float
    live_limit: int
    dot_limit: int | None
    dot_stages: int
    unrolled_limit: int | None
    elements_limit: int
    over: tuple[int, ...]
    over_long: tuple[int, ...]
    run_seconds: float
    dot_least: int
    sum_least: int
    whole_multiple: int

    def whole(self, extent: int) -> int:
        """The tile extent that holds a whole axis."""
        size = max(extent, 1)
        if self.whole_multiple:
            return -(-size // self.whole_multiple) * self.whole_multiple
        return 1 << (size - 1).bit_length()


CPU = TileMachine(
    name="cpu",
    units=8,  # cores that a launch should be able to use; how many there are is known at load time only
    dot_flops=200e9,  # one AVX-512 core at about 3.5 GHz: 2 FMA of 16 lanes would be 224e9
    narrow_dot_flops=200e9,  # 16-bit operands are extended to float32 first
    element_ops=28e9,  # one vector op of 16 lanes each second cycle
    near_bytes=32 << 10,  # L1d of x86-64 server cores: AMD Zen 4 (32 KiB), Intel since Ice Lake (48 KiB)
    near_rate=220e9,  # one load of 64 bytes each cycle
    middle_bytes=1 << 20,  # L2: 1 MiB (AMD Zen 4), 2 MiB (Intel Sapphire Rapids)
    middle_rate=100e9,  # half a line each cycle, sustained
    memory_rate=40e9,  # two channels of DDR5-4800 give 77e9 at best; a few cores reach about half
    program_seconds=20e-9,  # a call in the loop over programs, and its index arithmetic
    op_seconds=2e-9,  # a loop nest's beginning and end
    alone_seconds=10e-6,  # forgec.runtime.segment.TOGETHER_NS: barriers cost about 1 µs
    live_limit=256 << 10,  # of the stack: threads that torch or Python starts may have no more than 1 MiB
    dot_limit=None,
    dot_stages=1,
    unrolled_limit=None,
    elements_limit=1 << 20,
    over=(1, 2, 4, 8, 16, 32, 64, 128, 256),
    over_long=(512, 1024, 2048),
    run_seconds=10e-9,  # the hardware fetches ahead within 4 KiB, and only where it has seen some lines of them
    dot_least=1,
    sum_least=64,  # accumulators are read and written once for so many steps
    whole_multiple=16,  # lanes of float32 in 64 bytes
)

_GPU_ELEMENTS = 1 << 20  # triton.language: TRITON_MAX_TENSOR_NUMEL
_GPU_LIVE = 128 << 10  # 4 warps of 255 registers hold 127.5 KiB; a multiprocessor has 64 Ki registers of 4 bytes
_GPU_UNROLLED = 64 << 10  # 512 for each thread of 4 warps; compile time grows with them: ptxas and LLVM see each
_GPU_OVER = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
_GPU_DOT_LEAST = 16  # triton.language.dot takes no smaller extents

SM_90A = TileMachine(
    name="cuda:sm_90a",
    units=132,  # NVIDIA H100 SXM data sheet; the rates below divide its totals by 132
    dot_flops=67e12 / 132,  # float32 without tensor cores (IEEE)
    narrow_dot_flops=989e12 / 132,  # bfloat16, dense
    element_ops=33e12 / 132,
    near_bytes=256 << 10,  # registers of one multiprocessor (CUDA C++ programming guide, compute capability 9.0)
    near_rate=4e12,
    middle_bytes=50 << 20,  # L2, shared by all
    middle_rate=5.5e12 / 132,  # H100: about 5.5 TB/s measured from L2
    memory_rate=3.35e12,  # HBM3
    program_seconds=1e-6,  # scheduling a block, and the latency of its first loads
    op_seconds=10e-9,
    alone_seconds=0.0,
    live_limit=_GPU_LIVE,
    dot_limit=227 << 10,  # shared memory of one block, compute capability 9.0
    dot_stages=3,
    unrolled_limit=_GPU_UNROLLED,
    elements_limit=_GPU_ELEMENTS,
    over=_GPU_OVER,
    over_long=(),
    run_seconds=0.0,
    dot_least=_GPU_DOT_LEAST,
    sum_least=_GPU_DOT_LEAST,
    whole_multiple=0,
)

SM_80 = TileMachine(
    name="cuda:sm_80",
    units=108,  # NVIDIA A100 data sheet
    dot_flops=19.5e12 / 108,
    narrow_dot_flops=312e12 / 108,
    element_ops=9.7e12 / 108,
    near_bytes=256 << 10,
    near_rate=2.5e12,
    middle_bytes=40 << 20,
    middle_rate=4e12 / 108,
    memory_rate=2.0e12,  # HBM2e of the 80 GB model
    program_seconds=1e-6,
    op_seconds=10e-9,
    alone_seconds=0.0,
    live_limit=_GPU_LIVE,
    dot_limit=163 << 10,  # shared memory of one block, compute capability 8.0
    dot_stages=3,
    unrolled_limit=_GPU_UNROLLED,
    elements_limit=_GPU_ELEMENTS,
    over=_GPU_OVER,
    over_long=(),
    run_seconds=0.0,
    dot_least=_GPU_DOT_LEAST,
    sum_least=_GPU_DOT_LEAST,
    whole_multiple=0,
)

SM_100A = TileMachine(
    name="cuda:sm_100a",
    units=148,  # NVIDIA B200
    dot_flops=75e12 / 148,
    narrow_dot_flops=2250e12 / 148,
    element_ops=37e12 / 148,
    near_bytes=256 << 10,
    near_rate=4e12,
    middle_bytes=126 << 20,
    middle_rate=8e12 / 148,
    memory_rate=8e12,  # HBM3e
    program_seconds=1e-6,
    op_seconds=10e-9,
    alone_seconds=0.0,
    live_limit=_GPU_LIVE,
    dot_limit=227 << 10,  # shared memory of one block, compute capability 10.0
    dot_stages=3,
    unrolled_limit=_GPU_UNROLLED,
    elements_limit=_GPU_ELEMENTS,
    over=_GPU_OVER,
    over_long=(),
    run_seconds=0.0,
    dot_least=_GPU_DOT_LEAST,
    sum_least=_GPU_DOT_LEAST,
    whole_multiple=0,
)

MACHINES = {machine.name: machine for machine in (CPU, SM_80, SM_90A, SM_100A)}


def machine_of(target: str) -> TileMachine:
    """The machine of a target's name. Raises FORGE-P002 for one that is not known."""
    family, _, level = target.partition(":")
    if family == "cpu" and level:
        return MACHINES["cpu"]
    if target not in MACHINES:
        raise error("FORGE-P002", f"there is no target {target}", help=f"targets are {', '.join(MACHINES)}")
    return MACHINES[target]

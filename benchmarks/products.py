"""Linears and attention of many shapes beside the machine's bound: multiply-adds in registers, or reading memory.

``python -m benchmarks products [NAME …]``: all, or those whose names begin so. Each is compiled as a model of its own
for this machine, and its kernels run in one native call, with one thread and with two. The bound is the larger of what
the multiply-adds take at the rate of the same instructions on registers, and of what the weights (or keys and values)
take at the rate at which so many threads read memory, both measured by the same run. Of attention only those pairs
count that no mask leaves out.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from threading import Thread
from typing import Any

import torch
import torch.nn.functional as F

from benchmarks.measure import table
from benchmarks.models import Case
from benchmarks.ops import THREADS, Op, fastest, measured, with_large_pages
from benchmarks.roofline import peak_flops
from forgec.backends.cpu.backend import level_of

LINEARS = (
    (1, 4096, 16384), (1, 768, 50257), (4, 4096, 4096), (8, 2048, 2048), (16, 2048, 2048), (32, 2048, 2048),
    (64, 2048, 2048), (128, 512, 512), (128, 768, 768), (128, 1000, 1000), (128, 1024, 1024), (128, 3072, 768),
    (128, 4096, 1024), (128, 777, 511), (512, 768, 3072), (512, 1024, 1024), (512, 2048, 2048),
)  # fmt: skip
"""Rows, elements of a sum, columns."""


@dataclass(frozen=True)
class Product:
    """A case with the operations that it takes (a multiply-add is two) and the bytes that have to come from memory."""

    case: Case
    flops: float
    nbytes: int


def linears(dtype: torch.dtype) -> Iterator[Product]:
    """Linears without bias."""
    for rows, total, columns in LINEARS:
        name = f"linear [{rows}, {total}] by {columns}, {str(dtype).removeprefix('torch.')}"
        arguments = (torch.randn(rows, total).to(dtype),)

        def build(total: int = total, columns: int = columns) -> torch.nn.Module:
            return torch.nn.Linear(total, columns, bias=False).to(dtype).eval()

        yield Product(Case(name, build, arguments, {}), 2.0 * rows * total * columns, total * columns * dtype.itemsize)


def attentions() -> Iterator[Product]:
    """Prefill of 512 places and decoding beside 4096, batch 1."""

    def heads(count: int, places: int, width: int) -> torch.Tensor:
        return torch.randn(1, count, places, width)

    def case(name: str, heads_: Sequence[torch.Tensor], pairs: float, **options: Any) -> Product:
        query, key, _ = heads_
        flops = 4.0 * pairs * query.shape[1] * query.shape[3]
        function = Op(lambda q, k, v: F.scaled_dot_product_attention(q, k, v, **options))
        read = 2 * key.numel() * 4 if query.shape[2] == 1 else 0
        return Product(Case(name, lambda: function, tuple(heads_), {}), flops, read)

    for width in (64, 80, 128):
        same = [heads(12, 512, width) for _ in range(3)]
        yield case(f"attention 512, 12 heads of {width}", same, 512 * 512)
        yield case(f"attention 512, 12 heads of {width}, causal", same, 512 * 513 / 2, is_causal=True)
    grouped = [heads(12, 512, 64), heads(4, 512, 64), heads(4, 512, 64)]
    name = "attention 512, 12 heads of 64 and 4 of keys, causal"
    yield case(name, grouped, 512 * 513 / 2, is_causal=True, enable_gqa=True)
    for count, keys, width in ((12, 12, 64), (12, 12, 128), (32, 8, 64), (32, 8, 128)):
        one = [heads(count, 1, width), heads(keys, 4096, width), heads(keys, 4096, width)]
        name = f"attention of 1 to 4096, {count} heads of {width} and {keys} of keys"
        yield case(name, one, 4096, enable_gqa=count != keys)


def read_rate(threads: int, nbytes: int = 256 << 20) -> float:
    """Bytes per second that so many threads read together: each sums a part of its own."""
    parts = with_large_pages(torch.ones(nbytes // 4)).chunk(threads)
    before = torch.get_num_threads()
    torch.set_num_threads(1)

    def run() -> None:
        others = [Thread(target=part.sum) for part in parts[1:]]
        for thread in others:
            thread.start()
        parts[0].sum()
        for thread in others:
            thread.join()

    try:
        return nbytes / fastest(run)
    finally:
        torch.set_num_threads(before)


def main(names: Sequence[str] = ()) -> None:
    """Print one table."""
    level = level_of("cpu:host")
    peak, reads = peak_flops(level), [read_rate(threads) for threads in THREADS]
    rates = ", ".join(f"{rate / 1e9:.1f} GB/s" for rate in reads)
    print(f"\n{level}; one thread {peak / 1e9:.0f} GFLOP/s in registers; read: {rates}")
    header = ["product", "kernels"]
    header += [
        f"{what}, {n} thread{'s' * (n > 1)}" for n in THREADS for what in ("µs", "GFLOP/s", "GB/s", "of the bound")
    ]
    rows = []
    for product in (*linears(torch.float32), *linears(torch.bfloat16), *attentions()):
        if names and not any(product.case.name.startswith(name) for name in names):
            continue
        found = measured(product.case)
        cells = [product.case.name, str(found.kernels)]
        for threads, seconds, rate in zip(THREADS, found.seconds, reads, strict=True):
            bound = max(product.flops / (threads * peak), product.nbytes / rate)
            cells += [f"{1e6 * seconds:.0f}", f"{product.flops / seconds / 1e9:.1f}"]
            cells += [f"{product.nbytes / seconds / 1e9:.1f}", f"{100 * bound / seconds:.0f} %"]
        rows.append(cells)
    table("Products", header, rows)


if __name__ == "__main__":
    main(sys.argv[1:])

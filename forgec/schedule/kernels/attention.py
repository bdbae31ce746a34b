"""Attention forward: the loop over blocks of keys (Dao 2023, algorithm 1; in the log2 domain).

One iteration multiplies the queries of each part (sub-tile of rows) with a block of keys, takes maximum, exponentials
and sums, rescales the output so far, and adds the product with the block of values.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction

from forgec.diagnostics import error
from forgec.schedule.graph import Dependence, Graph, Op, Read, Value
from forgec.schedule.kernels.problem import Problem
from forgec.schedule.machine import Machine

SIZES = {"batch": 1, "heads": 32, "head": 128, "seq": 4096}
"""Of attention forward: ``head`` is the head dimension, ``seq`` the number of queries and of keys."""


def forward(problem: Problem) -> list[tuple[Graph, ...]]:
    """The loop over all keys, at each tile."""
    machine, head = problem.machine, problem.multiple("head", problem.mma.depth)
    found: list[tuple[Graph, ...]] = []
    for parts, keys in tiles(machine, problem.dtype):
        for memory in problem.mma.accumulator:
            make = {"register": in_registers, "tensor": in_tensor_memory}.get(memory)
            if make is None:
                raise error("FORGE-U010", f"products of machine {machine.name} are left in {memory}")
            graph = make(machine, head, problem.dtype, parts, keys, problem.bytes_each)
            found.append((replace(graph, trips=-(-problem.sizes["seq"] // keys)),))
    return found


def tiles(machine: Machine, dtype: str) -> Iterator[tuple[int, int]]:
    """(parts, keys) that the machine's products allow."""
    product = machine.instruction(f"mma.{dtype}")
    for parts in (1, 2, 3):
        for keys in range(32, product.most_columns + 1, 16):
            yield parts, keys


def in_registers(machine: Machine, head: int, dtype: str, parts: int, keys: int, bytes_each: int) -> Graph:
    """The loop where products leave their sums in registers (Hopper, Ampere).

    Args:
        machine: what it runs on.
        head: head dimension.
        dtype: of queries, keys and values, as the machine names its products.
        parts: sub-tiles of ``rows`` queries.
        keys: keys of a block.
        bytes_each: bytes of an element.
    """
    rows = machine.instruction(f"mma.{dtype}").rows
    product = f"mma.{dtype}"
    block = keys * head * bytes_each
    ops: list[Op] = [
        machine.op("load_k", {"load": block}, role="load", shape=(keys, head)),
        machine.op("load_v", {"load": block}, role="load", shape=(keys, head)),
    ]
    values: list[Value] = []
    dependences: list[Dependence] = []
    k_reads: list[Read] = []
    v_reads: list[Read] = []
    for part in range(parts):

        def name(twin: str, part: int = part) -> str:
            return f"{twin}.{part}"

        def op(twin: str, role: str, work: dict[str, int], shape: tuple[int, ...], part: int = part) -> Op:
            return machine.op(f"{twin}.{part}", work, part=part, twin=twin, role=role, shape=shape)

        scores = op("qk", "mma", {product: rows * keys * head}, (rows, keys, head))
        top = op("max", "softmax", {"arithmetic": rows * keys}, (rows, keys))
        exp = op("exp", "softmax", {"exp2": rows * keys}, (rows, keys))
        total = op("sum", "softmax", {"arithmetic": rows * keys * 3 // 2}, (rows, keys))
        rescale = op("rescale", "correction", {"arithmetic": rows * head}, (rows, head))
        output = op("pv", "mma", {product: rows * keys * head}, (rows, head, keys))
        ops += [scores, top, exp, total, rescale, output]
        k_reads.append(Read(scores.name, scores.latency))
        v_reads.append(Read(output.name, output.latency))
        scores_bytes, output_bytes = rows * keys * 4, rows * head * 4
        values += [
            # Exponentials take the place of the scores; they are converted as they are summed up.
            Value(name("s"), scores.name, "register", scores_bytes, (Read(top.name, top.issue), Read(exp.name, 0))),
            Value(name("e"), exp.name, "register", scores_bytes, (Read(total.name, 0),)),
            Value(name("p"), total.name, "register", rows * keys * bytes_each, (Read(output.name, output.latency),)),
            Value(
                name("m"),
                top.name,
                "register",
                rows * 4,
                (Read(exp.name, exp.issue), Read(rescale.name, rescale.issue), Read(top.name, 0, 1)),
            ),
            Value(name("o"), output.name, "register", output_bytes, (Read(rescale.name, 0, 1),)),
            Value(name("o_scaled"), rescale.name, "register", output_bytes, (Read(output.name, 0),)),
        ]
        dependences.append(Dependence(total.name, total.name, total.latency, 1))
    values += [
        Value("k", "load_k", "shared", block, tuple(k_reads)),
        Value("v", "load_v", "shared", block, tuple(v_reads)),
    ]
    return Graph(
        f"attention-fwd d{head} {dtype}",
        tuple(ops),
        tuple(values),
        tuple(dependences),
        work=Fraction(2 * parts * rows * keys * head),
        tile={"BM": parts * rows, "BN": keys, "consumers": parts},
        resident={"shared": parts * rows * head * bytes_each},
        traffic=2 * block,
    )


def in_tensor_memory(machine: Machine, head: int, dtype: str, parts: int, keys: int, bytes_each: int) -> Graph:
    """The loop where products leave their sums in tensor memory (Blackwell; FlashAttention-4).

    Scores go from tensor memory into registers, and come back as weights in their place; the output stays in tensor
    memory, where it is rescaled between two products. Arguments as of ``in_registers``.
    """
    product = f"mma.{dtype}"
    rows = machine.instruction(product).rows
    block = keys * head * bytes_each
    ops: list[Op] = [
        machine.op("load_k", {"load": block}, role="load", shape=(keys, head)),
        machine.op("load_v", {"load": block}, role="load", shape=(keys, head)),
    ]
    values: list[Value] = []
    k_reads: list[Read] = []
    v_reads: list[Read] = []
    for part in range(parts):

        def op(twin: str, role: str, work: dict[str, int], shape: tuple[int, ...], part: int = part) -> Op:
            return machine.op(f"{twin}.{part}", work, part=part, twin=twin, role=role, shape=shape)

        def value(
            name: str, producer: Op, memory: str, size: int, *reads: Read, crossing: bool = False, part: int = part
        ) -> Value:
            return Value(f"{name}.{part}", producer.name, memory, size, reads, crossing=crossing)

        scores_bytes, output_bytes = rows * keys * 4, rows * head * 4
        scores = op("qk", "mma", {product: rows * keys * head}, (rows, keys, head))
        read = op("read_s", "softmax", {"read_tensor": scores_bytes}, (rows, keys))
        top = op("max", "softmax", {"arithmetic": rows * keys}, (rows, keys))
        exp = op("exp", "softmax", {"exp2": rows * keys}, (rows, keys))
        weights = op("write_p", "softmax", {"write_tensor": rows * keys * bytes_each}, (rows, keys))
        total = op("sum", "softmax", {"arithmetic": rows * keys * 3 // 2}, (rows, keys))
        # A few columns at a time go through registers.
        correct = op(
            "correct",
            "correction",
            {"read_tensor": output_bytes, "arithmetic": rows * head, "write_tensor": output_bytes},
            (rows, head),
        )
        output = op("pv", "mma", {product: rows * keys * head}, (rows, head, keys))
        ops += [scores, read, top, exp, total, weights, correct, output]
        k_reads.append(Read(scores.name, scores.latency))
        v_reads.append(Read(output.name, output.latency))
        values += [
            # Weights lie where the scores were, until they have been multiplied.
            value(
                "s", scores, "tensor", scores_bytes, Read(read.name, read.latency), Read(output.name, output.latency)
            ),
            value("s_read", read, "register", scores_bytes, Read(top.name, top.issue), Read(exp.name, 0)),
            value("e", exp, "register", scores_bytes, Read(total.name, 0)),
            value("p", total, "register", rows * keys * bytes_each, Read(weights.name, weights.issue)),
            value("p_written", weights, "tensor", 0, Read(output.name, output.latency)),
            value(
                "m",
                top,
                "register",
                rows * 4,
                Read(exp.name, exp.issue),
                Read(correct.name, correct.issue),
                Read(top.name, 0, 1),
                crossing=True,
            ),
            value("l", total, "register", rows * 4, Read(total.name, 0, 1)),
            value("o", output, "tensor", output_bytes, Read(correct.name, 0, 1)),
            value("o_corrected", correct, "tensor", 0, Read(output.name, 0)),
        ]
    values += [
        Value("k", "load_k", "shared", block, tuple(k_reads)),
        Value("v", "load_v", "shared", block, tuple(v_reads)),
    ]
    return Graph(
        f"attention-fwd d{head} {dtype}",
        tuple(ops),
        tuple(values),
        work=Fraction(2 * parts * rows * keys * head),
        tile={"BM": parts * rows, "BN": keys, "parts": parts},
        resident={"shared": parts * rows * head * bytes_each},
        traffic=2 * block,
    )

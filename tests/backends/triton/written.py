"""Kernels of memory access, products, reductions, scans and control flow, as text with their symbols and options."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tests.backends.triton.bundles import block, tile

Written = tuple[str, str, Mapping[str, int], Mapping[str, Any]]


def kernel(
    name: str,
    parameters: Mapping[str, str],
    lines: str,
    *,
    writes: list[int],
    symbols: str = "",
    grid: str = "1",
    tiles: str = "",
    bound: str = "",
    updates: list[int] | None = None,
) -> str:
    """The text of a kernel."""
    arguments = ", ".join(f"%{parameter} : {kind}" for parameter, kind in parameters.items())
    parts = [f"symbols [{symbols}]"] if symbols else []
    parts += [f"writes {writes}"]
    parts += [f"updates {updates}"] if updates else []
    parts += [f"tiles [{tiles}]"] if tiles else []
    parts += [f"grid [{grid}]"]
    parts += [f"bound {{{bound}}}"] if bound else []
    return f"tile.kernel @{name}({arguments}) {' '.join(parts)} {{\n{lines}\n  tile.return\n}}"


def kernels() -> Iterator[Written]:
    yield from memory()
    yield from products()
    yield from reductions()
    yield from control()


ELEMENTS = ("f64", "f32", "f16", "bf16", "f8E4M3FN", "f8E5M2", "i64", "i32", "i16", "i8", "ui8", "i1")
ZERO = "  %zero = arith.constant 0 : index\n"


def memory() -> Iterator[Written]:
    # every element type, one kernel: each is copied with padding, shifted by one to the left
    parameters, lines = {}, ZERO + "  %one = arith.constant -1 : index\n"
    for element in ELEMENTS:
        name = element.lower()
        source, target = block(element, "n0"), block(element, 16)
        parameters[f"x_{name}"], parameters[f"y_{name}"] = source, target
        other = "true" if element == "i1" else "200" if element == "ui8" else "1" if element.startswith("i") else "1.0"
        kind = tile(element.removeprefix("u"), 16)
        lines += f"  %v_{name} = tile.load %x_{name}[%one] other {other} : {source} -> {kind}\n"
        lines += f"  tile.store %v_{name}, %y_{name}[%zero] : {kind}, {target}\n"
    writes = list(range(1, 2 * len(ELEMENTS), 2))
    yield "copies", kernel("copies", parameters, lines, writes=writes, symbols="n0"), {"n0": 11}, {}

    # what is read outside, of every element type
    parameters, lines = {}, ZERO
    for element in ELEMENTS:
        others: tuple[str, ...] = ("-0.0", "inf", "-inf", "nan", "0.1", "-448.0")
        if element == "f8E4M3FN":
            others = ("-0.0", "nan", "-448.0")
        elif element == "i1":
            others = ("true", "false")
        elif not element.startswith(("f", "b")):
            width = int(element.strip("ui"))
            others = ("0", "255") if element == "ui8" else ("-1", str(-(1 << (width - 1))), str((1 << (width - 1)) - 1))
        source, kind = block(element, "n0"), tile(element.removeprefix("u"), 16)
        parameters[f"x_{element.lower()}"] = source
        for number, other in enumerate(others):
            name = f"{element.lower()}_{number}"
            parameters[f"y_{name}"] = block(element, 16)
            lines += f"  %v_{name} = tile.load %x_{element.lower()}[%zero] other {other} : {source} -> {kind}\n"
            lines += f"  tile.store %v_{name}, %y_{name}[%zero] : {kind}, {block(element, 16)}\n"
    writes = [place for place, name in enumerate(parameters) if name.startswith("y_")]
    yield "paddings", kernel("paddings", parameters, lines, writes=writes, symbols="n0"), {"n0": 5}, {
        "interpreted": False  # Triton's interpreter has no constants of bfloat16
    }  # fmt: skip

    # what is put outside, as memory has it and as tiles do: integers by their lowest bits
    source, target, kind = block("ui8", "n0"), block("ui8", 16), tile("i8", 16)
    lines = f"""{ZERO}
  %v = tile.load %x[%zero] other 250 : {source} -> {kind}
  %p = tile.pad %v[%zero] within [n0 - 2] other 200 : {kind}
  tile.store %p, %y[%zero] : {kind}, {target}"""
    yield "pads", kernel("pads", {"x": source, "y": target}, lines, writes=[1], symbols="n0"), {"n0": 11}, {}

    # strides of all kinds, rank 3, offsets on both sides, extents of 1
    x = block("f32", "n0", 3, "n1", strides="[1, n0 * n1, n0]")
    y = block("f32", "n0", 3, "n1")
    t = tile("f32", 8, 1, 16)
    lines = f"""
  %m = tile.program_id 0
  %h = tile.program_id 1
  %n = tile.program_id 2
  %mo = tile.index p0 * BM (%m) : (index) -> index
  %no = tile.index p0 * BN (%n) : (index) -> index
  %v = tile.load %x[%mo, %h, %no] in_bounds [1] : {x} -> {t}
  %p = tile.pad %v[%mo, %h, %no] within [n0 - 1, 3, n1] other -1.0 : {t}
  tile.store %p, %y[%mo, %h, %no] in_bounds [1] : {t}, {y}"""
    yield "strided", kernel(
        "strided", {"x": x, "y": y}, lines, writes=[1], symbols="n0, n1", tiles="BM over n0, BN over n1",
        grid="floordiv(n0 + BM - 1, BM), 3, floordiv(n1 + BN - 1, BN)", bound="BM = 8, BN = 16",
    ), {"n0": 13, "n1": 21}, {}  # fmt: skip

    # one column for all rows (stride 0), scalars, a 1 x 1 tile, a view
    x, s, one = block("f32", 8, 16, strides="[0, 1]"), block("f32"), block("f32", 1, 1)
    v, y = block("f32", 4, 8, strides="[16, 2]"), block("f32", 8, 16)
    t, u = tile("f32", 8, 16), tile("f32", 4, 8)
    lines = f"""{ZERO}
  %two = arith.constant 2 : index
  %three = arith.constant 3 : index
  %a = tile.load %x[%two, %three] other 7.0 : {x} -> {t}
  %b = tile.load %s[] : {s} -> f32
  %bs = tile.broadcast %b along [] : f32 -> {t}
  %c = tile.load %one[%zero, %zero] : {one} -> tensor<1x1xf32>
  %cs = tile.broadcast %c along [0, 1] : tensor<1x1xf32> -> {t}
  %d = arith.addf %a, %bs : {t}
  %e = arith.mulf %d, %cs : {t}
  tile.store %e, %y[%zero, %zero] : {t}, {y}
  %w = tile.view %y2[%three] : {y} to {v}
  %k = arith.constant 5.0 : f32
  %ks = tile.broadcast %k along [] : f32 -> {u}
  tile.store %ks, %w[%zero, %zero] : {u}, {v}
  tile.store %c, %y1[%zero, %zero] : tensor<1x1xf32>, {one}
  tile.store %b, %s1[] : f32, {s}"""
    yield "views", kernel(
        "views", {"x": x, "s": s, "one": one, "y": y, "y2": y, "y1": one, "s1": s}, lines, writes=[3, 4, 5, 6],
        updates=[4],
    ), {}, {}  # fmt: skip

    # gathers and scatters, with masks and scalar indices
    ids, table, y = block("i64", 32), block("f32", 10, 6), block("f32", 6, 32)
    i, t, ti, b = tile("i64", 32), tile("f32", 32), tile("index", 32), tile("i1", 32)
    lines = f"""{ZERO}
  %row = tile.program_id 0
  %id = tile.load %ids[%zero] : {ids} -> {i}
  %at = arith.index_cast %id : {i} to {ti}
  %places = tile.range : {ti}
  %limit = tile.index 30 () : () -> index
  %limits = tile.broadcast %limit along [] : index -> {ti}
  %some = arith.cmpi slt, %places, %limits : {ti}
  %v = tile.gather %table[%at, %row] mask %some other -3.0 : {table}, {ti}, index mask {b} -> {t}
  %turned = tile.index mod(p0 + 5, 32) (%places) : ({ti}) -> {ti}
  tile.scatter %v, %y[%row, %turned] : {t}, {y}, index, {ti}"""
    yield "gathers", kernel(
        "gathers", {"ids": ids, "table": table, "y": y}, lines, writes=[2], grid="6"
    ), {}, {"data": {"ids": 10}}  # fmt: skip

    # atomics: every combination, elements of one tile and of several programs meet
    lines = f"""
  %p = tile.program_id 0
  %o = tile.index p0 * 32 (%p) : (index) -> index
  %id = tile.load %ids[%o] : {block("i32", "n0")} -> {tile("i32", 32)}
  %at = arith.index_cast %id : {tile("i32", 32)} to {ti}
  %steps = tile.range : {ti}
  %places = tile.index p0 + p1 (%o, %steps) : (index, {ti}) -> {ti}
  %end = tile.index n0 () : () -> index
  %ends = tile.broadcast %end along [] : index -> {ti}
  %there = arith.cmpi slt, %places, %ends : {ti}"""
    head, both = lines, (("atomics", ("f32", "f64", "i32", "i64")), ("atomics_of_16_bits", ("f16", "bf16")))
    for name, elements in both:
        yield _atomics(name, head, elements)
    parameters = {"ids": block("i32", 32), "x": block("f32", 32), "most": block("f32", 7), "least": block("f32", 7)}
    lines = f"""{ZERO}
  %id = tile.load %ids[%zero] : {block("i32", 32)} -> {tile("i32", 32)}
  %at = arith.index_cast %id : {tile("i32", 32)} to {ti}
  %v = tile.load %x[%zero] : {block("f32", 32)} -> {t}
  tile.scatter %v, %most[%at] combine "max" : {t}, {block("f32", 7)}, {ti}
  tile.scatter %v, %least[%at] combine "min" : {t}, {block("f32", 7)}, {ti}"""
    yield "atomics_with_nan", kernel(
        "atomics_with_nan", parameters, lines, writes=[2, 3], updates=[2, 3]
    ), {}, {"data": {"ids": 7, "x": "special"}}  # fmt: skip


def _atomics(name: str, lines: str, elements: tuple[str, ...]) -> Written:
    ti, b = tile("index", 32), tile("i1", 32)
    parameters = {"ids": block("i32", "n0")}
    for element in elements:
        source, kind = block(element, "n0"), tile(element, 32)
        parameters[f"x_{element}"] = source
        lines += f"\n  %x_{element}_t = tile.load %x_{element}[%o] : {source} -> {kind}"
        for combine in ("add", "max", "min") if element not in ("f16", "bf16") else ("add",):
            target = block(element, 7)
            parameters[f"{combine}_{element}"] = target
            lines += (
                f'\n  tile.scatter %x_{element}_t, %{combine}_{element}[%at] mask %there combine "{combine}" : '
                f"{kind}, {target}, {ti} mask {b}"
            )
    writes = [n for n, parameter in enumerate(parameters) if parameter.startswith(("add", "max", "min"))]
    text = kernel(name, parameters, lines, writes=writes, updates=writes, symbols="n0", grid="floordiv(n0 + 31, 32)")
    narrow = elements[0] == "f16"
    options = {"data": {"ids": 7}, "interpreted": not narrow, "tolerances": "atomics" if narrow else ""}
    return name, text, {"n0": 75}, options


def products() -> Iterator[Written]:
    for name, element, total, sizes, transposed, precision in (
        ("dot_f32", "f32", "f32", (16, 16, 32), False, "ieee"),
        ("dot_tf32", "f32", "f32", (16, 32, 16), True, "tf32"),
        ("dot_f16", "f16", "f32", (64, 32, 64), True, "ieee"),
        ("dot_bf16", "bf16", "f32", (16, 16, 16), False, "ieee"),
        ("dot_f64", "f64", "f64", (16, 16, 16), False, "ieee"),
        ("dot_f32_into_f64", "f32", "f64", (16, 16, 16), False, "ieee"),
        ("dot_e4m3", "f8E4M3FN", "f32", (16, 16, 32), True, "ieee"),
        ("dot_e5m2", "f8E5M2", "f32", (32, 16, 32), False, "ieee"),
        ("dot_i8", "i8", "i32", (32, 32, 32), False, "ieee"),
        ("dot_i8_into_i64", "i8", "i64", (16, 16, 32), True, "ieee"),
        ("dot_i32", "i32", "i32", (8, 8, 16), False, "ieee"),
        ("dot_short", "f16", "f32", (16, 16, 4), False, "ieee"),
        ("dot_short_transposed", "f32", "f32", (4, 8, 8), True, "ieee"),
        ("dot_small", "f16", "f32", (1, 2, 32), False, "ieee"),
        ("dot_i8_short", "i8", "i32", (16, 16, 16), True, "ieee"),
        ("dot_short_f32", "f32", "f32", (32, 64, 8), False, "ieee"),
        ("dot_short_bf16", "bf16", "f32", (64, 16, 2), False, "ieee"),
        ("dot_row", "f32", "f32", (1, 64, 32), True, "ieee"),
        ("dot_column", "bf16", "f32", (64, 1, 16), False, "ieee"),
        ("dot_f32_64", "f32", "f32", (64, 64, 32), True, "ieee"),
        ("dot_tf32_64", "f32", "f32", (64, 64, 32), False, "tf32"),
        ("dot_f16_64", "f16", "f32", (64, 128, 64), False, "ieee"),
        ("dot_bf16_64", "bf16", "f32", (128, 64, 32), True, "ieee"),
        ("dot_e5m2_64", "f8E5M2", "f32", (64, 64, 64), True, "ieee"),
        ("dot_f64_transposed", "f64", "f64", (64, 32, 16), True, "ieee"),
        ("dot_i8_64", "i8", "i32", (64, 64, 64), False, "ieee"),
        ("dot_i8_transposed", "i8", "i32", (64, 32, 64), True, "ieee"),
    ):
        m, n, k = sizes
        a, c = block(element, m, "n0"), block(total, m, n)
        b = block(element, n, "n0") if transposed else block(element, "n0", n)
        ta, tc = tile(element, m, k), tile(total, m, n)
        tb = tile(element, n, k) if transposed else tile(element, k, n)
        at = "%zero, %k" if transposed else "%k, %zero"
        zero = "0" if total.startswith("i") else "1.0"
        form = ("transposed " if transposed else "") + (f'precision "{precision}" ' if precision != "ieee" else "")
        lines = f"""{ZERO}
  %end = tile.index n0 () : () -> index
  %step = tile.index BK () : () -> index
  %f = arith.constant {zero} : {total}
  %init = tile.broadcast %f along [] : {total} -> {tc}
  %sum = scf.for %k = %zero to %end step %step iter_args(%acc = %init) -> ({tc}) {{
    %l = tile.load %a[%zero, %k] : {a} -> {ta}
    %r = tile.load %b[{at}] : {b} -> {tb}
    %d = tile.dot %l, %r into %acc {form}: {ta}, {tb} -> {tc}
    scf.yield %d : {tc}
  }}
  tile.store %sum, %c[%zero, %zero] : {tc}, {c}"""
        options: dict[str, Any] = {"float64": total == "f32" and not element.startswith("f8")}
        options["interpreted"] = element != "bf16"  # which the interpreter multiplies as integers
        if precision == "tf32":
            options["tolerances"] = "tf32"
        yield name, kernel(
            name, {"a": a, "b": b, "c": c}, lines, writes=[2], symbols="n0", tiles="BK over n0", bound=f"BK = {k}"
        ), {"n0": 2 * k + 3}, options  # fmt: skip

    # products that are summed: Triton must make no tl.dot of them, which rounds to tf32
    for axis, (m, k, n) in ((1, (16, 4, 32)), (1, (16, 16, 16)), (0, (32, 16, 16)), (2, (16, 16, 32))):
        kept = [extent for place, extent in enumerate((m, k, n)) if place != axis]
        a, b, y = block("f32", m, k), block("f32", k, n), block("f32", *kept)
        whole, result = tile("f32", m, k, n), tile("f32", *kept)
        lines = f"""{ZERO}
  %l = tile.load %a[%zero, %zero] : {a} -> {tile("f32", m, k)}
  %r = tile.load %b[%zero, %zero] : {b} -> {tile("f32", k, n)}
  %lw = tile.broadcast %l along [0, 1] : {tile("f32", m, k)} -> {whole}
  %rw = tile.broadcast %r along [1, 2] : {tile("f32", k, n)} -> {whole}
  %p = arith.mulf %lw, %rw : {whole}
  %s = tile.reduce "add" %p axis {axis} : {whole} -> {result}
  tile.store %s, %y[%zero, %zero] : {result}, {y}"""
        name = f"summed_products_{axis}_of_{k}"
        yield name, kernel(name, {"a": a, "b": b, "y": y}, lines, writes=[2]), {}, {"float64": True}


def reductions() -> Iterator[Written]:
    for element in ("f32", "f64", "bf16", "i32", "i8", "i64", "i1"):
        x, t = block(element, "n0", 16), tile(element, 8, 16)
        parameters, lines = {"x": x}, f"{ZERO}  %v = tile.load %x[%zero, %zero] other 1 : {x} -> {t}\n"
        if element == "i1":
            lines = lines.replace("other 1", "other true")
        kinds = ("and", "or") if element == "i1" else ("add", "mul", "max", "min", "argmax", "argmin")
        kinds += ("and", "or") if element in ("i32", "i8", "i64") else ()
        for axis, extent in enumerate((16, 8)):
            for kind in kinds:
                result = "index" if kind.startswith("arg") else element
                stored = "i64" if result == "index" else element
                name = f"{kind}_{axis}"
                target, row = block(stored, extent), tile(result, extent)
                parameters[f"out_{name}"] = target
                lines += f'  %{name} = tile.reduce "{kind}" %v axis {axis} : {t} -> {row}\n'
                value = name
                if result == "index":
                    value = f"{name}_i"
                    lines += f"  %{value} = arith.index_cast %{name} : {row} to {tile('i64', extent)}\n"
                lines += f"  tile.store %{value}, %out_{name}[%zero] : {tile(stored, extent)}, {target}\n"
        if element != "i1":
            for kind in ("add", "mul", "max", "min"):
                for axis in (0, 1):
                    parameters[f"scan_{kind}_{axis}"] = block(element, 8, 16)
                    lines += f'  %s_{kind}_{axis} = tile.scan "{kind}" %v axis {axis} : {t}\n'
                    target = f"%scan_{kind}_{axis}[%zero, %zero]"
                    lines += f"  tile.store %s_{kind}_{axis}, {target} : {t}, {block(element, 8, 16)}\n"
            line = tile(element, 16)
            lines += f'  %all = tile.reduce "add" %add_0 axis 0 : {line} -> {element}\n'
            lines += f"  tile.store %all, %total[] : {element}, {block(element)}\n"
            parameters["total"] = block(element)
        writes = list(range(1, len(parameters)))
        text = kernel(f"reduce_{element}", parameters, lines, writes=writes, symbols="n0")
        yield f"reduce_{element}", text, {"n0": 7}, {"tolerances": "reduce"}
        if element == "f32":
            yield "reduce_nan", text, {"n0": 7}, {"data": {"x": "special"}, "tolerances": "reduce"}
    # one element along an axis, and what is reduced after that
    x, t, row = block("f32", 1, 64), tile("f32", 1, 64), tile("f32", 64)
    parameters, lines = {"x": x}, f"{ZERO}  %v = tile.load %x[%zero, %zero] : {x} -> {t}\n"
    for kind in ("add", "max", "min"):
        parameters |= {f"row_{kind}": block("f32", 64), f"one_{kind}": block("f32"), f"place_{kind}": block("i64")}
        lines += f"""
  %r_{kind} = tile.reduce "{kind}" %v axis 0 : {t} -> {row}
  tile.store %r_{kind}, %row_{kind}[%zero] : {row}, {block("f32", 64)}
  %o_{kind} = tile.reduce "{kind}" %r_{kind} axis 0 : {row} -> f32
  tile.store %o_{kind}, %one_{kind}[] : f32, {block("f32")}
  %s_{kind} = tile.reduce "{kind}" %v axis 0 : {t} -> {row}
  %p_{kind} = tile.reduce "arg{"max" if kind == "add" else kind}" %s_{kind} axis 0 : {row} -> index
  %i_{kind} = arith.index_cast %p_{kind} : index to i64
  tile.store %i_{kind}, %place_{kind}[] : i64, {block("i64")}
"""
    writes = list(range(1, len(parameters)))
    yield "reduce_one", kernel("reduce_one", parameters, lines, writes=writes), {}, {}
    text = kernel("reduce_one_nan", parameters, lines, writes=writes)
    yield "reduce_one_nan", text, {}, {"data": {"x": "special"}}
    # transposes and broadcasts of rank 3
    x, y, t = block("f32", 4, 8, 2), block("f32", 2, 4, 8), tile("f32", 4, 8, 2)
    lines = f"""{ZERO}
  %v = tile.load %x[%zero, %zero, %zero] : {x} -> {t}
  %w = tile.transpose %v [2, 0, 1] : {t} -> {tile("f32", 2, 4, 8)}
  %r = tile.reduce "max" %w axis 1 : {tile("f32", 2, 4, 8)} -> {tile("f32", 2, 8)}
  %q = tile.transpose %r [1, 0] : {tile("f32", 2, 8)} -> {tile("f32", 8, 2)}
  %a = tile.broadcast %q along [1, 2] : {tile("f32", 8, 2)} -> {t}
  %d = arith.subf %v, %a : {t}
  %e = tile.transpose %d [2, 0, 1] : {t} -> {tile("f32", 2, 4, 8)}
  tile.store %e, %y[%zero, %zero, %zero] : {tile("f32", 2, 4, 8)}, {y}"""
    yield "transposes", kernel("transposes", {"x": x, "y": y}, lines, writes=[1]), {}, {}


def control() -> Iterator[Written]:
    # carried: two tiles that change places, an index, a boolean; loops in loops, and without turns
    x, y, t = block("f32", "n0", 16), block("f32", 16), tile("f32", 16)
    row = tile("f32", 1, 16)
    lines = f"""{ZERO}
  %end = tile.index n0 () : () -> index
  %one = arith.constant 1 : index
  %three = arith.constant 3 : index
  %f = arith.constant 0.0 : f32
  %h = arith.constant 1.0 : f32
  %yes = arith.constant true
  %a = tile.broadcast %f along [] : f32 -> {t}
  %b = tile.broadcast %h along [] : f32 -> {t}
  %u:4 = scf.for %i = %zero to %end step %one iter_args(%p = %a, %q = %b, %at = %zero, %odd = %yes)
      -> ({t}, {t}, index, i1) {{
    %v = tile.load %x[%at, %zero] : {x} -> {row}
    %w = tile.reduce "add" %v axis 0 : {row} -> {t}
    %s = scf.for %j = %i to %three step %one iter_args(%r = %p) -> ({t}) {{
      %1 = arith.addf %r, %w : {t}
      scf.yield %1 : {t}
    }}
    %chosen = scf.if %odd -> ({t}) {{
      %2 = arith.mulf %s, %q : {t}
      scf.yield %2 : {t}
    }} else {{
      scf.yield %s : {t}
    }}
    %next = tile.index p0 + 1 (%at) : (index) -> index
    %even = arith.xori %odd, %yes : i1
    scf.yield %q, %chosen, %next, %even : {t}, {t}, index, i1
  }}
  %last = tile.index n0 - 1 () : () -> index
  %is = arith.cmpi eq, %last, %zero : index
  scf.if %is {{
    tile.store %u#0, %y[%zero] : {t}, {y}
  }} else {{
    tile.store %u#1, %y[%zero] : {t}, {y}
  }}
  %count = arith.index_cast %u#2 : index to i64
  tile.store %count, %n[] : i64, {block("i64")}
  tile.store %u#3, %o[] : i1, {block("i1")}"""
    parameters = {"x": x, "y": y, "n": block("i64"), "o": block("i1")}
    text = kernel("loops", parameters, lines, writes=[1, 2, 3], symbols="n0")
    yield "loops", text, {"n0": 5}, {}
    yield "loops_in_64_bits", text, {"n0": 4}, {"ranges": {}}
    yield "loops_without_turns", text, {"n0": 0}, {"interpreted": False}

    # a loop until a condition holds
    lines = f"""{ZERO}
  %v0 = tile.load %x[] : {block("f32")} -> f32
  %r:2 = scf.while (%v = %v0, %n = %zero) : (f32, index) -> (f32, index) {{
    %limit = arith.constant 100.0 : f32
    %go = arith.cmpf olt, %v, %limit : f32
    scf.condition(%go) %v, %n : f32, index
  }} do {{
  ^bb0(%a : f32, %b : index):
    %d = arith.addf %a, %a : f32
    %m = tile.index p0 + 1 (%b) : (index) -> index
    scf.yield %d, %m : f32, index
  }}
  %c = arith.index_cast %r#1 : index to i64
  tile.store %r#0, %y[] : f32, {block("f32")}
  tile.store %c, %n0[] : i64, {block("i64")}"""
    yield "while", kernel(
        "while", {"x": block("f32"), "y": block("f32"), "n0": block("i64")}, lines, writes=[1, 2]
    ), {}, {"data": {"x": (3.0,)}}  # fmt: skip

    # index arithmetic with negative numbers
    ti = tile("index", 16)
    lines = f"""{ZERO}
  %steps = tile.range : {ti}
  %a = tile.index floordiv(p0 * 2 - n0, 3) (%steps) : ({ti}) -> {ti}
  %b = tile.index mod(p0 * 2 - n0, 3) (%steps) : ({ti}) -> {ti}
  %c = tile.index max(p0, n0) - min(p0 * p0, 7) * n0 + 2 (%steps) : ({ti}) -> {ti}
  %d = tile.index floordiv(p0, 3) + mod(p0, 5) * 10 (%steps) : ({ti}) -> {ti}"""
    parameters = {}
    for name in "abcd":
        parameters[f"out_{name}"] = block("i32", 16)
        lines += f"\n  %{name}_i = arith.index_cast %{name} : {ti} to {tile('i32', 16)}"
        lines += f"\n  tile.store %{name}_i, %out_{name}[%zero] : {tile('i32', 16)}, {block('i32', 16)}"
    text = kernel("places", parameters, lines, writes=[0, 1, 2, 3], symbols="n0")
    yield "places", text, {"n0": 7}, {}
    yield "places_in_64_bits", text, {"n0": 11}, {"ranges": {}}

    # checks: one of a scalar, one of a tile, and what comes after them
    ids, y, i, ti, b = block("i64", 8), block("f32", 8), tile("i64", 8), tile("index", 8), tile("i1", 8)
    lines = f"""{ZERO}
  %n = tile.load %count[] : {block("i64")} -> i64
  %five = arith.constant 5 : i64
  %few = arith.cmpi slt, %n, %five : i64
  tile.check %few, 1 "too many" : i1
  %id = tile.load %ids[%zero] : {ids} -> {i}
  %fives = tile.broadcast %five along [] : i64 -> {i}
  %good = arith.cmpi ult, %id, %fives : {i}
  %w = scf.if %few -> ({tile("f32", 8)}) {{
    tile.check %good, 2 "index out of range" : {b}
    %at = arith.index_cast %id : {i} to {ti}
    %v = tile.gather %x[%at] : {block("f32", 5)}, {ti} -> {tile("f32", 8)}
    scf.yield %v : {tile("f32", 8)}
  }} else {{
    %f = arith.constant 0.0 : f32
    %fs = tile.broadcast %f along [] : f32 -> {tile("f32", 8)}
    scf.yield %fs : {tile("f32", 8)}
  }}
  tile.store %w, %y[%zero] : {tile("f32", 8)}, {y}"""
    parameters = {"count": block("i64"), "ids": ids, "x": block("f32", 5), "y": y}
    text = kernel("checked", parameters, lines, writes=[3])
    yield "checked", text, {}, {"data": {"count": (4,), "ids": 5}}
    yield "check_of_a_scalar_fails", text, {}, {"data": {"count": (9,), "ids": 5}, "failing_check": 1}
    yield "check_of_a_tile_fails", text, {}, {
        "data": {"count": (4,), "ids": (0, 1, 2, 1 << 40, -1, 0, 0, 3)}, "failing_check": 2
    }  # fmt: skip

"""Every op of arith and math, in every dtype, as machine code against the interpreter."""

from __future__ import annotations

import pytest
import torch

from forgec.backends.cpu.elementwise import RULES
from forgec.diagnostics import ForgeError
from tests.backends.cpu.launch import DTYPES, agree, compiled, launch
from tests.ir.tile.op_names import CMPF, CMPI, FLOAT_BINARY, FLOAT_BINARY_MATH, INT_BINARY, SHIFTS, UNARY

FLOATS = ("f64", "f32", "f16", "bf16")
INTEGERS = ("i64", "i32", "i16", "i8")
UNARY_MATH = tuple(name for name in UNARY if name not in ("acosh", "asinh", "atanh", "cbrt"))
EXTENT = 75  # fills no tile


def kernel(name: str, line: str, inputs: list[str], output: str) -> str:
    """One op on tiles of 16 elements: ``line`` has the operands ``%0``, ``%1`` and types ``{0}``, … ``{out}``."""
    blocks = [f"!tile.block<tensor<?x{dtype}, #forge.tensor<[n0]>>>" for dtype in [*inputs, output]]
    parameters = ", ".join(f"%b{number} : {block}" for number, block in enumerate(blocks))
    tiles = [f"tensor<16x{dtype.removeprefix('u')}>" for dtype in [*inputs, output]]
    loads = "\n".join(
        f"  %v{number} = tile.load %b{number}[%o] other {'true' if inputs[number] == 'i1' else 1} : "
        f"{blocks[number]} -> {tiles[number]}"
        for number in range(len(inputs))
    )
    text = line.format(*tiles[:-1], out=tiles[-1])
    for number in range(len(inputs)):
        text = text.replace(f"%{number}", f"%v{number}")
    return f"""
tile.kernel @{name}({parameters}) symbols [n0] writes [{len(inputs)}] tiles [BM over n0]
    grid [floordiv(n0 + BM - 1, BM)] bound {{BM = 16}} {{
  %p = tile.program_id 0
  %o = tile.index p0 * BM (%p) : (index) -> index
{loads}
  %r = {text}
  tile.store %r, %b{len(inputs)}[%o] : {tiles[-1]}, {blocks[-1]}
  tile.return
}}"""


def values(dtype: str, seed: int, extent: int = EXTENT) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    kind = DTYPES[dtype]
    if kind == torch.bool:
        return torch.randint(0, 2, (extent,), generator=generator).bool()
    if kind.is_floating_point:
        found = torch.randn(extent, generator=generator, dtype=torch.float64) * 3
        special = [float("nan"), float("inf"), -float("inf"), 0.0, -0.0, 0.5, -0.5, 1.0, -1.0, 2.5]
        found[torch.randperm(extent, generator=generator)[: len(special)]] = torch.tensor(special, dtype=torch.float64)
        return found.to(kind)
    info = torch.iinfo(kind)
    found = torch.randint(max(info.min, -40), min(info.max, 40), (extent,), generator=generator)
    found[:4] = torch.tensor([info.min, info.max, 0, 1])
    return found.to(kind)


def cases(dtype: str) -> dict[str, tuple[str, list[str], str]]:
    """The op, operand dtypes and result dtype of each kernel."""
    if dtype in FLOATS:
        found = {name: (f"math.{name} %0 : {{0}}", [dtype], dtype) for name in UNARY_MATH}
        found |= {name: (f"math.{name} %0, %1 : {{0}}", [dtype] * 2, dtype) for name in FLOAT_BINARY_MATH}
        found |= {name: (f"arith.{name} %0, %1 : {{0}}", [dtype] * 2, dtype) for name in FLOAT_BINARY}
        found["negf"] = ("arith.negf %0 : {0}", [dtype], dtype)
        for predicate in CMPF:
            found[f"cmpf_{predicate}"] = (f"arith.cmpf {predicate}, %0, %1 : {{0}}", [dtype] * 2, "i1")
        for target in INTEGERS:
            found[f"fptosi_{target}"] = ("arith.fptosi %0 : {0} to {out}", [dtype], target)
            found[f"sitofp_{target}"] = ("arith.sitofp %0 : {0} to {out}", [target], dtype)
            found[f"uitofp_{target}"] = ("arith.uitofp %0 : {0} to {out}", [target], dtype)
        found["uitofp_ui8"] = ("arith.uitofp %0 : {0} to {out}", ["ui8"], dtype)
        for target in FLOATS[: FLOATS.index(dtype)] if dtype != "bf16" else ("f32", "f64"):
            found[f"extf_{target}"] = ("arith.extf %0 : {0} to {out}", [dtype], target)
            found[f"truncf_{target}"] = ("arith.truncf %0 : {0} to {out}", [target], dtype)
    elif dtype == "i1":
        found = {name: (f"arith.{name} %0, %1 : {{0}}", [dtype] * 2, dtype) for name in ("andi", "ori", "xori")}
        for target in (*INTEGERS, "ui8"):
            found[f"extui_{target}"] = ("arith.extui %0 : {0} to {out}", [dtype], target)
            found[f"extsi_{target}"] = ("arith.extsi %0 : {0} to {out}", [dtype], target)
            found[f"trunci_{target}"] = ("arith.trunci %0 : {0} to {out}", [target], dtype)
        found["uitofp"] = ("arith.uitofp %0 : {0} to {out}", [dtype], "f32")
    elif dtype == "ui8":
        found = {
            f"extui_{target}": ("arith.extui %0 : {0} to {out}", [dtype], target) for target in ("i16", "i32", "i64")
        }
        found["trunci"] = ("arith.trunci %0 : {0} to {out}", ["i32"], dtype)
    else:
        found = {name: (f"arith.{name} %0, %1 : {{0}}", [dtype] * 2, dtype) for name in (*INT_BINARY, *SHIFTS)}
        found["absi"] = ("math.absi %0 : {0}", [dtype], dtype)
        for predicate in CMPI:
            found[f"cmpi_{predicate}"] = (f"arith.cmpi {predicate}, %0, %1 : {{0}}", [dtype] * 2, "i1")
        for target in INTEGERS[: INTEGERS.index(dtype)]:
            found[f"extsi_{target}"] = ("arith.extsi %0 : {0} to {out}", [dtype], target)
            found[f"extui_{target}"] = ("arith.extui %0 : {0} to {out}", [dtype], target)
            found[f"trunci_{target}"] = ("arith.trunci %0 : {0} to {out}", [target], dtype)
        for name in ("ctlz", "cttz", "ctpop"):
            found[name] = (f"math.{name} %0 : {{0}}", [dtype], dtype)
        found["ipowi"] = ("math.ipowi %0, %1 : {0}", [dtype] * 2, dtype)
    found["select"] = ("arith.select %0, %1, %2 : {0}, {1}", ["i1", dtype, dtype], dtype)
    return found


def operands(name: str, inputs: list[str]) -> list[torch.Tensor]:
    found = [values(dtype, seed) for seed, dtype in enumerate(inputs)]
    if "div" in name or "rem" in name:  # what arith leaves undefined
        bad = (found[1] == 0) | ((found[1] == -1) if found[1].dtype != torch.uint8 else False)
        found[1] = (
            torch.where(bad, torch.full_like(found[1], 3), found[1]) if not found[1].is_floating_point() else found[1]
        )
    if name in SHIFTS:
        found[1] = found[1].abs().clamp(0) % torch.iinfo(found[1].dtype).bits
        found[1] = found[1].where(found[1] >= 0, torch.zeros_like(found[1]))
    if name == "ipowi":
        found[1] = found[1].clamp(0, 9)
    return found


@pytest.mark.parametrize("dtype", [*FLOATS, *INTEGERS, "ui8", "i1"])
def test_ops(dtype: str) -> None:
    table = cases(dtype)
    native, kernels = compiled("".join(kernel(name, *case) for name, case in table.items()))
    faults: list[str] = []
    for name, (_, inputs, output) in table.items():
        tensors = [*operands(name, inputs), torch.zeros(EXTENT, dtype=DTYPES[output])]
        exact = not DTYPES[output].is_floating_point
        try:
            agree(native, kernels[name], tensors, [EXTENT], float64=not exact)
        except Exception as fault:  # all ops are tried
            faults.append(f"{name}: {fault}")
    assert not faults, "\n".join(faults)


def test_division_by_zero_does_not_trap() -> None:
    names = [name for name in INT_BINARY if "div" in name or "rem" in name]
    native, kernels = compiled("".join(kernel(n, f"arith.{n} %0, %1 : {{0}}", ["i32"] * 2, "i32") for n in names))
    least = torch.full((EXTENT,), -(2**31), dtype=torch.int32)
    for name in names:
        for divisor in (0, -1):
            code, _ = launch(native, kernels[name], [least, torch.full_like(least, divisor), least], [EXTENT])
            assert code == 0


def test_every_rule_is_tested() -> None:
    tested = {line.split()[0] for dtype in (*FLOATS, *INTEGERS, "ui8", "i1") for line, _, _ in cases(dtype).values()}
    elsewhere = {"arith.bitcast", "arith.index_cast", "arith.fptoui", "math.fma", "math.fpowi", "math.cbrt"}
    missing = {"math.asinh", "math.acosh", "math.atanh"}
    assert set(RULES) <= tested | elsewhere | missing


@pytest.mark.parametrize("amount", [0, 5, 31, 32, 40, -1])
@pytest.mark.parametrize("name", SHIFTS)
def test_shifts_by_a_constant(name: str, amount: int) -> None:
    """By as many bits as there are, or more, arith leaves the result undefined: here it is a number like any other."""
    line = f"arith.constant dense<{amount}> : tensor<16xi32>\n  %s = arith.{name} %0, %r : {{0}}"
    native, kernels = compiled(kernel("shift", line, ["i32"], "i32").replace("store %r", "store %s"))
    x = values("i32", 1)
    code, (_, found) = launch(native, kernels["shift"], [x, torch.zeros_like(x)], [EXTENT])
    assert code == 0
    bits, by = x.long(), amount if 0 <= amount < 32 else 32
    expected = {"shli": bits << by, "shrui": (bits & 0xFFFFFFFF) >> by, "shrsi": bits >> by}[name]
    assert torch.equal(found, expected.to(torch.int32))


@pytest.mark.parametrize("name", ["cbrt", "asinh", "acosh", "atanh"])
def test_functions_without_code_are_refused_where_they_stand(name: str) -> None:
    text = kernel("f", f"math.{name} %0 : {{0}}", ["f32"], "f32")
    with pytest.raises(ForgeError, match=rf"FORGE-B002.*no code for math\.{name} in kernel f"):
        compiled(text)


def test_parameters_without_code_are_refused() -> None:
    with pytest.raises(ForgeError, match=r"FORGE-B002.*no code for elements of type f8E4M3FN in kernel f"):
        compiled(kernel("f", "arith.extf %0 : {0} to {out}", ["f8E4M3FN"], "f32"))

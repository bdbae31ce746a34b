"""Machine code for every architecture, on a machine that may have no GPU."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from unittest.mock import patch

import pytest

if find_spec("triton") is None:
    pytest.skip("Triton is not installed", allow_module_level=True)

from forgec.backends.kernel_cache import KernelCache
from forgec.backends.triton import compile as compiling
from forgec.backends.triton.compile import CompiledKernel, compile_kernel, compile_source, without_packed_sums
from forgec.diagnostics import ForgeError
from forgec.passes.tile_machines import MACHINES
from tests.backends.triton.cases import all_cases
from tests.backends.triton.model_cases import model_cases
from tests.backends.triton.random_cases import random_case
from tests.ir.tile.kernels import kernel_of

CASES = all_cases()
DIFFERENT = list({case.source.text: name for name, case in CASES.items()}.values())
SIMILAR = (
    "casts_i16", "casts_i32", "casts_f16", "integers_i16", "reduce_i64", "reduce_i8", "comparisons_bf16", "floats_bf16",
    "dot_short_transposed", "dot_i8_short", "places_in_64_bits", "dot_short_f32", "dot_short_bf16", "dot_column",
    "dot_i8_transposed", "dot_f64_transposed", "dot_tf32_64", "dot_bf16_64", "dot_e5m2_64", "floats_f8E5M2",
    "summed_products_0_of_16", "summed_products_2_of_16",
)  # fmt: skip
ELSEWHERE = ("atomics", "dot_f16", "dot_f64", "dot_e5m2", "loops_in_64_bits", "checked")
COPY = """
tile.kernel @copy(%x : !tile.block<tensor<?xf32, #forge.tensor<[n0]>>>, %y : !tile.block<tensor<16xf32>>)
    symbols [n0] writes [1] grid [1] {
  %zero = arith.constant 0 : index
  %v = tile.load %x[%zero] : !tile.block<tensor<?xf32, #forge.tensor<[n0]>>> -> tensor<16xf32>
  tile.store %v, %y[%zero] : tensor<16xf32>, !tile.block<tensor<16xf32>>
  tile.return
}"""
ROOT = Path(__file__).resolve().parents[3]
ELF = b"\x7fELF"


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.wide) if name in SIMILAR else name for name in DIFFERENT]
)
def test_every_kernel_compiles_for_hopper(name: str) -> None:
    source = CASES[name].source
    kernel = compile_source(source, "sm_90a")
    assert kernel.code.startswith(ELF)
    assert kernel.name == source.name
    assert kernel.parameters == source.signature
    assert kernel.spilled_bytes == 0


@pytest.mark.parametrize("seed", range(8))
def test_random_kernels_compile(seed: int) -> None:
    assert compile_source(random_case(seed).source, "sm_90a").code.startswith(ELF)


@pytest.mark.parametrize("architecture", ["sm_90a", "sm_100a"])
def test_kernels_of_a_model_compile(architecture: str) -> None:
    cases = model_cases("llama", f"cuda:{architecture}")
    assert {name.split("_")[0] for name in cases} >= {"attention", "embedding", "linear", "rms"}
    for case in cases.values():
        kernel = compile_source(case.source, architecture)
        assert kernel.code.startswith(ELF)
        assert ("n0", "i32") in kernel.parameters


@pytest.mark.parametrize("architecture", ["sm_80", "sm_100a"])
@pytest.mark.parametrize("name", ELSEWHERE)
def test_kernels_compile_for_other_architectures(name: str, architecture: str) -> None:
    assert compile_source(CASES[name].source, architecture).code.startswith(ELF)


def test_what_an_architecture_lacks_is_an_error() -> None:
    with pytest.raises(ForgeError) as refused:
        compile_source(CASES["dot_e4m3"].source, "sm_80")
    assert refused.value.code == "FORGE-B006"
    assert "fp8e4nv" in "".join(refused.value.diagnostics[0].notes)


def test_code_does_not_depend_on_what_was_compiled_before() -> None:
    """Triton's conversions of 8-bit floats are those of the first architecture in a process."""
    source = CASES["dot_e5m2"].source
    compile_source(CASES["copies"].source, "sm_90a")
    old = compile_source(source, "sm_80")
    new = compile_source(source, "sm_90a")
    text = (
        "from forgec.backends.triton.compile import compile_source\n"
        "from tests.backends.triton.cases import all_cases\n"
        "import hashlib\n"
        "source = all_cases()['dot_e5m2'].source\n"
        "print(*(hashlib.sha256(compile_source(source, a).code).hexdigest() for a in ('sm_80', 'sm_90a')))"
    )
    finished = subprocess.run([sys.executable, "-c", text], cwd=ROOT, capture_output=True, text=True, check=True)
    assert finished.stdout.split() == [hashlib.sha256(kernel.code).hexdigest() for kernel in (old, new)]


def test_shared_memory_is_what_the_choice_of_tiles_counts_with() -> None:
    assert {f"cuda:{name}": size for name, size in compiling.SHARED_BYTES.items()} == {
        name: machine.dot_limit for name, machine in MACHINES.items() if name != "cpu"
    }


def test_unknown_architectures_are_refused() -> None:
    with pytest.raises(ForgeError) as refused:
        compile_source(CASES["copies"].source, "sm_75")
    assert refused.value.code == "FORGE-U003"


def test_code_depends_on_the_source_alone() -> None:
    first, second = (compile_source(CASES["strided"].source, "sm_90a") for _ in range(2))
    assert first == second
    assert b"/" + b"tmp" not in first.code
    assert str(Path.cwd()).encode() not in first.code


def test_metadata_is_json_and_comes_back() -> None:
    kernel = compile_source(CASES["checked"].source, "sm_90a", aligned=[2])
    assert kernel.aligned == (2,)
    assert kernel.checks == ((1, "too many"), (2, "index out of range"))
    assert CompiledKernel.from_bytes(kernel.to_bytes()) == kernel


def test_kernels_are_compiled_once_under_whatever_name(tmp_path: Path) -> None:
    cache = KernelCache(tmp_path)
    ranges = {"n0": (0, 100)}
    kernel = kernel_of(COPY)
    other = kernel_of(COPY.replace("@copy", "@another").replace("%x", "%left"))
    first = compile_kernel(kernel, "sm_90a", ranges=ranges, cache=cache)
    with patch.object(compiling, "compile_source", side_effect=AssertionError):
        assert compile_kernel(other, "sm_90a", ranges=ranges, cache=cache) == first
    assert compile_kernel(other, "sm_80", ranges=ranges, cache=cache).name == "another"
    assert compile_kernel(other, "sm_90a", cache=cache).parameters[2] == ("n0", "i64")
    assert compile_kernel(other, "sm_90a", ranges=ranges, aligned=[0], cache=cache).aligned == (0,)
    assert len(cache.entries()) == 4


def test_aligned_pointers_make_wide_loads() -> None:
    case = CASES["strided"]
    plain = compile_source(case.source, "sm_90a")
    aligned = compile_source(case.source, "sm_90a", aligned=range(4))
    assert plain.code != aligned.code
    assert aligned.aligned == (0, 1, 2, 3)


def test_too_much_shared_memory_is_an_error() -> None:
    source = CASES["dot_f16"].source
    with patch.dict(compiling.SHARED_BYTES, {"sm_90a": 64}), pytest.raises(ForgeError) as refused:
        compile_source(source, "sm_90a")
    assert refused.value.code == "FORGE-B006"
    assert "shared memory" in str(refused.value)


def test_stages_give_way_to_shared_memory() -> None:
    source = CASES["dot_f32"].source
    full = compile_source(source, "sm_90a")
    with patch.dict(compiling.SHARED_BYTES, {"sm_90a": full.shared_bytes - 1}):
        assert compile_source(source, "sm_90a").num_stages < full.num_stages


def test_serialised_products_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    run = subprocess.run

    def warning(*arguments, **options):
        finished = run(*arguments, **options)
        if isinstance(finished.stderr, str):  # not that of a tool which Triton asks for its version
            finished.stderr += "ptxas info    : (C7514) Potential Performance Loss: wgmma.mma_async is serialized\n"
        return finished

    monkeypatch.setattr(compiling.subprocess, "run", warning)
    with pytest.raises(ForgeError) as refused:
        compile_source(CASES["copies"].source, "sm_90a")
    assert refused.value.code == "FORGE-B006"
    assert "C7514" in refused.value.diagnostics[0].notes[0]


def test_printing_and_importing_need_no_triton() -> None:
    text = (
        "import sys, forgec, forgec.backends.triton.printer, forgec.backends.triton.compile\n"
        "from forgec.backends.base import backends\n"
        "backends()\n"
        "assert 'triton' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", text], check=True)


def test_without_triton_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "triton", None)
    with pytest.raises(ForgeError) as refused:
        compile_source(CASES["copies"].source, "sm_90a")
    assert refused.value.code == "FORGE-B007"


def test_a_sum_of_products_becomes_no_product_in_tf32() -> None:
    """Triton makes one of it where the operands are the other way round, which is refused."""
    source = CASES["dot_short"].source
    left, right = "l.to(tl.float32)[:, :, None]", "r.to(tl.float32)[None, :, :]"
    assert f"{right} * {left}" in source.text
    turned = replace(source, text=source.text.replace(f"{right} * {left}", f"{left} * {right}"))
    with pytest.raises(ForgeError, match="tf32 product of a sum"):
        compile_source(turned, "sm_90a")


def test_packed_sums_are_taken_apart() -> None:
    found = without_packed_sums("\tmov.b32 %r60, 65535;\n\tadd.s16x2 \t%r61, %r7, %r60;\n\tadd.s32 %r1, %r2, %r3;\n")
    assert "s16x2" not in found
    assert "mov.b32 {a0, a1}, %r7;" in found
    assert "mov.b32 %r61, {c0, c1};" in found
    assert "add.s32 %r1, %r2, %r3;" in found

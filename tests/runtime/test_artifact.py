"""Artifacts: what is written is what is read, the same bytes each time, all or nothing."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from forgec.diagnostics import ForgeError
from forgec.runtime import load, write_artifact, zip_layout
from forgec.runtime.plan import TensorSpec
from tests.runtime.build import EntryBuilder, plan_of
from tests.runtime.examples import MLP_WEIGHTS, cache, counter, dynamic_mlp, mlp, weights

IR = {"forge": "builtin.module {\n}\n" * 100, "plan": "é"}


def write(path: Path, **options: Any) -> Path:
    write_artifact(
        path, mlp(), weights(*MLP_WEIGHTS), producer={"torch": "2.13", "forgec": "0.1.0"}, pipeline="@O2",
        report={"launches": 3}, ir=IR, **options,
    )  # fmt: skip
    return path


def test_round_trip(tmp_path: Path) -> None:
    path = write(tmp_path / "m.forge")
    model = load(path, verify="full")
    w = weights(*MLP_WEIGHTS)
    x = torch.randn(4, 8)
    assert torch.equal(model(x), torch.relu(x @ w["up"]) @ w["down"])
    assert model.entries == ("main",)
    assert model.report == {"launches": 3}
    assert model.ir("forge") == IR["forge"]
    assert model.ir("plan") == IR["plan"]
    assert model.artifact.plan == mlp()
    assert model.artifact.ir_levels == ("forge", "plan")
    assert model.manifest["producer"] == {"forgec": "0.1.0", "torch": "2.13"}
    assert model.manifest["pipeline"] == "@O2"
    assert model.manifest["entries"][0]["call"] == "(x: f32[4, 8])"
    assert repr(model) == f"LoadedModel('{path}', entries=['main'])"
    assert model.peak_bytes().arena_bytes == 512
    for call in (lambda: model.ir("tile"), lambda: model.artifact.read("nope")):
        with pytest.raises(ForgeError, match="FORGE-U005"):
            call()


def test_sessions_of_a_loaded_model(tmp_path: Path) -> None:
    write_artifact(tmp_path / "m.forge", counter(), {})
    model = load(tmp_path / "m.forge", threads=1)
    s = model.session()
    assert s(torch.tensor(2.0)).item() == 2
    assert s(torch.tensor(2.0)).item() == 4
    assert model(torch.tensor(1.0)).item() == 1


def test_any_zip_tool_can_read_it(tmp_path: Path) -> None:
    path = write(tmp_path / "m.forge")
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        names = archive.namelist()
        assert names == [
            "ir/forge.mlir",
            "ir/plan.mlir",
            "plan.json",
            "report.json",
            "weights.safetensors",
            "manifest.json",
        ]
        assert json.loads(archive.read("report.json")) == {"launches": 3}
        assert archive.read("ir/plan.mlir").decode() == IR["plan"]
        for info in archive.infolist():
            assert (info.compress_type == zipfile.ZIP_DEFLATED) == info.filename.startswith("ir/")
        archive.extractall(tmp_path)
    tensors = load_file(tmp_path / "weights.safetensors")
    for name, expected in weights(*MLP_WEIGHTS).items():
        assert torch.equal(tensors[name], expected)


def test_everything_is_aligned(tmp_path: Path) -> None:
    path = tmp_path / "m.forge"
    b = EntryBuilder()
    specs = {f"w{i}": TensorSpec.contiguous("f16", (i,)) for i in range(1, 9)}
    for name, spec in specs.items():
        b.param(name, spec)
    sources = {name: torch.full((i,), float(i), dtype=torch.half) for i, name in enumerate(specs, 1)}
    write_artifact(path, plan_of(b.build(())), sources)
    content = memoryview(path.read_bytes())
    for member in zip_layout.read_members(content):
        assert member.start % 64 == 0
    model = load(path)
    for name, spec in specs.items():
        tensor = model.artifact.weights.tensor(name, spec, "cpu")
        assert tensor.data_ptr() % 64 == 0
        assert torch.equal(tensor, sources[name])


def test_same_input_same_bytes(tmp_path: Path) -> None:
    first, second = write(tmp_path / "a.forge"), write(tmp_path / "b.forge")
    assert first.read_bytes() == second.read_bytes()
    assert str(tmp_path).encode() not in first.read_bytes()
    reordered = dict(reversed(list(weights(*MLP_WEIGHTS).items())))
    write_artifact(tmp_path / "c.forge", mlp(), {**reordered, "unused": torch.ones(5)})
    write_artifact(tmp_path / "d.forge", mlp(), weights(*MLP_WEIGHTS))
    assert (tmp_path / "c.forge").read_bytes() == (tmp_path / "d.forge").read_bytes()


ELEMENTS: dict[str, Any] = {
    "f64": np.float64, "f32": np.float32, "f16": np.float16, "bf16": ml_dtypes.bfloat16,
    "f8e4m3fn": ml_dtypes.float8_e4m3fn, "f8e5m2": ml_dtypes.float8_e5m2, "i64": np.int64, "i32": np.int32,
    "i16": np.int16, "i8": np.int8, "ui8": np.uint8, "i1": np.bool_, "c64": np.complex64, "c128": np.complex128,
}  # fmt: skip


def test_every_dtype_from_every_source(tmp_path: Path) -> None:
    b = EntryBuilder()
    arrays = {name: (np.arange(6) % 2).reshape(2, 3).astype(dtype) for name, dtype in ELEMENTS.items()}
    for name in ELEMENTS:
        b.param(name, TensorSpec.contiguous(name, (2, 3)))
    outputs = [b[name] for name in ELEMENTS]
    plan = plan_of(b.build(outputs))
    write_artifact(tmp_path / "numpy.forge", plan, arrays)
    model = load(tmp_path / "numpy.forge")
    tensors = dict(zip(ELEMENTS, model(), strict=True))
    sources: dict[str, Callable[[], dict[str, Any]]] = {
        "torch": lambda: tensors,
        "bytes": lambda: {name: array.tobytes() for name, array in arrays.items()},
        "callable": lambda: {name: lambda name=name: tensors[name] for name in arrays},
    }
    for name, make in sources.items():
        write_artifact(tmp_path / f"{name}.forge", plan, make())
        assert (tmp_path / f"{name}.forge").read_bytes() == (tmp_path / "numpy.forge").read_bytes()
    with zipfile.ZipFile(tmp_path / "numpy.forge") as archive:
        archive.extract("weights.safetensors", tmp_path)
    with safe_open(tmp_path / "weights.safetensors", "pt") as file:
        for name, tensor in tensors.items():
            stored = file.get_tensor(name)
            assert torch.equal(torch.view_as_complex(stored) if name == "c128" else stored, tensor)


@pytest.mark.parametrize(
    ("shape", "strides"),
    [
        ((3, 4), (1, 3)), ((2, 3, 4), (12, 1, 3)), ((3, 4), (8, 2)), ((3, 4), (0, 1)), ((3, 4), (1, 0)),
        ((1, 4), (99, 1)), ((0, 4), (4, 1)), ((), ()),
    ],
)  # fmt: skip
def test_strides_of_weights_survive(tmp_path: Path, shape: tuple[int, ...], strides: tuple[int, ...]) -> None:
    b = EntryBuilder()
    spec = TensorSpec("f32", shape, strides)
    w = b.param("w", spec)
    expected = torch.randn(64).as_strided(shape, strides)
    write_artifact(tmp_path / "m.forge", plan_of(b.build(w)), {"w": expected})
    tensor = load(tmp_path / "m.forge").artifact.weights.tensor("w", spec, "cpu")
    assert torch.equal(tensor, expected)
    assert tensor.stride() == strides


def tied() -> Any:
    b = EntryBuilder()
    spec = TensorSpec.contiguous("f32", (2, 3))
    for name in ("embed", "head", "other"):
        b.param(name, spec)
    return plan_of(b.build([b["embed"], b["head"], b["other"]]))


@pytest.mark.parametrize("explicit", [False, True])
def test_tied_weights_exist_once(tmp_path: Path, explicit: bool) -> None:
    w, other = torch.randn(2, 3), torch.randn(2, 3)
    if explicit:
        write_artifact(tmp_path / "m.forge", tied(), {"embed": w, "other": other}, aliases={"head": "embed"})
    else:
        write_artifact(tmp_path / "m.forge", tied(), {"embed": w, "head": w.view(2, 3), "other": other})
    model = load(tmp_path / "m.forge")
    assert model.artifact.weights.names == ("embed", "other")
    assert model.artifact.weights.aliases == {"head": "embed"}
    first, second, third = model()
    assert torch.equal(first, w)
    assert torch.equal(second, w)
    assert torch.equal(third, other)


def test_states_that_are_zero_are_not_stored(tmp_path: Path) -> None:
    write_artifact(tmp_path / "m.forge", cache(), {})
    model = load(tmp_path / "m.forge")
    assert model.artifact.weights.names == ()
    assert model.session()(entry="read")[0].tolist() == [0, 0, 0]


def test_writing_to_a_weight_does_not_reach_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "m.forge")
    before = path.read_bytes()
    model = load(path)
    model.artifact.weights.tensor("up", TensorSpec.contiguous("f32", (8, 16)), "cpu").zero_()
    assert path.read_bytes() == before


def test_external_weights(tmp_path: Path) -> None:
    path, outside = tmp_path / "m.forge", tmp_path / "w.safetensors"
    write(path, external_weights=outside)
    assert path.stat().st_size < 8000
    assert load_file(outside).keys() >= {"up", "down"}
    x = torch.randn(4, 8)
    w = weights(*MLP_WEIGHTS)
    expected = torch.relu(x @ w["up"]) @ w["down"]
    assert torch.equal(load(path, verify="full")(x), expected)
    outside.rename(tmp_path / "elsewhere")
    with pytest.raises(ForgeError, match="FORGE-A005"):
        load(path)
    assert torch.equal(load(path, weights=tmp_path / "elsewhere")(x), expected)
    content = bytearray((tmp_path / "elsewhere").read_bytes())
    for damaged in (content[:-1], b"", content[:40] + b"x" + content[41:]):
        outside.write_bytes(damaged)
        with pytest.raises(ForgeError, match="FORGE-A005"):
            load(path)
    content[-1] ^= 1
    outside.write_bytes(content)
    load(path)
    with pytest.raises(ForgeError, match="FORGE-A005"):
        load(path, verify="full")


@pytest.mark.parametrize("place", ["sub/w.safetensors", "m.forge", "../w.safetensors"])
def test_external_weights_stand_beside_the_artifact(tmp_path: Path, place: str) -> None:
    with pytest.raises(ForgeError, match="FORGE-U005"):
        write(tmp_path / "m.forge", external_weights=tmp_path / place)
    assert list(tmp_path.iterdir()) == []


class Stopped(BaseException):
    pass


def stop() -> Any:
    raise Stopped


@pytest.mark.parametrize("external", [False, True])
@pytest.mark.parametrize("existing", [False, True])
def test_a_failure_leaves_everything_as_it_was(tmp_path: Path, external: bool, existing: bool) -> None:
    path, outside = tmp_path / "m.forge", tmp_path / "w.safetensors" if external else None
    if existing:
        write(path, external_weights=outside)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    with pytest.raises(Stopped):
        write_artifact(path, mlp(), {**weights(*MLP_WEIGHTS), "down": stop}, external_weights=outside)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    places = [
        tmp_path / "folder",
        tmp_path / "missing" / "m.forge",
        tmp_path / "pipe",
        Path("/dev/null"),
        Path("/proc/m.forge"),
    ]
    before = sorted(tmp_path.rglob("*"))
    for place in places:
        with pytest.raises(ForgeError, match="FORGE-U004"):
            write(place)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from forgec.runtime import replacing_file

    monkeypatch.setattr(replacing_file, "open_unnamed", lambda folder: os.open("/dev/full", os.O_WRONLY))
    with pytest.raises(ForgeError, match=r"FORGE-U004.*No space left"):
        write(tmp_path / "m.forge")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("sources", "reason"),
    [
        ({"up": torch.ones(8, 16)}, "no such weight"),
        ({"up": torch.ones(8, 15), "down": torch.ones(16, 8)}, "the plan has f32"),
        ({"up": np.ones((8, 16)), "down": torch.ones(16, 8)}, "the plan has f32"),
        ({"up": b"123", "down": torch.ones(16, 8)}, "has 3 bytes, the plan needs 512"),
    ],
)
def test_weights_that_do_not_fit(tmp_path: Path, sources: dict[str, Any], reason: str) -> None:
    with pytest.raises(ForgeError, match="FORGE-X001") as caught:
        write_artifact(tmp_path / "m.forge", mlp(), sources)
    assert reason in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_options_of_load(tmp_path: Path) -> None:
    path = write(tmp_path / "m.forge")
    load(path, device="cpu")
    options: list[dict[str, Any]] = [{"device": "cuda"}, {"threads": 0}, {"threads": 10**6}, {"verify": "never"}]
    for bad in options:
        with pytest.raises(ForgeError, match="FORGE-U005"):
            load(path, **bad)
    with pytest.raises(ForgeError, match="FORGE-U001"):
        load(tmp_path / "other.forge")
    with pytest.raises(ForgeError, match="FORGE-U001"):
        load(tmp_path)


def test_large_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The zip64 fields, without writing four gigabytes: as if sizes and offsets from 600 on needed them."""
    monkeypatch.setattr(zip_layout, "LIMIT32", 600)
    path = write(tmp_path / "m.forge")
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert archive.getinfo("weights.safetensors").file_size > 600
    x = torch.randn(4, 8)
    w = weights(*MLP_WEIGHTS)
    assert torch.equal(load(path, verify="full")(x), torch.relu(x @ w["up"]) @ w["down"])


def test_dynamic_plans(tmp_path: Path) -> None:
    write_artifact(tmp_path / "m.forge", dynamic_mlp(), weights(*MLP_WEIGHTS))
    model = load(tmp_path / "m.forge")
    assert model(torch.ones(3, 8))["rows"] == 3
    assert model.manifest["entries"][0]["call"] == "(x: f32[seq, 8])"
    assert model.peak_bytes(seq=2).total_bytes == 2 * 16 * 4 * 2 + 2 * 8 * 4


def test_a_replaced_file_does_not_disturb_a_loaded_model(tmp_path: Path) -> None:
    path = write(tmp_path / "m.forge")
    model = load(path)
    x = torch.randn(4, 8)
    expected = model(x)
    write_artifact(path, mlp(), {name: value * 2 for name, value in weights(*MLP_WEIGHTS).items()})
    assert torch.equal(model(x), expected)
    assert not torch.equal(load(path)(x), expected)

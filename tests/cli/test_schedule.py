"""``forgec schedule``: text, JSON, pages, certificates as files, the cache, and what bad input leads to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from forgec.schedule import files, machine
from forgec.schedule import solve as solver
from tests.cli.command import Finished, forgec
from tests.schedule.loops import ring

KEYS = [
    *("ii_cycles", "ii_lower_bound", "binding", "status", "solve_seconds", "length_cycles", "stages", "tile", "groups"),
    *("channels", "smem_bytes", "tmem_bytes", "simulated_cycles_per_iteration", "unit_utilization"),
]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FORGEC_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache" / "schedules"


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    """A loop at two tiles, as a file."""
    hopper = machine.named("sm_90a")
    path = tmp_path / "ring.json"
    path.write_text(json.dumps([files.to_values(ring(hopper, columns)) for columns in (64, 128)]))
    return path


def scheduled(*arguments: object) -> Finished:
    return forgec("schedule", *arguments, "--target", "sm_90a")


def test_text_json_page_and_certificate(graph: Path, tmp_path: Path) -> None:
    page, stored = tmp_path / "out.html", tmp_path / "out.json"
    finished = scheduled(graph, "--html", page, "--save", stored)
    assert finished.code == 0, finished.err
    assert "ring.json on sm_90a" in finished.out
    assert "optimal" in finished.out
    assert page.read_text().startswith("<!DOCTYPE html>")
    found = scheduled(graph, "--json").json
    assert set(KEYS) <= found.keys()
    assert (found["kernel"], found["target"], found["status"]) == ("ring.json", "sm_90a", "optimal")
    assert found["origin"] == "cached"
    assert len(found["alternatives"]) == 2
    checked = forgec("schedule", "--check", stored)
    assert (checked.code, checked.out) == (0, f"{stored}: OK, the schedule keeps all rules on sm_90a\n")


def test_several(graph: Path, tmp_path: Path) -> None:
    finished = scheduled(graph, "--k", 3, "--json", "-o", tmp_path / "all.json")
    found = finished.json
    assert len(found["schedules"]) == 3
    assert {key: found[key] for key in KEYS} == {key: found["schedules"][0][key] for key in KEYS}
    costs = [each["cycles_per_unit_of_work"] for each in found["schedules"]]
    assert costs == sorted(costs)
    checked = forgec("schedule", "--check", tmp_path / "all.json", "--json").json
    assert checked["legal"] is True
    assert [each["violations"] for each in checked["schedules"]] == [[], [], []]
    assert "all 3 schedules keep" in forgec("schedule", "--check", tmp_path / "all.json").out


def test_violations_are_named(graph: Path, tmp_path: Path) -> None:
    stored = tmp_path / "out.json"
    scheduled(graph, "-o", stored)
    values = json.loads(stored.read_text())
    values["schedules"][0]["phases"][0]["starts"]["add"] = 0
    values["schedules"][0]["depths"]["tiles"] = 200
    stored.write_text(json.dumps(values))
    finished = forgec("schedule", "--check", stored)
    assert finished.code == 1
    assert "error[FORGE-S010]" in finished.err
    assert "dependences: add starts" in finished.err
    assert "memories: " in finished.err
    found = forgec("schedule", "--check", stored, "--json")
    assert (found.code, found.json["legal"]) == (1, False)
    assert {each["rule"] for each in found.json["schedules"][0]["violations"]} >= {"dependences", "memories"}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"groups": [{"name": "idle", "warps": 1, "registers": 24, "ops": []}]}, "idle has no ops"),
        ({"phases": []}, "it has no phases"),
    ],
)
def test_schedules_without_ops_or_loops_are_not_legal(
    graph: Path, tmp_path: Path, change: dict[str, Any], says: str
) -> None:
    stored = tmp_path / "out.json"
    scheduled(graph, "-o", stored)
    values = json.loads(stored.read_text())
    values["schedules"][0] |= change
    stored.write_text(json.dumps(values))
    finished = forgec("schedule", "--check", stored)
    assert finished.code == 1
    assert f"structure: {says}" in finished.err


def test_times_beyond_what_is_checked_are_refused(graph: Path, tmp_path: Path) -> None:
    stored = tmp_path / "out.json"
    scheduled(graph, "-o", stored)
    values = json.loads(stored.read_text())
    values["schedules"][0]["phases"][0]["ii"] = 10**15
    stored.write_text(json.dumps(values))
    finished = forgec("schedule", "--check", stored)
    assert finished.code == 1
    assert "has a time beyond" in finished.err


def test_what_a_certificate_claims_is_compared(graph: Path, tmp_path: Path) -> None:
    stored = tmp_path / "out.json"
    scheduled(graph, "-o", stored)
    values = json.loads(stored.read_text())
    values["schedules"][0]["certificate"]["bounds"][0]["cycles"] -= 1
    stored.write_text(json.dumps(values))
    finished = forgec("schedule", "--check", stored)
    assert finished.code == 1
    assert "certificate: its largest bound is" in finished.err


def test_a_bare_schedule_and_another_machine(graph: Path, tmp_path: Path) -> None:
    stored, bare, small = tmp_path / "out.json", tmp_path / "bare.json", tmp_path / "small.json"
    scheduled(graph, "-o", stored)
    values = json.loads(stored.read_text())
    bare.write_text(json.dumps(values["schedules"][0]))
    assert forgec("schedule", "--check", bare).code == 0
    small.write_text(json.dumps({**values["machine"], "name": "small", "shared_bytes": 1 << 10}))
    for option in ("--machine", "--target"):
        finished = forgec("schedule", "--check", stored, option, small)
        assert finished.code == 1
        assert "is not legal on small" in finished.err
    bare.write_text(json.dumps({**values["schedules"][0], "machine": "gone"}))
    assert forgec("schedule", "--check", bare, "--json").error_codes == ["FORGE-U003"]


def test_a_machine_of_ones_own(graph: Path, tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({**files.to_values(machine.named("sm_90a")), "name": "mine", "shared_bytes": 40 << 10}))
    found = forgec("schedule", graph, "--machine", path, "--json").json
    assert found["target"] == "mine"
    assert found["smem_bytes"] <= 40 << 10
    assert forgec("schedule", graph, "--machine", path, "--target", "sm_90a").code == 1


def test_named_kernels_come_with_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the solver was called")

    with monkeypatch.context() as patch:
        patch.setattr(solver, "schedules", refuse)
        found = scheduled("attention-fwd", "--json").json
    assert found["origin"] == "shipped"
    assert found["binding"] == "unit tensor_core"
    assert [group["kind"] for group in found["groups"]] == ["load", "consumer", "consumer"]


def test_shape_dtype_and_no_cache(own_cache: Path) -> None:
    finished = scheduled("attention-fwd", "--shape", "head=64,seq=4096", "--dtype", "f16", "--json", "--no-cache")
    assert finished.code == 0, finished.out
    assert (finished.json["origin"], finished.json["kernel"]) == ("solved", "attention-fwd head=64 seq=4096 f16")
    assert not own_cache.exists()


def test_a_corrupted_entry_is_a_remark(graph: Path, own_cache: Path) -> None:
    assert scheduled(graph).err == ""
    (entry,) = own_cache.glob("*.json")
    whole = entry.read_text()
    entry.write_text(whole[:100])
    finished = scheduled(graph)
    assert finished.code == 0
    assert "remark[FORGE-S011]" in finished.err
    entry.write_text(whole[:100])
    assert [each["code"] for each in scheduled(graph, "--json").json["remarks"]] == ["FORGE-S011"]


def test_cache_clear_removes_schedules(graph: Path, own_cache: Path) -> None:
    scheduled(graph)
    assert forgec("cache", "clear").out == "removed 0 kernels, 0.0 MB\nremoved 1 schedule\n"
    assert list(own_cache.iterdir()) == []


PRODUCT = """
tile.kernel @product(%a : !tile.block<tensor<1024x1024xbf16>>, %b : !tile.block<tensor<1024x1024xbf16>>,
    %c : !tile.block<tensor<1024x1024xf32>>) writes [2]
    tiles [BM over 1024, BN over 1024, BK over 1024] grid [16, 8] bound {BM = 64, BN = 128, BK = 64} {
  %p = tile.program_id 0
  %q = tile.program_id 1
  %i = tile.index p0 * 64 (%p) : (index) -> index
  %j = tile.index p0 * 128 (%q) : (index) -> index
  %zero = arith.constant dense<0.0> : tensor<64x128xf32>
  %first = arith.constant 0 : index
  %step = arith.constant 64 : index
  %last = arith.constant 1024 : index
  %sum = scf.for %k = %first to %last step %step iter_args(%acc = %zero) -> (tensor<64x128xf32>) {
    %x = tile.load %a[%i, %k] in_bounds [0, 1] : !tile.block<tensor<1024x1024xbf16>> -> tensor<64x64xbf16>
    %y = tile.load %b[%k, %j] in_bounds [0, 1] : !tile.block<tensor<1024x1024xbf16>> -> tensor<64x128xbf16>
    %z = tile.dot %x, %y into %acc : tensor<64x64xbf16>, tensor<64x128xbf16> -> tensor<64x128xf32>
    scf.yield %z : tensor<64x128xf32>
  }
  tile.store %sum, %c[%i, %j] in_bounds [0, 1] : tensor<64x128xf32>, !tile.block<tensor<1024x1024xf32>>
  tile.return
}
"""


COPY = """
tile.kernel @copy(%a : !tile.block<tensor<1024xf32>>, %b : !tile.block<tensor<1024xf32>>) writes [1]
    tiles [BM over 1024] grid [16] bound {BM = 64} {
  %p = tile.program_id 0
  %i = tile.index p0 * 64 (%p) : (index) -> index
  %x = tile.load %a[%i] in_bounds [0] : !tile.block<tensor<1024xf32>> -> tensor<64xf32>
  tile.store %x, %b[%i] in_bounds [0] : tensor<64xf32>, !tile.block<tensor<1024xf32>>
  tile.return
}
"""


def test_kernels_without_a_loop(tmp_path: Path) -> None:
    path = tmp_path / "copy.mlir"
    path.write_text(COPY)
    finished = scheduled(path)
    assert finished.code == 1
    assert f"no kernel of {path} has a loop of tiles" in finished.err
    assert "note: copy" in finished.err
    path.write_text(COPY + PRODUCT)
    assert "kernel copy has no loop of tiles" in scheduled(f"{path}:copy").err
    assert "has no kernel gone with a loop" in scheduled(f"{path}:gone").err


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("atention-fwd",), "FORGE-U010", "did you mean attention-fwd"),
        (("no-such-kernel",), "FORGE-U010", "attention-fwd"),
        (("gemm", "--shape", "q=7"), "FORGE-U010", "q"),
        (("gemm", "--shape", "m"), "FORGE-U005", "--shape m is no KEY=N"),
        (("gemm", "--shape", "m=0"), "FORGE-U005", "--shape m=0"),
        (("gemm", "--shape", "m=64,m=128"), "FORGE-U005", "m twice"),
        (("gemm", "--shape", f"m={10**13}"), "FORGE-U005", "is beyond"),
        (("",), "FORGE-U010", "there is no kernel without a name"),
        (("gemm", "--dtype", "int3"), "FORGE-U010", "int3"),
        (("missing.json",), "FORGE-U001", "missing.json"),
        (("missing.mlir",), "FORGE-U001", "missing.mlir"),
        (("bad.json",), "FORGE-U010", "ops.0.latency"),
        (("broken.json",), "FORGE-U010", "is not JSON"),
        (("empty.json",), "FORGE-U010", "holds no graph"),
        (("ring.json", "--shape", "m=3"), "FORGE-U005", "has its sizes"),
        (("ring.json", "--dtype", "bf16"), "FORGE-U005", "--dtype is for kernels by name"),
        (("ring.json", "--html", "gone/out.html"), "FORGE-U004", "out.html"),
        (("ring.json", "-o", "gone/out.json"), "FORGE-U004", "out.json"),
        (("ring.json", "-o", "out", "--html", "out"), "FORGE-U004", "name the same file"),
        (("ring.json", "-o", "ring.json"), "FORGE-U004", "it is read as well"),
        (("ring.json", "--html", "."), "FORGE-U004", "it is a folder"),
        (("ring.json", "--persistent"), "FORGE-U005", "--persistent is for kernels by name"),
        (("binary.json",), "FORGE-I001", "is not UTF-8 text"),
        (("thin.json",), "FORGE-U010", "the extent BN of the tile"),
        (("endless.json",), "FORGE-U010", "trips or traffic beyond"),
        (("none.mlir",), "FORGE-U010", "none.mlir has no tile kernel"),
        (("--check", "missing.json"), "FORGE-U001", "cannot read missing.json: no such file"),
        (("--check", "."), "FORGE-U001", "is a directory"),
        (("--check", "binary.json"), "FORGE-U001", "it is not UTF-8 text"),
        (("--check", "broken.json"), "FORGE-U010", "is not JSON"),
        (("--check", "later.json"), "FORGE-U010", "reads files up to version"),
        (("--check", "ring.json", "--k", "2", "--no-cache"), "FORGE-U005", "--check takes no --k and no --no-cache"),
        (("--check", "ring.json"), "FORGE-U010", "ring.json"),
    ],
)
def test_bad_input(
    arguments: tuple[str, ...], code: str, words: str, graph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    values: Any = json.loads(graph.read_text())
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "empty.json").write_text("[]")
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe")
    (tmp_path / "none.mlir").write_text("")
    (tmp_path / "later.json").write_text('{"version": 99}')
    (tmp_path / "thin.json").write_text(json.dumps({**values[0], "tile": {"BN": -3}}))
    (tmp_path / "endless.json").write_text(json.dumps({**values[0], "trips": 10**30}))
    before = sorted(tmp_path.iterdir())
    values[0]["ops"][0]["latency"] = "soon"
    (tmp_path / "bad.json").write_text(json.dumps(values[0]))
    finished = forgec("schedule", *arguments, "--target", "sm_90a", "--json")
    assert finished.code == 1
    assert finished.error_codes == [code]
    assert words in finished.out
    assert finished.err == ""
    assert set(tmp_path.iterdir()) <= {*before, tmp_path / "bad.json", tmp_path / "cache"}
    assert json.loads(graph.read_text())


def test_the_machine_is_needed_and_known(graph: Path) -> None:
    assert forgec("schedule", graph, "--json").error_codes == ["FORGE-U003"]
    finished = forgec("schedule", graph, "--target", "sm_1", "--json")
    assert finished.error_codes == ["FORGE-U003"]
    assert "sm_90a" in finished.out


def test_usage(graph: Path) -> None:
    assert forgec("schedule", "--target", "sm_90a").code == 2
    assert forgec("schedule", graph, "--check", graph).code == 2
    for option, value in (
        ("--k", 0),
        ("--k", 101),
        ("--time-limit", -1),
        ("--time-limit", "nan"),
        ("--time-limit", "inf"),
    ):
        finished = scheduled(graph, option, value)
        assert (finished.code, finished.out) == (2, "")
        assert option in finished.err


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"shared_bytes": None}, "shared_bytes: field required"),
        ({"shared_bytes": -1}, "shared_bytes of machine mine is negative: -1"),
        ({"most_warps": 10**9}, "most_warps of machine mine is 1000000000, beyond"),
        ({"clock_ghz": float("nan")}, "clock_ghz of machine mine is nan"),
        ({"registers": {"least": 400}}, "machine mine can grant no registers"),
        ({"handover": {"latency": 10**30}}, "handover.latency of machine mine is 1000"),
        ({"wheels": 4}, "wheels: unexpected"),
    ],
)
def test_machines_that_cannot_be(change: dict[str, Any], says: str, graph: Path, tmp_path: Path) -> None:
    values = {**files.to_values(machine.named("sm_90a")), "name": "mine"}
    for name, value in change.items():
        values[name] = {**values[name], **value} if isinstance(value, dict) else value
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({name: value for name, value in values.items() if value is not None}))
    finished = forgec("schedule", graph, "--machine", path)
    assert finished.code == 1
    assert "error[FORGE-U010]" in finished.err
    assert says in finished.err


def test_a_file_says_what_its_machine_is(graph: Path, tmp_path: Path) -> None:
    stored = tmp_path / "out.json"
    scheduled(graph, "-o", stored)
    values = json.loads(stored.read_text())
    values["machine"]["multiprocessors"] = 7
    stored.write_text(json.dumps(values))
    finished = forgec("schedule", "--check", stored)
    assert finished.code == 0
    assert "note: sm_90a is what the file says, which differs from the one that forgec has" in finished.out
    assert forgec("schedule", "--check", stored, "--json").json["machine_differs"] is True
    assert forgec("schedule", "--check", stored, "--target", "sm_90a", "--json").json["machine_differs"] is False
    values["machine"]["name"] = "mine"
    stored.write_text(json.dumps(values))
    finished = forgec("schedule", "--check", stored)
    assert finished.code == 1
    assert "structure: it is for machine sm_90a, and the machine of the file is mine" in finished.err


def test_without_time_only_what_meets_its_bounds_is_optimal(graph: Path) -> None:
    finished = scheduled(graph, "--time-limit", 0, "--json", "--no-cache")
    found = finished.json
    if finished.code:
        assert finished.error_codes == ["FORGE-S002"]
    elif found["status"] == "optimal":
        assert found["undecided"] == []
        assert found["length_cycles"] == found["length_lower_bound"]
    else:
        assert found["status"] in ("timeout", "feasible")


def test_phases_of_a_file(tmp_path: Path) -> None:
    hopper = machine.named("sm_90a")
    phases = [files.to_values(ring(hopper, 64, name)) for name in ("masked", "unmasked")]
    path = tmp_path / "two.json"
    path.write_text(json.dumps([phases]))
    found = scheduled(path, "--json").json
    assert [phase["name"] for phase in found["phases"]] == ["masked", "unmasked"]


def test_tile_kernels(tmp_path: Path) -> None:
    """The choices of tile are numbers of programs that become one; of several kernels one has to be named."""
    path = tmp_path / "product.mlir"
    path.write_text(PRODUCT)
    found = scheduled(path, "--json").json
    assert found["status"] == "optimal"
    assert found["binding"] == "unit tensor_core"
    assert len(found["alternatives"]) > 1
    assert {(channel["from"], channel["memory"]) for channel in found["channels"]} == {("load", "shared")}
    path.write_text(PRODUCT + PRODUCT.replace("@product", "@other"))
    finished = scheduled(path, "--json")
    assert finished.error_codes == ["FORGE-U010"]
    assert "other" in finished.out
    named = scheduled(f"{path}:other", "--json").json
    assert (named["kernel"], named["ii_cycles"]) == ("product.mlir:other", found["ii_cycles"])

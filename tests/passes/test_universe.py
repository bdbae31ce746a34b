import subprocess
import sys
from pathlib import Path

from xdsl.transforms import get_all_passes
from xdsl.universe import Universe

from forgec.passes.registry import available_passes
from forgec.passes.universe import FORGE_UNIVERSE

XDSL_OPT = Path(sys.executable).with_name("xdsl-opt")

SOURCE = """\
func.func @f(%x: tensor<4xf32>) -> tensor<4xf32> {
  %0 = forge.cos %x : (tensor<4xf32>) -> tensor<4xf32>
  %1 = forge.cos %x : (tensor<4xf32>) -> tensor<4xf32>
  %2 = forge.add %0, %1 : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>
  func.return %2 : tensor<4xf32>
}
"""


def test_no_name_is_taken_twice():
    assert not set(FORGE_UNIVERSE.all_passes) & set(get_all_passes())
    own = {"aref", "forge", "plan", "tile", "warp"}
    assert not set(FORGE_UNIVERSE.all_dialects) & set(Universe.get_multiverse().all_dialects) - own


def test_every_pass_is_there_under_the_name_of_its_class():
    assert len(FORGE_UNIVERSE.all_passes) == len(available_passes())
    for name, factory in FORGE_UNIVERSE.all_passes.items():
        pass_class = factory()
        assert pass_class.name == name
        assert available_passes()[name.removeprefix("forge-")]() in pass_class.__mro__


def test_dialects_load():
    for name, factory in FORGE_UNIVERSE.all_dialects.items():
        assert factory().name == name


def test_xdsl_opt_runs_our_passes_on_our_files(tmp_path: Path):
    (tmp_path / "in.mlir").write_text(SOURCE)
    command = [XDSL_OPT, tmp_path / "in.mlir", "-p", "forge-cse"]
    finished = subprocess.run(command, capture_output=True, text=True, check=True)
    assert finished.stdout.count("forge.cos") == 1

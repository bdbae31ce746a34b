import importlib
import pkgutil
import subprocess
import sys

import pytest
from xdsl.passes import ModulePass

import forgec.passes
from forgec.passes.registry import added_passes, all_passes, available_passes
from tests.passes import fakes

MODULES = [info.name for info in pkgutil.iter_modules(forgec.passes.__path__)]


def test_every_available_pass_loads_and_is_named_after_its_file():
    for name, factory in available_passes().items():
        pass_class = factory()
        assert issubclass(pass_class, ModulePass)
        assert pass_class.name == name
        assert pass_class.__module__.startswith(f"forgec.passes.{name.replace('-', '_')}")
        assert pass_class.__doc__, f"{name} has no docstring"


@pytest.mark.parametrize("module_name", MODULES)
def test_no_module_hides_a_pass_under_another_name(module_name: str):
    module = importlib.import_module(f"forgec.passes.{module_name}")
    defined = {
        value.name
        for value in vars(module).values()
        if isinstance(value, type)
        and issubclass(value, ModulePass)
        and value.__module__ == module.__name__
        and "name" in vars(value)
    }
    expected = {module_name.replace("_", "-")} & set(available_passes())
    assert defined == expected


def test_listing_imports_no_pass():
    code = (
        "import sys; from forgec.passes.registry import available_passes; names = available_passes();"
        "bad = [n for n in names if 'forgec.passes.' + n.replace('-', '_') in sys.modules];"
        "assert not bad, bad; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_own_passes_shadow_those_of_xdsl():
    for name, factory in available_passes().items():
        assert all_passes()[name]() is factory()


def test_xdsl_passes_are_there_too():
    assert all_passes()["convert-scf-to-cf"]().name == "convert-scf-to-cf"


def test_added_passes_are_available_inside_the_block_only():
    with added_passes(fakes.Leave):
        assert available_passes()["leave"]() is fakes.Leave
        with added_passes(fakes.Crash):
            assert {"leave", "crash"} <= set(available_passes())
        assert "crash" not in available_passes()
    assert "leave" not in available_passes()

"""``forgec cache``: the compiled kernels on this machine."""

from __future__ import annotations

import json as json_module
from typing import Annotated

import typer

from forgec.cli.errors import reporting

cache = typer.Typer(
    name="cache",
    help="Show or empty the cache of compiled kernels, which compilations share, and of solved schedules.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@cache.command("list")
def list_(
    json: Annotated[bool, typer.Option("--json", help="Print the entries as JSON.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Print tracebacks.")] = False,
) -> None:
    """List the kernels, the one used last first."""
    with reporting(as_json=json, debug=debug):
        from forgec.backends.kernel_cache import KernelCache, ago

        kernels = KernelCache()
        entries = kernels.entries()
        if json:
            listed = [{"key": entry.key, "bytes": entry.size_bytes, "used": entry.used} for entry in entries]
            print(json_module.dumps({"folder": str(kernels.folder), "kernels": listed}, indent=2))
            return
        for entry in entries:
            print(f"{entry.key[:16]}  {entry.size_bytes:>10,} bytes  used {ago(entry.used)}")
        print(_total(len(entries), sum(entry.size_bytes for entry in entries)))


@cache.command()
def clear(
    debug: Annotated[bool, typer.Option("--debug", help="Print tracebacks.")] = False,
) -> None:
    """Remove all kernels and schedules; what is needed is made again."""
    with reporting(debug=debug):
        from forgec.backends.kernel_cache import KernelCache
        from forgec.schedule import store

        removed = KernelCache().clear()
        print(f"removed {_total(len(removed), sum(entry.size_bytes for entry in removed))}")
        schedules = store.clear()
        if schedules:
            print(f"removed {schedules} schedule{'s' * (schedules != 1)}")


@cache.command()
def path() -> None:
    """Print the folder; FORGEC_CACHE_DIR names another one."""
    with reporting():
        from forgec.backends.kernel_cache import cache_folder

        print(cache_folder())


def _total(count: int, size_bytes: int) -> str:
    return f"{count} kernel{'s' * (count != 1)}, {size_bytes / 1e6:.1f} MB"

"""``forgec check``: whether an artifact loads, and why not. Its own small parser, since it answers in a tenth of a
second: importing typer alone would take half of that."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from forgec.cli.exit_codes import EXIT_BROKEN_PIPE, EXIT_DIAGNOSTICS, EXIT_INTERNAL, EXIT_OK, EXIT_USAGE

if TYPE_CHECKING:
    from forgec.runtime.loadable import Loadable

SUMMARY = "Say whether an artifact loads on this machine or another one, which kernels it would run, and why not."
_TEXT = """\
The file's layout and hashes are checked, but not those of the weights (--full does that, and decodes the plan). Of the
images of machine code, the one is named that the processor would run; of one that it cannot run, the features that are
missing. Where the plan calls torch, torch must be installed. Exit code 0 says that the artifact loads, 1 that it does
not (or an error)."""


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """As the other commands' help begins."""

    def add_usage(self, usage: str | None, actions: Any, groups: Any, prefix: str | None = None) -> None:
        super().add_usage(usage, actions, groups, "Usage: " if prefix is None else prefix)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("forgec check", description=f"{SUMMARY}\n\n{_TEXT}", allow_abbrev=False)
    parser.formatter_class = _Formatter
    parser.usage = "forgec check [OPTIONS] ARTIFACT"
    parser.add_argument("artifact", metavar="ARTIFACT", help="An artifact that 'forgec compile' wrote.")
    parser.add_argument(
        "--machine",
        metavar="MACHINE",
        help="Another machine: a level (x86-64-v3), features (x86-64-v3,avx512bf16), or a saved /proc/cpuinfo.",
    )
    parser.add_argument("--weights", metavar="FILE", help="External weights that are not beside the artifact.")
    parser.add_argument("--full", action="store_true", help="Hash the weights as well, and decode the plan.")
    parser.add_argument("--json", action="store_true", help="Print the findings as JSON.")
    parser.add_argument("--debug", action="store_true", help="Print tracebacks.")
    return parser


def check(arguments: Sequence[str]) -> int:
    """Runs the command with these arguments; returns its exit code."""
    try:
        options = _parser().parse_args(arguments)
    except SystemExit as reason:
        return EXIT_OK if not reason.code else EXIT_USAGE
    from forgec.diagnostics import ForgeError

    try:
        found = _found(options)
        text = json.dumps(found.to_dict(), indent=2) if options.json else _as_text(found)
        print(text, flush=True)
        return EXIT_OK if found.loads else EXIT_DIAGNOSTICS
    except BrokenPipeError:
        return EXIT_BROKEN_PIPE
    except ForgeError as reason:
        return _failed(reason.diagnostics, options, EXIT_DIAGNOSTICS)
    except Exception as reason:
        from forgec.diagnostics import Diagnostic

        message = f"internal error: {type(reason).__name__}: {reason}".splitlines()[0].rstrip(".: ")
        return _failed([Diagnostic("FORGE-X001", message, help="please report it")], options, EXIT_INTERNAL)


def _found(options: argparse.Namespace) -> Loadable:
    from forgec.runtime.loadable import loadable
    from forgec.runtime.processor import described

    machine = None if options.machine is None else described(options.machine)
    return loadable(options.artifact, machine=machine, full=options.full, weights=options.weights)


def _failed(diagnostics: Sequence[Any], options: argparse.Namespace, code: int) -> int:
    from forgec.diagnostics import render

    if options.debug:
        import traceback

        traceback.print_exc()
    if options.json:
        print(json.dumps({"error": [diagnostic.to_dict() for diagnostic in diagnostics]}, indent=2))
    else:
        print("\n\n".join(render(diagnostic) for diagnostic in diagnostics), file=sys.stderr)
    return code


def _as_text(found: Loadable) -> str:
    from forgec.diagnostics import render

    lines = [render(problem) for problem in found.problems]
    for image in found.images if found.chosen is not None else ():
        state = image.reason or ("would be chosen" if image.name == found.chosen else "would run")
        lines.append(f"kernels for {image.name}, {image.nbytes / 1e3:.0f} kB: {state}")
    if found.operations:
        count = len(found.operations)
        lines.append(f"{count} ATen operation{'s' * (count != 1)}: torch {found.torch_version} or newer is needed")
    where = "here" if found.machine == "this machine" else f"on {found.machine}"
    lines.append(f"{found.path} {'loads' if found.loads else 'does not load'} {where}")
    return "\n".join(lines)


def listed() -> None:
    """What stands in the list of commands: ``forgec.cli.run`` comes here by itself."""

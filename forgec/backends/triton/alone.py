"""Compiles one kernel in a process of its own.

Triton 3.6 keeps a table of how to convert 8-bit floats that the first kernel of a process fills in, for the
architecture of that kernel: code for another one would be refused by ptxas, or depend on what was compiled before.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Collection
from dataclasses import asdict
from typing import Any

from forgec.backends.triton.printer import TritonSource
from forgec.diagnostics import ForgeError, error


def compile_alone(
    source: TritonSource, architecture: str, aligned: Collection[int], num_warps: int, num_stages: int
) -> bytes:
    """``CompiledKernel.to_bytes`` of what another process makes of it, and the error that it raises."""
    request = {
        "source": asdict(source),
        "options": [architecture, sorted(aligned), num_warps, num_stages],
    }
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    finished = subprocess.run(
        [sys.executable, "-m", "forgec.backends.triton.alone"],
        input=json.dumps(request).encode(),
        capture_output=True,
        env=environment,
        check=False,
    )
    if finished.returncode == 0:
        return finished.stdout
    try:
        failure = json.loads(finished.stdout)
    except ValueError:
        words = finished.stderr.decode(errors="replace").strip()[-1500:]
        raise error(
            "FORGE-B006",
            f"the process that compiles kernel {source.name} ended with {finished.returncode}",
            notes=(words,),
        ) from None
    raise error(failure["code"], failure["message"], notes=tuple(failure["notes"]), help=failure["help"])


def main() -> int:
    """Reads a request, writes the kernel, or the error as JSON."""
    from forgec.backends.triton.compile import compile_here

    request = json.load(sys.stdin)
    fields: dict[str, Any] = request["source"]
    for key in ("signature", "constants", "checks"):
        fields[key] = tuple((left, right) for left, right in fields[key])
    architecture, aligned, num_warps, num_stages = request["options"]
    try:
        found = compile_here(TritonSource(**fields), architecture, aligned, num_warps, num_stages)
    except ForgeError as failure:
        (diagnostic, *_) = failure.diagnostics
        described = {
            "code": diagnostic.code,
            "message": diagnostic.message,
            "notes": diagnostic.notes,
            "help": diagnostic.help,
        }
        print(json.dumps(described))
        return 1
    sys.stdout.buffer.write(found.to_bytes())
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""``python -m tools.fuzz artifacts|texts|models|passes``: long runs; the test suite makes short ones."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from tools.fuzz import batches
from tools.fuzz.batches import Limits, Outcome, Summary, Ticker


class Target(Protocol):
    """The cases of one run, by number."""

    def __call__(self, index: int) -> Outcome: ...

    def kind_of(self, index: int) -> str:
        """What the case is, without running it."""
        ...

    def write(self, index: int, folder: Path) -> Path:
        """Writes the case's input to the folder, for those who look into a finding."""
        ...


def _artifacts(seed: int, folder: Path) -> tuple[Target, Limits, Callable[[str], bool]]:
    from tools.fuzz import seeds
    from tools.fuzz.artifact_mutants import MAKERS
    from tools.fuzz.artifact_target import ArtifactCase

    # A program may take all of its user's time, as it may take memory; a damaged file may not.
    return ArtifactCase(seeds.make(folder), seed, folder), Limits(), lambda kind: not MAKERS[kind][1]


def _texts(seed: int, folder: Path) -> tuple[Target, Limits, Callable[[str], bool]]:
    from tools.fuzz.text_target import TextCase

    return TextCase(seed, folder), Limits(), lambda kind: True


def _models(seed: int, folder: Path) -> tuple[Target, Limits, Callable[[str], bool]]:
    from tools.fuzz.model_target import ModelCase

    return ModelCase(seed, folder), Limits(seconds=60.0, extra_bytes=4 << 30), lambda kind: True


def _passes(seed: int, folder: Path) -> tuple[Target, Limits, Callable[[str], bool]]:
    from tools.fuzz.passes_target import PassesCase

    return PassesCase(seed), Limits(seconds=120.0, extra_bytes=4 << 30), lambda kind: True


TARGETS = {
    "artifacts": (_artifacts, "damaged and hostile artifacts, loaded and run"),
    "texts": (_texts, "IR text for 'forgec opt'"),
    "models": (_models, "model files and exported programs for 'forgec compile'"),
    "passes": (_passes, "random graphs through passes in any order, compared with the interpreter"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one fuzzer; 0 when nothing was found."""
    parser = argparse.ArgumentParser(prog="python -m tools.fuzz", description=__doc__)
    parser.add_argument(
        "target", choices=TARGETS, help="; ".join(f"{name}: {text}" for name, (_, text) in TARGETS.items())
    )
    parser.add_argument("--count", type=int, default=1000, help="how many cases (1000)")
    parser.add_argument("--seed", type=int, default=0, help="the same cases for the same number (0)")
    parser.add_argument("--first", type=int, default=0, help="number of the first case: repeats a finding (0)")
    parser.add_argument("--keep", type=Path, help="folder for the inputs of findings")
    parser.add_argument("--here", action="store_true", help="no processes: for a debugger")
    options = parser.parse_args(arguments)
    keep = options.keep and options.keep.resolve()
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="forgec-fuzz-") as scratch:
        folder = Path(scratch)
        os.environ["XDG_CACHE_HOME"] = scratch  # for reproducers of passes
        target, limits, timeout_is_finding = TARGETS[options.target][0](options.seed, folder)
        indices = range(options.first, options.first + options.count)
        work = folder / "work"
        work.mkdir()
        before = os.getcwd()
        os.chdir(work)
        if options.here:
            summary = Summary()
            for index in indices:
                summary.add(index, target(index))
        else:
            summary = batches.run(
                indices,
                target,
                target.kind_of,
                folder,
                limits=limits,
                timeout_is_finding=timeout_is_finding,
                progress=Ticker(options.count),
            )
        os.chdir(before)
        strays = sorted(path.name for path in work.iterdir())
        for index, outcome in summary.findings.items():
            print(f"\ncase {index}, {outcome.kind}: {outcome.result}\n{outcome.finding}")
            if keep is not None:
                keep.mkdir(parents=True, exist_ok=True)
                print(f"kept as {target.write(index, keep)}")
    for (kind, result), count in sorted(summary.counts.items()):
        print(f"{count:7}  {kind}: {result}")
    if strays:
        print(f"files were written to the working directory: {', '.join(strays)}")
    seconds = time.monotonic() - started
    print(f"{options.count} cases of seed {options.seed} in {seconds:.0f} s: {len(summary.findings)} findings")
    return 1 if summary.findings or strays else 0


if __name__ == "__main__":
    sys.exit(main())

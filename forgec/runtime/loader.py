"""Loading an artifact: from a file to something that can be called, without the compiler."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from forgec.diagnostics import error
from forgec.runtime import processor
from forgec.runtime.artifact import Artifact, Verify, open_artifact
from forgec.runtime.collector import paused_collector
from forgec.runtime.refusals import NotCopied

if TYPE_CHECKING:
    from forgec.runtime.binding import Peak
    from forgec.runtime.program import Program
    from forgec.runtime.session import Session


def load(
    path: str | os.PathLike[str],
    *,
    threads: int | None = None,
    verify: Verify = "fast",
    device: str | None = None,
    weights: str | os.PathLike[str] | None = None,
) -> LoadedModel:
    """Loads an artifact. Weights are mapped, not read: a model of any size loads in the time that its plan takes.

    ``threads`` is how many threads compute during this model's calls, in kernels and in torch's operations. None: as
    many as torch has at the call (``torch.get_num_threads()``); in a process without torch one for each core of the
    affinity mask, no more than the control group's quota of processors. Results of kernels do not depend on it;
    what torch computes (fallbacks) may.
    ``verify="full"`` also hashes the weights. ``device`` must be the one that the artifact was compiled for.
    Of several images of machine code it takes the one that uses most of what this processor has, and maps no other.
    ``weights`` is the path of external weights that are not beside the artifact. FORGE-U001 when the file cannot be
    read, FORGE-U005 for a bad option, FORGE-A001 to A006 when the file is no sound artifact or needs a torch that is
    not there, FORGE-A007 and A008 when this machine cannot run its kernels.
    """
    from forgec.runtime.program import Program

    artifact = open_artifact(path, verify=verify, weights=weights)
    with paused_collector():
        plan = artifact.plan
        compiled = sorted({register.device for entry in plan.entries for register in entry.registers} or {"cpu"})
        if device is not None and compiled != [device]:
            raise error("FORGE-U005", f"'{path}' was compiled for {', '.join(compiled)}, not for '{device}'")
        kernels = processor.best(artifact.images)
        program = Program(plan, artifact.weights, threads=threads, plan_is_checked=True, kernels=kernels)
        return LoadedModel(artifact, program)


class LoadedModel(NotCopied):
    """An artifact that is ready to run. Calls are thread safe; ``session`` gives a state of one's own."""

    def __init__(self, artifact: Artifact, program: Program) -> None:
        self.artifact = artifact
        self.program = program

    def __call__(self, *args: Any, entry: str | None = None, **kwargs: Any) -> Any:
        """Calls an entry point (the first one unless named) with the default session. See ``Program.__call__``."""
        return self.program(*args, entry=entry, **kwargs)

    def session(self) -> Session:
        """A new session, independent of all others."""
        return self.program.session()

    def reset(self) -> None:
        """Give the default session's states their initial values again."""
        self.program.reset()

    @property
    def entries(self) -> tuple[str, ...]:
        """The names of the entry points."""
        return self.program.entries

    @property
    def manifest(self) -> dict[str, Any]:
        """The manifest as data."""
        return self.artifact.manifest

    @property
    def report(self) -> dict[str, Any]:
        """The compile report as data."""
        return self.artifact.report

    def ir(self, level: str) -> str:
        """The text of the IR at a level (``forge``, ``plan``). FORGE-U005 when the artifact does not hold it."""
        return self.artifact.ir(level)

    def peak_bytes(self, entry: str | None = None, **symbols: int) -> Peak:
        """What a call allocates at most at one time; see ``Program.peak_bytes``."""
        return self.program.peak_bytes(entry, **symbols)

    def __repr__(self) -> str:
        return f"LoadedModel('{self.artifact.path}', entries={list(self.entries)})"

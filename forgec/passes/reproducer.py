"""Writes a failing pass down as one ``.mlir`` file that ``forgec opt`` can run, and that CHECK lines make a test of."""

from __future__ import annotations

import hashlib
import os
import shlex
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass

from forgec.diagnostics import ForgeError
from forgec.ir.verify import broken_ops
from forgec.passes.instruments import ir_text
from forgec.passes.manager import Instrument, PassRun
from forgec.passes.pipelines import text_of

_DEFECTS = ("FORGE-P003", "FORGE-P004", "FORGE-P005")


@dataclass
class CrashReproducer(Instrument):
    """Keeps a copy of the module as it came in; when a pass proves defective, writes a reproducer to ``folder``.

    The passes before the failing one are run again on the copy. If the failing pass alone then fails again, the file
    holds the IR right before it and names that pass only; otherwise it holds the IR as it came in, and the passes up to
    the failing one. The file's name is made of the pass and of the content, so that one failure has one file.
    """

    folder: Path | None = None
    _passes: tuple[ModulePass, ...] = field(default=(), init=False)
    _initial: ModuleOp | None = field(default=None, init=False)

    def before_pipeline(self, passes: Sequence[ModulePass], module: ModuleOp, context: Context) -> None:
        self._passes = tuple(passes)
        self._initial = module.clone()

    def pass_failed(self, run: PassRun, failure: ForgeError) -> Iterable[str]:
        if failure.code not in _DEFECTS or self._initial is None:
            return ()
        passes, module = self._smallest(run, failure)
        verify = " --verify-each" if failure.code == "FORGE-P003" else ""
        first_line = failure.diagnostics[0].message
        header = f"// RUN: forgec opt %s -p {shlex.quote(text_of(passes))}{verify}\n// {failure.code}: {first_line}\n"
        try:
            path = _write(self.folder or _default_folder(), run.name, header + ir_text(module, locations=True))
        except OSError as exc:
            return (f"no reproducer could be written: {exc}",)
        return (f"reproducer: {path}",)

    def _smallest(self, run: PassRun, failure: ForgeError) -> tuple[Sequence[ModulePass], ModuleOp]:
        assert self._initial is not None
        before, context = self._initial.clone(), run.context.clone()
        try:
            for earlier in self._passes[: run.index]:
                earlier.apply(context, before)
            alone = before.clone()
        except Exception:
            return self._passes[: run.index + 1], self._initial
        if failure.code == "FORGE-P004" or _fails(run, alone):
            return [run.pass_], before
        return self._passes[: run.index + 1], self._initial


def _fails(run: PassRun, module: ModuleOp) -> bool:
    try:
        run.pass_.apply(run.context.clone(), module)
    except Exception:
        return True
    return any(True for _ in broken_ops(module))


def _default_folder() -> Path:
    from platformdirs import user_cache_path

    return user_cache_path("forgec") / "reproducers"


def _write(folder: Path, pass_name: str, text: str) -> Path:
    """Writes the file under a temporary name and renames it, so that no half of it is ever seen."""
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{pass_name}-{digest}.mlir"
    descriptor, temporary = tempfile.mkstemp(dir=folder, prefix=f".{pass_name}-", suffix=".tmp")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return path

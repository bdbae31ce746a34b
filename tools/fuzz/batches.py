"""Runs cases in forked processes, so that one that kills its process is caught, named and does not end the run."""

from __future__ import annotations

import faulthandler
import json
import os
import resource
import select
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

Case: TypeAlias = "Callable[[int], Outcome]"

BATCH = 250
"""Cases of one process: a defect that shows later than its cause is found in the same batch."""


@dataclass(frozen=True)
class Outcome:
    """What became of a case. ``finding`` is the text of what must not happen, empty when all is well."""

    kind: str
    result: str
    finding: str = ""


@dataclass
class Summary:
    """Counts by kind and result, and the findings by case number."""

    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    findings: dict[int, Outcome] = field(default_factory=dict)

    def add(self, index: int, outcome: Outcome) -> None:
        self.counts[outcome.kind, outcome.result] += 1
        if outcome.finding:
            self.findings[index] = outcome


@dataclass(frozen=True)
class Limits:
    """Of one process: seconds for a case, and bytes of address space beyond what the parent has."""

    seconds: float = 20.0
    extra_bytes: int = 2 << 30


def run(
    indices: Sequence[int],
    case: Case,
    name_of: Callable[[int], str],
    scratch: Path,
    *,
    limits: Limits | None = None,
    timeout_is_finding: Callable[[str], bool] = lambda kind: True,
    progress: Callable[[int, Summary], None] = lambda done, summary: None,
) -> Summary:
    """Runs every case. ``name_of`` gives the kind of a case whose process died, which cannot tell it any more."""
    limits = limits or Limits()
    summary = Summary()
    position = 0
    while position < len(indices):
        batch = indices[position : position + BATCH]
        finished = 0
        log = scratch / "output.txt"
        for index, outcome in _child(batch, case, name_of, log, limits):
            if outcome.result == "out of time" and not timeout_is_finding(outcome.kind):
                outcome = Outcome(outcome.kind, outcome.result)
            summary.add(index, outcome)
            finished += 1
        position += finished
        progress(position, summary)
    return summary


def _child(
    batch: Sequence[int], case: Case, name_of: Callable[[int], str], log: Path, limits: Limits
) -> Iterator[tuple[int, Outcome]]:
    """Outcomes of the batch from one process; when it dies or hangs, the last one says so and the rest is left."""
    sys.stdout.flush()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _work(batch, case, writer, log, limits)
    os.close(writer)
    current = -1
    reason = ""
    done = 0
    try:
        for message in _messages(reader, limits.seconds):
            if isinstance(message, int):
                current = message
            else:
                done += 1
                yield current, Outcome(*message)
                current = -1
    except TimeoutError:
        os.kill(child, signal.SIGKILL)
        reason = "out of time"
    os.close(reader)
    _, status = os.waitpid(child, 0)
    if done == len(batch):
        if status:
            text = f"the process ended with status {status} after its cases{_tail(log)}"
            yield batch[-1], Outcome(name_of(batch[-1]), "died", text)
        return
    if current < 0:
        raise RuntimeError(f"a process of the fuzzer ended with status {status} between two cases{_tail(log)}")
    if not reason:
        reason = f"killed by {signal.Signals(os.WTERMSIG(status)).name}" if os.WIFSIGNALED(status) else "exited"
    yield current, Outcome(name_of(current), reason, f"{reason}{_tail(log)}")


def _messages(reader: int, seconds: float) -> Iterator[Any]:
    """What comes through the pipe, one JSON value in each line; ``TimeoutError`` when nothing comes for so long."""
    pending = b""
    while True:
        ready, _, _ = select.select([reader], [], [], seconds)
        if not ready:
            raise TimeoutError
        received = os.read(reader, 1 << 16)
        if not received:
            return
        *lines, pending = (pending + received).split(b"\n")
        yield from map(json.loads, lines)


def _work(batch: Sequence[int], case: Case, writer: int, log: Path, limits: Limits) -> NoReturn:
    """The life of a forked process. It leaves through ``_exit``, so that nothing of the parent runs twice."""
    status = 1
    try:
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(output, 1)
        os.dup2(output, 2)
        faulthandler.enable(sys.__stderr__ or 2)
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        memory = pages * resource.getpagesize() + limits.extra_bytes
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        for index in batch:
            os.write(writer, f"{index}\n".encode())
            outcome = case(index)
            os.write(writer, json.dumps([outcome.kind, outcome.result, outcome.finding[:4000]]).encode() + b"\n")
        status = 0
    finally:
        if sys.exc_info()[0] is not None:
            sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
        sys.stderr.flush()
        os._exit(status)


def _tail(log: Path) -> str:
    try:
        text = log.read_text(errors="replace")
    except OSError:
        return ""
    return f"\n{text[-3000:]}" if text else ""


class Ticker:
    """Says how far a long run is, at most every few seconds."""

    def __init__(self, total: int, seconds: float = 10.0) -> None:
        self.total = total
        self.seconds = seconds
        self.started = self.said = time.monotonic()

    def __call__(self, done: int, summary: Summary) -> None:
        now = time.monotonic()
        if now - self.said >= self.seconds:
            self.said = now
            rate = done / (now - self.started)
            print(f"  {done} of {self.total}, {rate:.0f} a second, {len(summary.findings)} findings", flush=True)

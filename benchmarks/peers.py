"""Latency beside other ways to run a model: eager PyTorch, torch.compile, ONNX Runtime and OpenVINO.

``python -m benchmarks peers [NAME …]``: names of the benchmarks' models, or how they begin. Each contender has a
process of its own, so that no pool of threads disturbs another one; the processes are asked in turn, round by round,
and sleep in between. A peer that is not installed, or that cannot take a model, is left out with the reason.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, Any

from benchmarks.measure import table
from benchmarks.models import CASES, Case

CONTENDERS = ("eager", "torch.compile", "ONNX Runtime", "OpenVINO", "forgec")
THREADS = (1, 2)
ROUNDS = 15
REST_SECONDS = 0.02
"""How long all rest after each call: pools that spin for a while stop meanwhile."""


@dataclass
class Contender:
    """A process that runs a model when it is asked."""

    name: str
    case: Case
    threads: int
    seconds: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": str(self.threads)}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.peers", "--serve", self.name, self.case.name, str(self.threads)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
        )  # fmt: skip

    def ask(self) -> float | None:
        """Seconds of one call; None when the process has ended."""
        sent, received = self.process.stdin, self.process.stdout
        assert sent is not None
        assert received is not None
        try:
            sent.write("run\n")
            sent.flush()
        except BrokenPipeError:
            return None
        line = received.readline()
        return float(line) if line else None

    def end(self) -> str:
        """Stop; the last line of what went wrong, if something did."""
        _, errors = self.process.communicate()
        return errors.strip().rpartition("\n")[2] if self.process.returncode else ""


def main(names: Sequence[str] = ("GPT-2", "Llama 12 layers, 1", "BERT base, 128", "ViT base")) -> None:
    """Print a table for each number of threads."""
    cases = [case for case in CASES if any(case.name.startswith(name) for name in names)]
    for threads in THREADS:
        rows: list[list[str]] = []
        reasons: list[str] = []
        for case in cases:
            found = compared(case, threads, reasons)
            best = found.get("forgec")
            rows.append([case.name, *(_cell(found.get(name), best) for name in CONTENDERS)])
        table(
            f"Latency in ms, {threads} thread{'s' * (threads > 1)}, and its ratio to forgec's",
            ["model", *CONTENDERS],
            rows,
        )
        for reason in reasons:
            print(reason)


def compared(case: Case, threads: int, reasons: list[str]) -> dict[str, list[float]]:
    """Seconds of all rounds, by contender; round by round each runs once."""
    contenders = [Contender(name, case, threads) for name in CONTENDERS]
    for contender in list(contenders):
        if contender.ask() is None:  # the first call warms up, and tells whether there is one
            contenders.remove(contender)
            reasons.append(f"{contender.name} without {case.name}: {contender.end()}")
    for _ in range(ROUNDS):
        for contender in contenders:
            time.sleep(REST_SECONDS)
            seconds = contender.ask()
            if seconds is not None:
                contender.seconds.append(seconds)
    for contender in contenders:
        contender.end()
    return {contender.name: contender.seconds for contender in contenders}


def _cell(seconds: list[float] | None, ours: list[float] | None) -> str:
    if not seconds or not ours:
        return "–"
    ratio = statistics.median(a / b for a, b in zip(seconds, ours, strict=True))
    return f"{statistics.median(seconds) * 1e3:.1f} ({ratio:.2f})"


# In the process of a contender
# ----------------------------------------------------------------------------------------------------------------------


def serve(name: str, case: Case, threads: int, requests: IO[str], answers: IO[str]) -> None:
    """Answer each line with the seconds of a call."""
    import torch

    torch.set_num_threads(threads)
    with torch.no_grad():
        call = MAKERS[name](case.build(), case, threads)
        call()
        for _ in requests:
            started = time.perf_counter()
            call()
            print(time.perf_counter() - started, file=answers, flush=True)


Call = Callable[[], Any]


def _eager(model: Any, case: Case, threads: int) -> Call:
    return lambda: model(*case.args, **case.kwargs)


def _inductor(model: Any, case: Case, threads: int) -> Call:
    import torch

    compiled = torch.compile(model)
    return lambda: compiled(*case.args, **case.kwargs)


def _forgec(model: Any, case: Case, threads: int) -> Call:
    import forgec

    compiled = forgec.compile(model, case.args, case.kwargs, target="cpu:host")
    return lambda: compiled(*case.args, **case.kwargs)


def _onnxruntime(model: Any, case: Case, threads: int) -> Call:
    import tempfile

    import onnxruntime  # type: ignore[import-not-found] - a peer that need not be installed
    import torch

    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/model.onnx"
        torch.onnx.export(model, case.args, path, kwargs=case.kwargs, dynamo=True, external_data=True)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    values = dict(zip((each.name for each in session.get_inputs()), (a.numpy() for a in case.args), strict=True))
    return lambda: session.run(None, values)


def _openvino(model: Any, case: Case, threads: int) -> Call:
    import openvino  # type: ignore[import-not-found] - a peer that need not be installed
    import torch

    class Fixed(torch.nn.Module):
        """The model with the keywords of the case: OpenVINO takes flags for inputs."""

        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *args: torch.Tensor) -> Any:
            return tuple(t for t in self.model(*args, **case.kwargs).to_tuple() if isinstance(t, torch.Tensor))

    program = torch.export.export(Fixed(), case.args)
    settings = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.compile_model(openvino.convert_model(program), "CPU", settings)
    arguments = [argument.numpy() for argument in case.args]
    return lambda: compiled(arguments)


MAKERS: Mapping[str, Callable[[Any, Case, int], Call]] = {
    "eager": _eager,
    "torch.compile": _inductor,
    "ONNX Runtime": _onnxruntime,
    "OpenVINO": _openvino,
    "forgec": _forgec,
}


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        _, _, own, wanted, count = sys.argv
        answers, sys.stdout = sys.stdout, sys.stderr  # what libraries print is no answer
        serve(own, next(case for case in CASES if case.name == wanted), int(count), sys.stdin, answers)
    else:
        main(sys.argv[1:])

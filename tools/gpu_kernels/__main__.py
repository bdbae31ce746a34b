"""Runs every kernel of many architectures on a GPU, and compares it with the interpreter::

    python -m tools.gpu_kernels [--dtypes f32,f16,bf16] [--jobs 14] [--out results.json] [NAME …]
    python -m tools.gpu_kernels --markdown results.json

Models are exported, optimized, lowered and bound for the device's architecture, and kernels compiled and interpreted,
in ``--jobs`` processes; one more process launches. The file is written every few seconds, so that a run that is ended
leaves what it has. ``--dry`` does all but launch, for ``--architecture``.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from importlib.metadata import version
from multiprocessing import active_children, get_context
from pathlib import Path
from typing import Any

from tools.gpu_kernels import report, work

ROWS = """
LlamaForCausalLM T5ForConditionalGeneration ViTModel WhisperForConditionalGeneration MixtralForCausalLM
MambaForCausalLM BertModel SwinModel GPT2LMHeadModel Gemma2ForCausalLM DeepseekV3ForCausalLM Mamba2ForCausalLM
ConvNextModel BartForConditionalGeneration Wav2Vec2Model DebertaV2Model CLIPModel GptOssForCausalLM
Qwen2MoeForCausalLM JambaForCausalLM ResNetForImageClassification Gemma3ForCausalLM Phi3ForCausalLM
FalconForCausalLM-alibi BloomForCausalLM GPTNeoXForCausalLM Qwen3ForCausalLM Olmo2ForCausalLM Cohere2ForCausalLM
StableLmForCausalLM DiffLlamaForCausalLM MptForCausalLM RecurrentGemmaForCausalLM Lfm2ForCausalLM RwkvForCausalLM
OlmoeForCausalLM GraniteMoeForCausalLM AlbertModel FNetModel ModernBertModel XLNetModel FunnelModel RoFormerModel
MPNetModel T5GemmaForConditionalGeneration MarianMTModel Dinov2Model DINOv3ViTModel BeitModel ViTMAEModel
SegformerForSemanticSegmentation EfficientNetModel DPTForDepthEstimation LevitModel PoolFormerModel HubertModel
Speech2TextForConditionalGeneration ASTModel DacModel PatchTSTModel DetrForObjectDetection SamVisionModel BlipModel
LayoutLMv3Model TrOCRForCausalLM
""".split()  # noqa: SIM905 - a list of strings would be four times as long
"""Decoders, experts, states, encoders, pairs, vision, speech; the first ones differ most."""
WRITE_SECONDS = 5.0
LAUNCH_SECONDS = 60.0


class Run:
    """The tasks that wait and that run, and what was found. Kernels come before models."""

    def __init__(self, options: argparse.Namespace, folder: str) -> None:
        self.options = options
        self.folder = folder
        self.started = time.monotonic()
        self.written = 0.0
        self.found: dict[str, Any] = {"rows": {}, "kernels": {}}
        self.kernels: dict[str, work.Kernel] = {}
        names = (options.names or ROWS)[: options.rows]
        forms = [False, True] if options.dynamic else [False]
        dtypes = options.dtypes.split(",")
        self.models = deque((n, d, form) for n in names for d in dtypes for form in forms if d == "f32" or not form)
        self.waiting: deque[work.Kernel] = deque()
        self.running: dict[Future[Any], Callable[[Future[Any]], None]] = {}
        self.pool = ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn"))
        self.device_pool = _single()

    def go(self) -> None:
        """Everything, until it is done or the time is over."""
        if self.options.dry:
            name, architecture = "no device", self.options.architecture
        else:
            name, architecture = self.device_pool.submit(work.device).result(LAUNCH_SECONDS * 2)
        versions = {package: version(package) for package in ("torch", "triton", "transformers")}
        self.found.update(device=name, architecture=architecture, jobs=self.options.jobs, **versions)
        while self.running or self.waiting or self.models:
            self._start(architecture)
            done, _ = wait(self.running, timeout=WRITE_SECONDS, return_when=FIRST_COMPLETED)
            for future in done:
                self.running.pop(future)(future)
            self._write()
            if time.monotonic() - self.started > self.options.seconds:
                print(f"the time is over: {len(self.models)} models, {len(self.waiting)} kernels wait", flush=True)
                break
        self.found["seconds"] = round(time.monotonic() - self.started, 1)
        self._write(now=True)
        for pool in (self.pool, self.device_pool):
            pool.shutdown(wait=False, cancel_futures=True)

    def _start(self, architecture: str) -> None:
        while len(self.running) < self.options.jobs + 2 and (self.waiting or self.models):
            if self.waiting:
                kernel = self.waiting.popleft()
                future = self.pool.submit(work.prepare, kernel, architecture, self.folder)
                self.running[future] = lambda done, kernel=kernel: self._prepared(kernel, done)
            else:
                model = self.models.popleft()
                name, dtype, dynamic = model
                future = self.pool.submit(work.lower, name, dtype, f"cuda:{architecture}", dynamic)
                self.running[future] = lambda done, model=model: self._lowered(model, done)

    def _lowered(self, model: tuple[str, str, bool], done: Future[work.Lowered]) -> None:
        name = f"{model[0]}/{model[1]}{'/dynamic' if model[2] else ''}"
        try:
            lowered = done.result()
        except Exception as reason:  # a model that this version of torch or transformers refuses
            self.found["rows"][name] = {"failure": _words(reason)}
            self._say(f"{name}: {_words(reason)[:200]}")
            return
        new = [kernel for kernel in lowered.kernels if kernel.key not in self.kernels]
        room = max(self.options.kernels - len(self.kernels), 0)
        for kernel in new[:room]:
            self.kernels[kernel.key] = kernel
            self.found["kernels"][kernel.key] = {
                "name": kernel.name, "kind": kernel.kind, "dtype": kernel.dtype, "model": name
            }  # fmt: skip
            self.waiting.append(kernel)
        keys = [kernel.key for kernel in lowered.kernels]
        self.found["rows"][name] = {"kernels": keys, "left": lowered.left, "seconds": round(lowered.seconds, 2)}
        self._say(f"{name}: {len(keys)} kernels, {len(new)} new, {lowered.seconds:.1f} s, left {lowered.left}")

    def _prepared(self, kernel: work.Kernel, done: Future[work.Prepared]) -> None:
        entry = self.found["kernels"][kernel.key]
        try:
            prepared = done.result()
        except Exception as reason:  # what the compiler refuses
            entry["failure"] = _words(reason)
            self._say(f"{kernel.name}: {entry['failure'][:300]}")
            return
        entry["compile_seconds"] = round(prepared.compile_seconds, 3)
        entry["interpret_seconds"] = round(prepared.interpret_seconds, 3)
        entry["spilled_bytes"] = prepared.compiled.spilled_bytes
        if not prepared.path:
            entry["failure"] = f"no inputs were found: {prepared.reason}"
            return
        if self.options.dry:
            entry["result"] = work.result(work.launch(kernel, prepared, dry=True))
            Path(prepared.path).unlink()
            return
        future = self.device_pool.submit(work.launch, kernel, prepared)
        self.running[future] = lambda finished: self._launched(kernel, prepared, finished)

    def _launched(self, kernel: work.Kernel, prepared: work.Prepared, done: Future[Any]) -> None:
        entry = self.found["kernels"][kernel.key]
        try:
            entry["result"] = work.result(done.result())
            Path(prepared.path).unlink()
        except Exception as reason:  # a fault of the kernel, after which the process can launch nothing more
            entry["failure"] = _words(reason)
            if isinstance(reason, BrokenProcessPool) or "CUDA" in str(reason) or "failed with" in str(reason):
                self.device_pool.shutdown(wait=False)
                self.device_pool = _single()
        if report.failure(entry):
            self._say(f"{kernel.name} ({kernel.dtype}): {report.failure(entry)[:300]}")

    def _say(self, words: str) -> None:
        ready = sum("result" in kernel or "failure" in kernel for kernel in self.found["kernels"].values())
        seconds = time.monotonic() - self.started
        print(f"[{seconds:5.0f} s, {ready}/{len(self.kernels)}, {len(self.models)} models] {words}", flush=True)

    def _write(self, *, now: bool = False) -> None:
        if now or time.monotonic() - self.written > WRITE_SECONDS:
            self.written = time.monotonic()
            part = self.options.out.with_suffix(".part")
            part.write_text(json.dumps(self.found, indent=1))
            part.replace(self.options.out)


def _single() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(1, mp_context=get_context("spawn"))


def _words(reason: Exception) -> str:
    told = str(reason) if isinstance(reason, work.Failed) else f"{type(reason).__name__}: {reason}"
    return told.replace("\n", " | ")[:600]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.gpu_kernels")
    parser.add_argument("names", nargs="*", metavar="NAME", help="architectures of tests/models; without, a choice")
    parser.add_argument("--dtypes", default="f32,f16,bf16")
    parser.add_argument("--dynamic", action="store_true", help="in float32 also for all shapes")
    parser.add_argument("--jobs", type=int, default=14)
    parser.add_argument("--rows", type=int, default=None, help="only the first of the architectures")
    parser.add_argument("--kernels", type=int, default=1 << 30, help="at most so many distinct ones")
    parser.add_argument("--seconds", type=float, default=450.0, help="end after this time")
    parser.add_argument("--out", type=Path, default=Path("gpu_kernels.json"))
    parser.add_argument("--dry", action="store_true", help="all but the launches")
    parser.add_argument("--architecture", default="sm_90a", help="with --dry")
    parser.add_argument("--markdown", type=Path, metavar="JSON", help="print the tables of a run for the documentation")
    options = parser.parse_args()
    if options.markdown:
        print(report.markdown(json.loads(options.markdown.read_text())), end="")
        return 0
    with tempfile.TemporaryDirectory(prefix="forgec-") as folder:
        run = Run(options, folder)
        run.go()
        print(report.summary(run.found), flush=True)
        for process in active_children():  # a kernel that does not end would keep this process
            process.kill()
    return int(any(report.failure(kernel) for kernel in run.found["kernels"].values()))


if __name__ == "__main__":
    sys.exit(main())

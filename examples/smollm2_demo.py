"""The demo: compile SmolLM2-135M-Instruct, load the artifacts in a new process, answer a prompt, compare with eager
PyTorch.

python examples/smollm2_demo.py [--folder DIR]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
PROMPT = "Give me three short tips for writing clear code."
ANSWER_TOKENS = 60
ROUNDS = 9


def compile_both(folder: Path) -> None:
    """Compile with the command line, as a user would."""
    for name in ("smollm2", "smollm2_decode"):
        command = [
            sys.executable,
            "-m",
            "forgec",
            "compile",
            str(HERE / f"{name}.py"),
            "-o",
            str(folder / f"{name}.forge"),
            "--json",
        ]
        report = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
        size = (folder / f"{name}.forge").stat().st_size
        seconds = report["seconds"]
        print(
            f"compiled {name}: {report['ops_captured']} ops -> {report['launches']} launches, "
            f"{report['buffers_naive']} buffers -> {report['buffers']}, {size / 1e6:.0f} MB; "
            f"torch.export {seconds['export']:.1f} s, forgec {seconds['total'] - seconds['export']:.1f} s"
        )


def answer(folder: Path) -> None:
    """In the new process: load both artifacts, answer the prompt, then measure against eager."""
    import torch

    import forgec

    sys.path.insert(0, str(HERE))
    import smollm2

    started = time.perf_counter()
    prefill = forgec.load(folder / "smollm2.forge")
    decode = forgec.load(folder / "smollm2_decode.forge")
    print(f"loaded both artifacts in {time.perf_counter() - started:.2f} s")

    tokens = smollm2.tokenizer()
    messages = [{"role": "user", "content": PROMPT}]
    ids = tokens.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)[
        "input_ids"
    ]
    session = decode.session()
    for token in ids[0]:
        logits = session(token.reshape(1, 1))
    print(f"\n> {PROMPT}\n")
    started = time.perf_counter()
    produced: list[int] = []
    while len(produced) < ANSWER_TOKENS:
        token = logits[:, -1:].argmax(-1)
        if int(token) == tokens.eos_token_id:
            break
        produced.append(int(token))
        logits = session(token)
    rate = len(produced) / (time.perf_counter() - started)
    print(tokens.decode(produced, skip_special_tokens=True), f"\n\n{rate:.1f} tokens/s\n")

    model = smollm2.load()
    with torch.no_grad():
        expected = model(ids, use_cache=False).logits
        difference = (prefill(ids, use_cache=False).logits - expected).abs().max()
        eager, compiled = interleaved(lambda: model(ids, use_cache=False), lambda: prefill(ids, use_cache=False))
    print(
        f"prompt of {ids.shape[1]} tokens: eager {eager * 1e3:.1f} ms, "
        f"compiled {compiled * 1e3:.1f} ms ({compiled / eager:.3f}x)"
    )
    print(f"largest difference of logits from eager: {difference:.2e}")


def interleaved(first: Callable[[], Any], second: Callable[[], Any]) -> tuple[float, float]:
    """Median seconds of two functions, called in turn."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(ROUNDS + 1):
        for function, record in zip((first, second), times, strict=True):
            started = time.perf_counter()
            function()
            record.append(time.perf_counter() - started)
    return statistics.median(times[0][1:]), statistics.median(times[1][1:])


def main() -> None:
    """Compile here, run in a new process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("build/demo"), help="where the artifacts go")
    parser.add_argument("--answer", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.answer:
        answer(options.folder)
        return
    options.folder.mkdir(parents=True, exist_ok=True)
    compile_both(options.folder)
    subprocess.run([sys.executable, __file__, "--answer", "--folder", str(options.folder)], check=True)


if __name__ == "__main__":
    main()

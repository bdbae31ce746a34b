"""Text from an artifact where there is no torch: numpy, ml_dtypes, tokenizers and forgec's runtime do.

    forgec compile examples/smollm2_decode.py --target cpu:host -o smollm2_decode.forge
    python examples/smollm2.py tokenizer.json

and then, on a machine with ``pip install 'forgec[runtime]' tokenizers``:

    python generate_without_torch.py smollm2_decode.forge tokenizer.json "Why is the sky blue?"

The artifact takes one token, int64 [1, 1], keeps its keys and values as state of the session, and returns logits [1, 1,
vocabulary]. The tokenizer is one that knows ChatML (``<|im_start|>``, ``<|im_end|>``), as SmolLM2's does.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy
from tokenizers import Tokenizer

from forgec.runtime import load

END = "<|im_end|>"


def generated(session: Any, prompt: list[int], end: int, most: int) -> Iterator[int]:
    """The likeliest tokens after those of the prompt, one by one."""
    for token in prompt:
        logits = session(numpy.array([[token]]))
    for _ in range(most):
        token = int(logits[0, -1].argmax())
        if token == end:
            return
        yield token
        logits = session(numpy.array([[token]]))


def main() -> None:
    """Answers one question."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("artifact", type=Path)
    parser.add_argument("tokenizer", type=Path, help="a tokenizer.json")
    parser.add_argument("prompt")
    parser.add_argument("--tokens", type=int, default=60, help="the most to generate")
    parser.add_argument("--threads", type=int, help="how many threads compute")
    options = parser.parse_args()

    session = load(options.artifact, threads=options.threads).session()
    tokens = Tokenizer.from_file(str(options.tokenizer))
    text = f"<|im_start|>user\n{options.prompt}{END}\n<|im_start|>assistant\n"
    prompt = tokens.encode(text, add_special_tokens=False).ids
    end = tokens.token_to_id(END)
    if end is None:
        raise SystemExit(f"the tokenizer does not know {END}")

    started = time.perf_counter()
    produced: list[int] = []
    shown = ""
    for token in generated(session, prompt, end, options.tokens):
        produced.append(token)
        text = tokens.decode(produced)
        if not text.endswith("\ufffd"):  # a character of several tokens is not whole yet
            print(text[len(shown) :], end="", flush=True)
            shown = text
    seconds = time.perf_counter() - started
    print(f"\n\n{len(prompt)} tokens read and {len(produced)} written in {seconds:.1f} s, torch imported: ", end="")
    print("yes" if "torch" in sys.modules else "no")


if __name__ == "__main__":
    main()

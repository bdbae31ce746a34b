"""Fidelity on real text with real weights: SmolLM2-135M-Instruct against float64, and KL(eager ‖ compiled)."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

import forgec
from benchmarks.measure import table

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "examples"))

TEXT = """It is a truth universally acknowledged, that a single man in possession of a good fortune, must be in want
of a wife.
However little known the feelings or views of such a man may be on his first entering a neighbourhood, this truth is
so well fixed in the minds of the surrounding families, that he is considered the rightful property of some one or
other of their daughters. My dear Mr.
Bennet, said his lady to him one day, have you heard that Netherfield Park is let at last? Mr. Bennet replied that he
had not. But it is, returned she; for Mrs. Long has just been here, and she told me all about it. Mr. Bennet made no
answer. Do you not want to know who has taken it? cried his wife impatiently. You want to tell me, and I have no
objection to hearing it. This was invitation enough.
Why, my dear, you must know, Mrs. Long says that Netherfield is taken by a young man of large fortune from the north
of England; that he came down on Monday in a chaise and four to see the place, and was so much delighted with it, that
he agreed with Mr. Morris immediately; that he is to take possession before Michaelmas, and some of his servants are
to be in the house by the end of next week."""
"""Jane Austen, Pride and Prejudice, 1813."""

TOKENS = 256


def main() -> None:
    """Print the table."""
    import smollm2

    ids = smollm2.tokenizer()(TEXT, return_tensors="pt").input_ids[:, :TOKENS]
    model = smollm2.load()
    compiled = forgec.compile(model, (ids,), {"use_cache": False})
    with torch.no_grad():
        eager = model(ids, use_cache=False).logits.double()
        ours = compiled(ids, use_cache=False).logits.double()
        exact = model.double()(ids, use_cache=False).logits
    kl = torch.nn.functional.kl_div(ours.log_softmax(-1), eager.log_softmax(-1), log_target=True, reduction="none").sum(
        -1
    )
    errors = [float((value - exact).abs().max()) for value in (eager, ours)]
    row = [
        f"{errors[0]:.2e}",
        f"{errors[1]:.2e}",
        f"{errors[1] / errors[0]:.3f}",
        f"{float((eager - ours).abs().max()):.2e}",
        f"{float(kl.max()):.2e}",
    ]
    header = ["eager − float64", "forgec − float64", "ratio", "forgec − eager", "KL(eager ‖ forgec), worst position"]
    table(
        f"Fidelity: SmolLM2-135M-Instruct, {ids.shape[1]} tokens, largest absolute differences of logits", header, [row]
    )


if __name__ == "__main__":
    main()

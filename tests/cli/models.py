"""Sources of small model files that the command's tests compile."""

STATIC = """\
import torch


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(8, 4)

    def forward(self, x, mask=None, *, scale=2.0):
        h = torch.nn.functional.gelu(self.linear(x))
        return {"logits": h * scale, "rest": (h.sum(-1), torch.special.i1(h))}


torch.manual_seed(0)
model = Model().eval()
example_inputs = (torch.randn(2, 3, 8),)
example_kwargs = {"scale": 3.0}
"""

DYNAMIC = """\
import torch

import forgec


class Counter(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("count", torch.zeros(1))

    def forward(self, x):
        self.count += 1
        return (torch.tanh(x) * torch.tanh(x + 1)).to(torch.bfloat16), self.count.clone()


model = Counter().eval()
example_inputs = (torch.randn(2, 5),)
dynamic_shapes = ({1: forgec.Dim("seq", min=2, max=64)},)
"""

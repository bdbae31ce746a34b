"""Models whose Python code changes things, for tests of what capture makes of that."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

import forgec

x34 = torch.arange(12.0).reshape(3, 4)

Forward = Callable[..., Any]


class Model(nn.Module):
    """Runs a function with itself and the arguments; attributes are given by name."""

    def __init__(self, function: Forward, **attributes: Any) -> None:
        super().__init__()
        self.function = function
        self.inner = nn.Linear(4, 4)
        self.register_buffer("kept", torch.zeros(3, 4))
        self.register_buffer("absent", None)
        for name, value in attributes.items():
            setattr(self, name, value)

    def forward(self, x: Any, **named: Any) -> Any:
        return self.function(self, x, **named)


def warned(model: Any, *args: Any, **kwargs: Any) -> list[str]:
    """The names in the C007 warnings of a compilation."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        compiled = forgec.compile(model, args, kwargs)
    assert len(caught) == bool(compiled.report.warnings)
    for warning in caught:
        assert warning.category is forgec.ForgecWarning
        assert warning.filename == __file__
        assert isinstance(warning.message, forgec.ForgecWarning)
        assert warning.message.diagnostics == compiled.report.warnings
    assert {w.code for w in compiled.report.warnings} <= {"FORGE-C007"}
    return [w.message.split(" when it runs")[0].split("; ")[0] for w in compiled.report.warnings]

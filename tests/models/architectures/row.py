"""What one line of the table of architectures says, and how a model and the inputs of a call come from it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest
import torch

import forgec

VOCABULARY = 100

Values = Literal["token", "one", "mask", "normal", "boolean", "zero", "box"]


@dataclass(frozen=True)
class Input:
    """One tensor argument. An extent that is a name (``"batch"``) may vary from call to call."""

    name: str
    shape: tuple[int | str, ...]
    values: Values = "normal"

    def tensor(self, sizes: Mapping[str, int], generator: torch.Generator) -> torch.Tensor:
        """The tensor of one call."""
        shape = [sizes[extent] if isinstance(extent, str) else extent for extent in self.shape]
        match self.values:
            case "token":
                return torch.randint(3, VOCABULARY, shape, generator=generator)
            case "one":
                return torch.ones(shape, dtype=torch.long)
            case "zero":
                return torch.zeros(shape, dtype=torch.long)
            case "boolean":
                return torch.rand(shape, generator=generator) < 0.3
            case "box":
                return torch.randint(0, 20, shape, generator=generator).cumsum(-1)
            case "mask":  # the last two places of every row but the first are padding
                mask = torch.ones(shape, dtype=torch.long)
                mask[1:, -2:] = 0
                return mask
            case "normal":
                return torch.randn(shape, generator=generator)


@dataclass(frozen=True, eq=False)
class Row:
    """One architecture.

    ``model`` is the class in transformers and ``settings`` its configuration. ``sizes`` gives the named extents of
    the example, ``others`` those of further calls of the one compiled program. ``fixed`` are names that torch.export
    refuses to let vary, each with words of its message ("" where another row has that test). With ``auto``,
    torch.export finds out which values an extent can have (``Dim.AUTO``), because it is not any number of a range.
    ``refused`` holds words of torch.export's message where it refuses the model itself. ``noise`` is that on the
    parameters: more of it for a model that chooses by scores, which otherwise tie within rounding.
    """

    model: str
    inputs: tuple[Input, ...]
    settings: Mapping[str, Any]
    options: Mapping[str, Any] = field(default_factory=dict)
    sizes: Mapping[str, int] = field(default_factory=dict)
    others: tuple[Mapping[str, int], ...] = ({"batch": 1, "length": 2}, {"batch": 3, "length": 33})
    fixed: Mapping[str, str] = field(default_factory=dict)
    auto: bool = False
    refused: str = ""
    noise: float = 0.02
    note: str = ""

    @property
    def name(self) -> str:
        """The name of the test."""
        return f"{self.model}-{self.note}" if self.note else self.model

    @property
    def example(self) -> dict[str, int]:
        """The named extents of the example."""
        return {"batch": 2, "length": 12, **self.sizes}

    def extents(self) -> set[str]:
        """The names of the extents."""
        return {extent for entry in self.inputs for extent in entry.shape if isinstance(extent, str)}

    def dims(self, names: Iterable[str]) -> dict[str, Any]:
        """What to declare for these extents: the range that the row's calls need."""
        calls = [self.example, *(self.example | call for call in self.others)]
        ranges = {name: sorted(call[name] for call in calls) for name in names}
        if self.auto:
            return dict.fromkeys(ranges, torch.export.Dim.AUTO)
        return {name: forgec.Dim(name, min=sizes[0], max=sizes[-1]) for name, sizes in ranges.items()}

    def build(self) -> Any:
        """The model. Noise on every parameter: a bias of zero would hide that it was lost."""
        transformers = pytest.importorskip("transformers")
        torch.manual_seed(0)
        kind = getattr(transformers, self.model)
        model = kind(kind.config_class(**self.settings)).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=self.noise)
        return model

    def arguments(self, sizes: Mapping[str, int] | None = None) -> dict[str, Any]:
        """The keyword arguments of a call with these extents."""
        generator = torch.Generator().manual_seed(1)
        every = {**self.example, **(sizes or {})}
        return {**{entry.name: entry.tensor(every, generator) for entry in self.inputs}, **self.options}

    def dynamic_shapes(self, dims: Mapping[str, Any]) -> dict[str, Any]:
        """torch.export's ``dynamic_shapes`` for what ``arguments`` gives."""
        shapes: dict[str, Any] = dict.fromkeys(self.options)
        for entry in self.inputs:
            axes = {axis: dims[extent] for axis, extent in enumerate(entry.shape) if extent in dims}
            shapes[entry.name] = axes or None
        return shapes


IDS = Input("input_ids", ("batch", "length"), "token")
MASK = Input("attention_mask", ("batch", "length"), "mask")
TARGETS = Input("decoder_input_ids", ("batch", "targets"), "token")
PIXELS = Input("pixel_values", ("batch", 3, 32, 32))
NO_CACHE = {"use_cache": False}
SPECIALIZED = "code specialized it to be a constant"
DATA_DEPENDENT = "Could not guard on data-dependent expression"
SWAPPED = "Couldn't swap Linear.weight"
CONSTRAINED = "Constraints violated"
SPECIAL_TOKENS = {"vocab_size": VOCABULARY, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}

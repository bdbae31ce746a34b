"""Whether an output of a kernel is right.

The reference computes in float64 all through, on the same inputs. That is fair where a kernel rounds once, at its end.
A fused kernel of half precision rounds wherever the IR says so, and that alone can be more than the limit; so what is
over it is compared with a second reference, which computes in the types of the IR, on the CPU: an output that is no
worse than twice that one's distance from float64, or that is that one up to the last digit, is ``as the IR rounds``.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch

from tests.backends.triton.cases import TOLERANCES

OK, ROUNDED, WRONG = "ok", "as the IR rounds", "wrong"


@dataclass(frozen=True)
class Judgement:
    """``error`` is the largest difference from float64, ``typed_error`` that of the second reference, and
    ``from_typed`` the one from the second reference, all of the largest absolute value of the output (of integers: the
    share of elements that differ). ``misplaced`` elements are NaN or infinite where they should not be, or the other
    way round; ``finite`` is the share of finite elements in the reference.
    """

    output: str
    dtype: str
    verdict: str
    error: float
    typed_error: float
    from_typed: float
    misplaced: int
    finite: float

    @property
    def rank(self) -> tuple[int, float]:
        """The larger, the worse."""
        return (OK, ROUNDED, WRONG).index(self.verdict), self.error

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def judge(output: str, found: torch.Tensor, exact: torch.Tensor, typed: torch.Tensor) -> Judgement:
    """``found`` and ``typed`` have the dtype of the output, ``exact`` is float64 where that is a float."""
    dtype = found.dtype
    name = str(dtype).removeprefix("torch.")
    if not dtype.is_floating_point:
        shares = [_share(found, exact), _share(typed, exact), _share(found, typed)]
        verdict = OK if shares[0] == 0 else ROUNDED if shares[2] == 0 else WRONG
        return Judgement(output, name, verdict, *shares, misplaced=0, finite=1.0)
    got, rounded, other = found.double(), exact.to(dtype).double(), typed.double()
    exact = exact.double()
    misplaced = int((~(_alike(got, rounded) | _alike(got, other))).sum())
    error = _difference(got, exact, rounded)
    typed_error = _difference(other, exact, rounded)
    from_typed = _difference(got, other, other)
    limit = TOLERANCES.get(dtype, 0.0)
    if misplaced:
        verdict = WRONG
    elif error <= limit:
        verdict = OK
    else:
        verdict = ROUNDED if error <= 2 * typed_error or from_typed <= 2 * limit else WRONG
    finite = float(rounded.isfinite().double().mean()) if rounded.numel() else 1.0
    return Judgement(output, name, verdict, error, typed_error, from_typed, misplaced, finite)


def _share(left: torch.Tensor, right: torch.Tensor) -> float:
    return float((left != right).double().mean()) if left.numel() else 0.0


def _alike(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Both finite, both NaN, or the same infinity."""
    return (left == right) | (left.isnan() & right.isnan()) | (left.isfinite() & right.isfinite())


def _difference(found: torch.Tensor, reference: torch.Tensor, rounded: torch.Tensor) -> float:
    """Over the elements that are finite in both; ``rounded`` says which are in the reference."""
    finite = found.isfinite() & rounded.isfinite()
    if not finite.any():
        return 0.0
    scale = float(reference[finite].abs().max())
    return float((found - reference)[finite].abs().max()) / (scale or 1.0)

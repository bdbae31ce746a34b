"""What ``forgec verify`` prints: the outputs, the errors by source line, the verdict."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from forgec.verify import Verification
    from forgec.verify.lines import LineError
    from forgec.verify.tolerance import Deviation
    from forgec.verify.verification import OutputError

SHOWN_LINES = 10
"""Source lines that are printed unless --lines says otherwise."""


def render(found: Verification, shown_lines: int) -> str:
    """The tables and the verdict."""
    against = "eager PyTorch" if found.against == "eager" else "the float64 interpreter (on the IR after all passes)"
    parts = [f"compiled program against {against}, {_tolerance(found)}:"]
    parts += [_output(output, found.against) for output in found.outputs]
    if found.problem:
        parts.append(f"  {found.problem}")
    parts += ["", *_lines(found, shown_lines)]
    if found.decisions:
        parts.append(
            f"{found.decisions} integers or booleans come out otherwise in float64; it went on with the program's"
        )
    parts += [f"{name}: {count} results could not be followed in float64" for name, count in found.not_followed.items()]
    parts += ["", verdict(found)]
    return "\n".join(parts)


def verdict(found: Verification) -> str:
    """One line: whether everything agrees, and if not, how the errors compare with eager PyTorch's own."""
    if found.agrees:
        count = len(found.outputs)
        return f"agrees: {count} tensor{'' if count == 1 else 's'} within the tolerance"
    if found.is_uncertain:
        return f"cannot tell: {', '.join(output.name for output in found.outputs if output.is_uncertain)}"
    wrong = [output.name for output in found.outputs if not output.compiled.agrees and not output.is_uncertain]
    return f"differs: {', '.join(wrong) or found.problem}"


def _tolerance(found: Verification) -> str:
    text = f"tolerance {found.tolerance.rtol:.3g} of the largest magnitude"
    text += f" plus {found.tolerance.atol:.3g}" if found.tolerance.atol else ""
    return text + (" plus rounding" if found.tolerance.measures_rounding else "")


def _output(output: OutputError, against: str) -> str:
    kind = "" if output.kind == "output" else f" ({output.kind})"
    mark = "ok   " if output.compiled.agrees else "?    " if output.is_uncertain else "WRONG"
    if output.compiled.problem:
        return f"  {mark} {output.name}{kind}: {output.compiled.problem}"
    lines = [
        f"  {mark} {output.name}{kind}: largest difference {_error(output.compiled)}, {_number(output.allowed)} allowed"
    ]
    if output.is_uncertain:
        lines.append(f"        cannot tell whether it is wrong: rounding alone may make {_number(output.rounding)}")
    if output.exact is not None and output.eager_exact is not None:
        lines.append(f"        against float64: compiled {_error(output.exact)}, eager {_error(output.eager_exact)}")
    if output.logits is not None:
        kl = f"mean {_number(output.logits.divergence)}, max {_number(output.logits.largest_divergence)}"
        lines.append(f"        as logits: largest difference {_number(output.logits.difference)}, ")
        lines[-1] += f"KL({'eager' if against == 'eager' else 'float64'} ‖ compiled) {kl}"
    return "\n".join(lines)


def _lines(found: Verification, shown: int) -> list[str]:
    rows = found.lines[:shown]
    if not rows:
        return ["no op computes with floating-point numbers"]
    header = ["added rel", "added abs", "total rel", "total abs", "op", "line of the model"]
    table = [header, *([*_errors(row.added), *_errors(row.total), row.op, _where(row)] for row in rows)]
    widths = [max(len(row[column]) for row in table) for column in range(len(header) - 1)]
    lines = ["largest error for each source line against float64 (added by its ops; in total), worst first:"]
    for row in table:
        padded = [cell.rjust(width) if i < 4 else cell.ljust(width) for i, (cell, width) in enumerate(zip(row, widths))]  # noqa: B905 - the last column has no width
        lines.append("  " + "  ".join([*padded, row[-1]]).rstrip())
    if len(found.lines) > shown:
        lines.append(f"  and {len(found.lines) - shown} more lines (--lines)")
    return lines


def _where(row: LineError) -> str:
    if not row.places:
        return "(no line)"
    last = row.places[-1]
    more = f" and {len(row.places) - 1} more" if len(row.places) > 1 else ""
    module = f" ({row.module})" if row.module else ""
    return f"{last.file}:{last.line}{f' in {last.function}' if last.function else ''}{module}{more}"


def _errors(error: Deviation) -> list[str]:
    return [_number(error.relative), _number(error.absolute)]


def _error(error: Deviation) -> str:
    return f"{_number(error.absolute)} ({_number(error.relative)} relative)"


def _number(value: float) -> str:
    return "0" if value == 0 else f"{value:.2e}" if math.isfinite(value) else str(value)

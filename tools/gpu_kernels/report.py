"""What a run found, as tables."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from statistics import median
from typing import Any

from tools.gpu_kernels.judgement import OK, ROUNDED

COMPILE_LIMIT_SECONDS = 0.6
LIMITS = "float32 1e-5, float16 5e-4, bfloat16 4e-3"


def groups(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One line for each kind of kernel and dtype."""
    by_kind: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for kernel in found["kernels"].values():
        by_kind[kernel["kind"], kernel["dtype"]].append(kernel)
    lines = []
    for (kind, dtype), kernels in sorted(by_kind.items()):
        results = [kernel["result"] for kernel in kernels if "result" in kernel]
        lines.append({
            "kind": kind, "dtype": dtype, "kernels": len(kernels),
            "ok": sum(result["verdict"] == OK for result in results),
            "rounded": sum(result["verdict"] == ROUNDED for result in results),
            "worst": max((result["error"] for result in results), default=None),
            "failed": [kernel["name"] for kernel in kernels if failure(kernel)],
            "not_run": sum(map(was_not_run, kernels)),
        })  # fmt: skip
    return lines


def failure(kernel: Mapping[str, Any]) -> str:
    """Why a kernel is not right, "" if it is, or was not run."""
    if "result" in kernel:
        result = kernel["result"]
        if result["verdict"] in (OK, ROUNDED):
            return ""
        return (
            f"{result['output']} ({result['dtype']}): error {result['error']:.2g}, {result['misplaced']} misplaced, "
            f"{result['typed_error']:.2g} in the types of the IR"
        )
    return kernel.get("failure", "")


def was_not_run(kernel: Mapping[str, Any]) -> bool:
    """True for what the end of the time has left."""
    return "result" not in kernel and "failure" not in kernel


def compile_seconds(found: Mapping[str, Any]) -> list[float]:
    """Of every kernel that was compiled, in ascending order."""
    return sorted(kernel["compile_seconds"] for kernel in found["kernels"].values() if "compile_seconds" in kernel)


def summary(found: Mapping[str, Any]) -> str:
    """The tables as text."""
    lines = [f"{'kind':32} {'dtype':5} {'kernels':>7} {'ok':>4} {'rounded':>7} {'not run':>7} {'worst':>8}  failed"]
    for group in groups(found):
        worst = "" if group["worst"] is None else f"{group['worst']:.1e}"
        lines.append(
            f"{group['kind'][:32]:32} {group['dtype']:5} {group['kernels']:7} {group['ok']:4} {group['rounded']:7} "
            f"{group['not_run']:7} {worst:>8}  {' '.join(group['failed'])}"
        )
    lines += ["", *(f"{name}: {row['failure'][:200]}" for name, row in found["rows"].items() if "failure" in row)]
    failed = {name: failure(kernel) for name, kernel in found["kernels"].items() if failure(kernel)}
    lines += [f"{found['kernels'][name]['name']}: {reason[:300]}" for name, reason in failed.items()]
    left: dict[str, int] = defaultdict(int)
    for row in found["rows"].values():
        for op, count in row.get("left", {}).items():
            left[op] += count
    lines += ["", f"ops without kernels: {dict(sorted(left.items()))}"]
    lines += [_compile_words(found), _total_words(found, len(failed))]
    return "\n".join(lines)


def _compile_words(found: Mapping[str, Any]) -> str:
    seconds = compile_seconds(found)
    if not seconds:
        return "nothing was compiled"
    slow = sum(second > COMPILE_LIMIT_SECONDS for second in seconds)
    return (
        f"compile seconds to cubin: median {median(seconds):.2f}, largest {seconds[-1]:.2f}, "
        f"{slow} of {len(seconds)} over {COMPILE_LIMIT_SECONDS}"
    )


def _total_words(found: Mapping[str, Any], failed: int) -> str:
    models = [row for row in found["rows"].values() if "failure" not in row]
    rest = sum(map(was_not_run, found["kernels"].values()))
    return f"{len(found['kernels'])} kernels of {len(models)} models: {failed} failed, {rest} not run"


def markdown(found: Mapping[str, Any]) -> str:
    """A section for the documentation."""
    dtypes = [dtype for dtype in ("f32", "f16", "bf16") if any(g["dtype"] == dtype for g in groups(found))]
    names = sorted({name.split("/")[0] for name, row in found["rows"].items() if "failure" not in row})
    refused = sorted({name.split("/")[0] for name, row in found["rows"].items() if "failure" in row})
    by_kind: dict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
    for group in groups(found):
        by_kind[group["kind"]][group["dtype"]] = group
    lines = [
        "## Kernels on a GPU",
        "",
        f"Every distinct kernel of {len(names)} architectures of the tests on one {found['device']} "
        f"(`python -m tools.gpu_kernels`, {found['architecture']}, torch {found['torch']}, Triton {found['triton']}), "
        "compiled as for an artifact,",
        "launched through the driver on random inputs with its outputs poisoned, and compared with the tile "
        "interpreter in float64:",
        f"largest error of any output, of its largest absolute value (limits: {LIMITS}). In brackets: how many kernels "
        "are over the limit because they",
        "round in between as the IR says, and agree with the interpreter when it rounds there too. "
        f"{_total_words(found, sum(bool(failure(kernel)) for kernel in found['kernels'].values()))}.",
        "",
        f"| kind | {' | '.join(dtypes)} | failed |",
        f"|---|{'---|' * len(dtypes)}---|",
    ]
    for kind, by_dtype in sorted(by_kind.items()):
        cells = [_cell(by_dtype.get(dtype)) for dtype in dtypes]
        failed = [name for group in by_dtype.values() for name in group["failed"]]
        lines.append(f"| {kind} | {' | '.join(cells)} | {', '.join(failed)} |")
    lines += ["", f"{_compile_words(found).capitalize()} ({found['jobs']} processes at once)."]
    lines += ["", f"Architectures: {_listed(names)}."]
    if refused:
        lines += ["", f"Not exported or lowered there: {_listed(refused)}."]
    return "\n".join(lines) + "\n"


def _cell(group: dict[str, Any] | None) -> str:
    if group is None:
        return ""
    worst = "" if group["worst"] is None else f"{group['worst']:.1e}"
    count = group["kernels"] - group["not_run"]
    return f"{count}: {worst}" + (f" ({group['rounded']})" if group["rounded"] else "")


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)

"""A program without its functions of layers, and without kernels: what tests count ops in."""

from __future__ import annotations

from xdsl.dialects.builtin import ModuleOp

from forgec.ir import context
from forgec.passes.manager import run_pipeline


def flat(module: ModuleOp, pipeline: str = "inline-layers") -> ModuleOp:
    """A copy in which every layer stands where it is called."""
    copy = module.clone()
    run_pipeline(copy, pipeline, context=context())
    return copy

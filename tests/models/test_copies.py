"""Standard layers whose heads are merged, repeated or gathered on the way: what is launched for each, and no copies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers
from torch import nn

import forgec
from forgec.ir.context import context
from forgec.ir.cost import call_counts, module_cost
from forgec.ir.ops.contraction import MatmulOp
from forgec.ir.ops.shape import CopyOp, ReshapeOp, is_free
from forgec.passes.manager import run_pipeline
from tests.capture.build import capture  # noqa: F401

WIDTH, HEADS = 32, 4

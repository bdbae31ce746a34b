"""The ATen backend: every op runs as torch's own operator, through its ``out=`` form wherever it has a true one."""

from forgec.backends.aten import composite, contraction, memory, pointwise, reduction, spatial
from forgec.backends.aten.table import LOWERINGS
from forgec.backends.base import Backend

__all__ = ["BACKEND", "composite", "contraction", "memory", "pointwise", "reduction", "spatial"]

BACKEND = Backend("aten", ("cpu:aten",), LOWERINGS, composite.covers)

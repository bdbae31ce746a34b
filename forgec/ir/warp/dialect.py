"""The dialects of scheduled kernels: groups and asynchronous ops (``warp``), channels between groups (``aref``)."""

from __future__ import annotations

from xdsl.ir import Dialect

from forgec.ir.warp import asynchronous, channels, kernel
from forgec.ir.warp.types import RingType, ScheduleAttr, TokenType

FAMILIES = (kernel, asynchronous, channels)

WARP = Dialect(
    "warp",
    [
        kernel.KernelOp,
        kernel.GroupOp,
        asynchronous.AsyncLoadOp,
        asynchronous.MmaOp,
        asynchronous.WaitOp,
        asynchronous.CopyOp,
        asynchronous.DoneOp,
        asynchronous.PoisonOp,
    ],
    [TokenType, ScheduleAttr],
)
AREF = Dialect("aref", [channels.CreateOp, channels.PutOp, channels.GetOp, channels.ConsumedOp], [RingType])

"""The levels of IR: the forge and plan dialects, symbolic types, locations and the reference interpreter."""

from forgec.ir.context import context

__all__ = ["context"]

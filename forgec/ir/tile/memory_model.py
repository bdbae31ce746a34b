"""Memory as the reference interpreter of kernels sees it: blocks in storages that know who read and who wrote what."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from forgec.diagnostics import ForgeError, error

NOBODY, SEVERAL = -1, -2
"""Instead of a program's number: no program, more than one."""


def fault(message: str) -> ForgeError:
    """What a kernel does that its definition forbids."""
    return error("FORGE-X001", message)


@dataclass
class Accesses:
    """Which program read, wrote or combined into each element of a storage; a conflict between two is an error."""

    readers: Any
    writers: Any
    combiners: Any
    combinations: Any  # the number of the combination

    @staticmethod
    def of(count: int) -> Accesses:
        """Nothing has happened to ``count`` elements."""
        import torch

        return Accesses(*(torch.full((count,), NOBODY, dtype=torch.int64) for _ in range(4)))

    def read(self, places: Any, program: int, name: str) -> None:
        """``program`` reads the elements at ``places``."""
        self._alone(self.writers, places, program, f"reads an element of {name} which {{other}} writes")
        self._alone(self.combiners, places, program, f"reads an element of {name} into which {{other}} combines")
        self._note(self.readers, places, program)

    def write(self, places: Any, program: int, name: str) -> None:
        """``program`` writes the elements at ``places``."""
        self._alone(self.writers, places, program, f"writes an element of {name} which {{other}} writes too")
        self._alone(self.readers, places, program, f"writes an element of {name} which {{other}} read")
        self._alone(self.combiners, places, program, f"writes an element of {name} into which {{other}} combines")
        self.writers[places] = program

    def combine(self, places: Any, program: int, name: str, combination: int) -> None:
        """``program`` combines into the elements at ``places``, atomically."""
        self._alone(self.writers, places, program, f"combines into an element of {name} which {{other}} writes")
        self._alone(self.readers, places, program, f"combines into an element of {name} which {{other}} read")
        before = self.combinations[places]
        if ((before != NOBODY) & (before != combination)).any():
            self._alone(self.combiners, places, program, f"combines into {name} otherwise than {{other}}")
        self.combinations[places] = combination
        self._note(self.combiners, places, program)

    def defined(self, places: Any) -> Any:
        """Which of the elements some program has written or combined into."""
        return (self.writers[places] != NOBODY) | (self.combiners[places] != NOBODY)

    @staticmethod
    def _alone(others: Any, places: Any, program: int, what: str) -> None:
        found = others[places]
        wrong = found[(found != NOBODY) & (found != program)]
        if wrong.numel():
            other = int(wrong.reshape(-1)[0])
            raise fault(f"program {program} {what.format(other=f'program {other}' if other >= 0 else 'others')}")

    @staticmethod
    def _note(programs: Any, places: Any, program: int) -> None:
        found = programs[places]
        found[(found != NOBODY) & (found != program)] = SEVERAL
        found[found == NOBODY] = program
        programs[places] = found


@dataclass
class Storage:
    """Elements in a row. ``elements`` is a tensor of rank 1; ``accesses`` is None where nothing may be written."""

    elements: Any
    accesses: Accesses | None = None


@dataclass
class Memory:
    """A block: an extent and a stride (elements) for each dimension, from ``offset`` on in a storage.

    ``source`` is the block that this one is a view of: what is accessed must be its memory as well. ``readable`` says
    that elements that no program has written have a value.
    """

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    name: str
    writable: bool = False
    readable: bool = True
    source: Memory | None = None
    _owned: Any = field(default=None, repr=False)

    def addresses(self, indices: Sequence[Any]) -> Any:
        """The places in the storage of elements by their indices (tensors that broadcast with one another)."""
        import torch

        found = torch.tensor(self.offset)
        for index, stride in zip(indices, self.strides, strict=True):
            found = found + index * stride
        return found

    def view(self, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> Memory:
        """The block that begins ``offset`` elements after this one's first element."""
        place = self.offset + offset
        return Memory(self.storage, place, shape, strides, self.name, self.writable, self.readable, source=self)

    def inside(self, indices: Sequence[Any], shape: tuple[int, ...]) -> Any:
        """Which elements of a tile of indices are within the extents."""
        import torch

        found = torch.ones(shape, dtype=torch.bool)
        for index, extent in zip(indices, self.shape, strict=True):
            found = found & (index >= 0) & (index < extent)
        return found

    def read(self, places: Any, program: int) -> Any:
        """The elements at places in the storage (a tensor of rank 1)."""
        self._check_owned(places, program, "reads")
        accesses = self.storage.accesses
        if accesses is not None:
            accesses.read(places, program, self.name)
            self._check_defined(accesses, places, program)
        return self.storage.elements[places]

    def write(self, places: Any, values: Any, program: int) -> None:
        """Write elements at places that are all different."""
        accesses = self._written(places, program)
        if places.unique().numel() != places.numel():
            raise fault(f"program {program} writes two elements of one tile to one element of {self.name}")
        accesses.write(places, program, self.name)
        self.storage.elements[places] = values

    def combine(self, places: Any, values: Any, program: int, how: str) -> None:
        """Combine elements with what is there: ``how`` is ``add``, ``max``, ``min``, or ``any``, which replaces it."""
        accesses = self._written(places, program)
        kinds = {"add": "sum", "max": "amax", "min": "amin", "any": ""}
        accesses.combine(places, program, self.name, list(kinds).index(how))
        if how == "any":
            self.storage.elements[places] = values
            return
        self._check_defined(accesses, places, program)
        self.storage.elements.scatter_reduce_(0, places, values, kinds[how], include_self=True)

    def _written(self, places: Any, program: int) -> Accesses:
        self._check_owned(places, program, "writes")
        if not self.writable or self.storage.accesses is None:
            raise fault(f"the kernel writes {self.name}, which is not among the parameters that it says it writes")
        return self.storage.accesses

    def _check_defined(self, accesses: Accesses, places: Any, program: int) -> None:
        if not self.readable and not accesses.defined(places).all():
            raise fault(f"program {program} reads what nothing has written of {self.name}, which it does not update")

    def _check_owned(self, places: Any, program: int, what: str) -> None:
        """Everything that is accessed lies in the blocks that this one is a view of."""
        inner = self.source  # this block's own extents have been looked at
        while inner is not None:
            count = inner.storage.elements.numel()
            wrong = (places < 0) | (places >= count)
            if not wrong.any():
                wrong = ~inner.owned[places]
            if wrong.any():
                place = int(places[wrong][0]) - inner.offset
                raise fault(f"program {program} {what} {place} elements after the beginning of {self.name}, outside it")
            inner = inner.source

    @property
    def owned(self) -> Any:
        """Which elements of the storage are this block's."""
        import torch

        if self._owned is None:
            owned = torch.zeros(self.storage.elements.numel(), dtype=torch.bool)
            if all(self.shape):
                places = self.addresses(grid(self.shape)).reshape(-1)
                owned[places[(places >= 0) & (places < owned.numel())]] = True
            self._owned = owned
        return self._owned


def grid(shape: Iterable[int]) -> list[Any]:
    """For each dimension the indices along it, so shaped that together they broadcast to ``shape``."""
    import torch

    extents = tuple(shape)
    return [
        torch.arange(extent).reshape(*(extent if other == axis else 1 for other in range(len(extents))))
        for axis, extent in enumerate(extents)
    ]

"""Weights in a mapped safetensors file: tensors over the file's pages, read when they are touched, never copied."""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from forgec.diagnostics import ForgeError, error
from forgec.runtime.dtypes import itemsize
from forgec.runtime.manifest import WeightsRecord
from forgec.runtime.safetensors_layout import (
    SafetensorsError,
    StoredTensor,
    declared,
    header_length,
    is_dense,
    read_header,
)
from forgec.runtime.static_extents import static

if TYPE_CHECKING:
    import numpy
    import torch

    from forgec.runtime.plan import TensorSpec


class MappedWeights:
    """The weights of an artifact. ``names`` are those of the stored tensors.

    The mapping is private (copy on write): nothing that is done to a tensor reaches the file. Opening checks size and
    header, FORGE-A003 (``code``: FORGE-A005 for a file beside the artifact); the tensors' bytes only ``verify`` does.
    """

    def __init__(
        self, mapping: mmap.mmap, start: int, record: WeightsRecord, where: str, code: str = "FORGE-A003"
    ) -> None:
        self._mapping = mapping
        self._start = start
        self._record = record
        self._where = where
        self._code = code
        with memoryview(mapping) as whole, whole[start : start + record.nbytes] as file:
            if len(file) != record.nbytes:
                raise self._damaged(f"{record.nbytes} bytes are expected")
            try:
                length = header_length(file)
                if hashlib.sha256(file[:length]).hexdigest() != record.header_sha256:
                    raise self._damaged("the header's hash differs from the manifest")
                data, self._tensors = read_header(file)
            except SafetensorsError as reason:
                raise self._damaged(str(reason)) from None
        self._data = start + data
        for alias, target in record.aliases.items():
            if target not in self._tensors or alias in self._tensors:
                raise self._damaged(f"alias '{alias[:80]}' names no stored tensor")

    def _damaged(self, reason: str) -> ForgeError:
        return error(self._code, f"the weights in {self._where} are damaged: {reason}")

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._tensors)

    @property
    def aliases(self) -> Mapping[str, str]:
        return self._record.aliases

    @property
    def nbytes(self) -> int:
        """Bytes of the file or member."""
        return self._record.nbytes

    def verify(self) -> None:
        """Hashes all bytes (about 0.6 s for a gigabyte, and reads every page). FORGE-A003 or FORGE-A005 when they
        differ."""
        with memoryview(self._mapping) as whole, whole[self._start : self._start + self._record.nbytes] as file:
            if hashlib.sha256(file).hexdigest() != self._record.sha256:
                raise self._damaged("the hash differs from the manifest")

    def find(self, name: str) -> StoredTensor:
        """Where the tensor stands. FORGE-A003 or FORGE-A005 when there is none of this name."""
        found = self._tensors.get(self._record.aliases.get(name, name))
        if found is None:
            raise self._damaged(f"there is no tensor '{name[:80]}'")
        return found

    def tensor(self, name: str, spec: TensorSpec, device: str) -> torch.Tensor:
        """See ``program.Weights.tensor``. FORGE-A003 or FORGE-A005 when dtype or shape differ from the plan's."""
        from forgec.runtime.arrays import to_tensor
        from forgec.runtime.tensor_library import torch_library

        array = self.array(name, spec)
        if not array.size:  # whose strides torch keeps, and numpy does not
            return torch_library().empty(spec.dtype, static(spec.shape), static(spec.strides), device)
        return to_tensor(array).to(device)

    def array(self, name: str, spec: TensorSpec) -> numpy.ndarray[Any, Any]:
        """See ``program.Weights.array``. FORGE-A003 or FORGE-A005 when dtype or shape differ from the plan's."""
        import numpy

        from forgec.runtime.plan import row_major
        from forgec.runtime.tensor_library import numpy_library

        found = self.find(name)
        if (found.dtype, found.shape) != declared(spec):
            raise self._damaged(
                f"'{name[:80]}' is {found.dtype}{list(found.shape)}, the plan has {spec.dtype}{spec.shape}"
            )
        library, shape, strides = numpy_library(), static(spec.shape), static(spec.strides)
        if found.begin == found.end:
            return library.empty(spec.dtype, shape, strides, "cpu")
        offset, size = self._data + found.begin, itemsize(spec.dtype)
        if offset % size:  # only in files that others wrote
            raise self._damaged(f"'{name[:80]}' is not aligned to its elements")
        flat = numpy.frombuffer(self._mapping, numpy.uint8, found.end - found.begin, offset)
        if is_dense(spec):
            return library.view(flat, spec.dtype, shape, strides, 0)
        # With gaps or repeated elements (stride 0): the file has the plain tensor, memory gets each element once.
        stored = library.view(flat, spec.dtype, shape, static(row_major(spec.shape)), 0)
        return library.laid_out(stored, spec.dtype, shape, strides)

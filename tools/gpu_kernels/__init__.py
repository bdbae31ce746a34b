"""The kernels of many architectures on a GPU: ``python -m tools.gpu_kernels --help``."""

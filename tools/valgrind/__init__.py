"""Machine code of kernels under valgrind's memcheck: ``python -m tools.valgrind``."""

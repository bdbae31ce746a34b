"""From tile kernels to Triton source that reads like a person's, and from there to machine code without a GPU.

``printer.print_kernel`` needs no Triton; only ``compile.compile_kernel`` imports it.
"""

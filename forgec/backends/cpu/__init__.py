"""The CPU backend: kernels as LLVM IR (xDSL's ``llvm`` dialect), compiled to object code by LLVM."""

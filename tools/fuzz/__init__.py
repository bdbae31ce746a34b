"""Fuzzers: hostile artifacts, IR text and model files. ``python -m tools.fuzz --help``."""

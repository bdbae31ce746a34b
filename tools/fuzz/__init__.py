"""Fuzzers: hostile artifacts, IR text and model files; random graphs for passes. ``python -m tools.fuzz --help``."""

"""Passes over the IR, one file each, and what runs them: registry, pipelines, pass manager and instruments."""

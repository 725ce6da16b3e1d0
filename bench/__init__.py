"""Benchmarks; run by ``make bench``, described in docs/benchmarks.rst."""

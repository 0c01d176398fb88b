"""Benchmarks: every figure that modelyard claims, beside its bar; `python -m benchmarks` runs them. Not part of the product."""

"""Faults and abuse: what a running data plane is put through, the figure that it must reach, and the proof that each check can fail.

`python -m tests.faults` runs them all (`make faults`); `tests/system/test_faults.py` runs each under pytest. A fault is one module with one `FAULT`.
"""

"""Runs a session in a loop and prints its runs per second: `python -m benchmarks.alone MODEL.onnx ARRAYS.npz SECONDS`.

What every server over this session is measured against: no socket, no codec, no check. The arrays are the graph's inputs by name.
"""

from __future__ import annotations

import sys
import time

import numpy as np
import onnxruntime


def main() -> None:
    """One session of one thread, as the reference servers open it."""
    model, arrays, seconds = sys.argv[1:]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    run = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"]).run
    with np.load(arrays, allow_pickle=False) as file:
        feed = {name: file[name] for name in file.files}
    run(None, feed)
    runs, began = 0, time.perf_counter()
    until = began + float(seconds)
    while (now := time.perf_counter()) < until:
        run(None, feed)
        runs += 1
    print(runs / (now - began))


if __name__ == "__main__":
    main()

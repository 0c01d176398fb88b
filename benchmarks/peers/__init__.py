"""Other Python model servers on the same forest, pickled and as an ONNX session, beside modelyard: `python -m benchmarks.peers`."""

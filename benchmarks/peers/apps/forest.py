"""The forest in a peer's own environment, as its users have it: pickled scikit-learn, or an ONNX session of one thread.

`PEER_MODEL` names the file; its ending says which. A pickle is what these servers load; it is the benchmark's own.
"""

import os

import numpy as np


def load():
    """A function from rows [n, 30] to (labels [n], probabilities [n, 2])."""
    path = os.environ["PEER_MODEL"]
    if path.endswith(".onnx"):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
        return lambda rows: session.run(None, {name: np.asarray(rows, np.float32)})
    import joblib

    forest = joblib.load(path)

    def predict(rows):
        probabilities = forest.predict_proba(rows)
        return forest.classes_[probabilities.argmax(axis=1)], probabilities.astype(np.float32)

    return predict


def tensors(outputs):
    """The two outputs in the form of the Open Inference Protocol V2."""
    return [
        {"name": name, "shape": list(array.shape), "datatype": datatype, "data": array.ravel().tolist()}
        for name, datatype, array in zip(("label", "probability"), ("INT64", "FP32"), outputs, strict=True)
    ]


def rows_of(message):
    """The rows of a V2 request that was read as JSON."""
    tensor = message["inputs"][0]
    return np.array(tensor["data"], np.float32).reshape(tensor["shape"])

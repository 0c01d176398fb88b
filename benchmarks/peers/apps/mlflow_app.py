"""MLflow: saves the forest as an MLflow model and serves it with `mlflow models serve`, one worker."""

import os
import sys
import tempfile
from pathlib import Path

import mlflow.pyfunc
import mlflow.sklearn


class Session(mlflow.pyfunc.PythonModel):
    """The ONNX session as MLflow's users wrap it."""

    def load_context(self, context):
        from forest import load

        self.run = load()

    def predict(self, context, model_input, params=None):
        return self.run(model_input)[1]


if __name__ == "__main__":
    path = os.environ["PEER_MODEL"]
    folder = Path(tempfile.mkdtemp()) / "model"
    if path.endswith(".onnx"):
        mlflow.pyfunc.save_model(folder, python_model=Session(), pip_requirements=[])
    else:
        import joblib

        given = {"serialization_format": "cloudpickle", "pyfunc_predict_fn": "predict_proba", "pip_requirements": []}
        mlflow.sklearn.save_model(joblib.load(path), folder, **given)
    command = str(Path(sys.executable).with_name("mlflow"))
    words = ["models", "serve", "-m", str(folder), "-p", os.environ["PEER_PORT"], "-h", "127.0.0.1", "--env-manager", "local", "--workers", "1"]
    os.execv(command, [command, *words])

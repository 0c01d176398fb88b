"""FastAPI by hand: one route, uvicorn with httptools and uvloop."""

import os

import uvicorn
from fastapi import FastAPI
from forest import load, rows_of, tensors
from pydantic import BaseModel


class Tensor(BaseModel):
    """One input."""

    name: str
    shape: list[int]
    datatype: str
    data: list[float]


class Message(BaseModel):
    """The body."""

    inputs: list[Tensor]


app = FastAPI()
predict = load()


@app.post("/")
def infer(message: Message):
    """Answer in the form of the Open Inference Protocol."""
    return {"model_name": "forest", "outputs": tensors(predict(rows_of(message.model_dump())))}


if __name__ == "__main__":
    uvicorn.run(app, port=int(os.environ["PEER_PORT"]), access_log=False, log_level="warning")

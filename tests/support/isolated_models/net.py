"""A PyTorch module that decides by its data, which no graph expresses, and the class that serves it: weights come as safetensors."""

from __future__ import annotations

import safetensors.torch
import torch
from torch import nn


class Net(nn.Module):
    """Two experts for a row, chosen by its sum."""

    def __init__(self) -> None:
        super().__init__()
        self.small = nn.Linear(4, 1)
        self.large = nn.Linear(4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.stack([self.large(row) if row.sum() > 2 else self.small(row) for row in x])[:, 0]


class Served:
    """What modelyard packages."""

    def load(self, files):
        self.net = Net()
        self.net.load_state_dict(safetensors.torch.load(files["weights"]))
        self.net.eval()

    def predict(self, inputs):
        with torch.inference_mode():
            return self.net(torch.from_numpy(inputs["X"])).numpy()

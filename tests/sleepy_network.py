"""A backbone of our own, `sleepy_network:network`: sums of pixels, slowly, that can be watched and can kill.

SLEEPY_SECONDS   how long a forward pass takes beside its arithmetic
SLEEPY_LOG       a file that gets a line for each forward pass: process id, and images that are not all zeros
SLEEPY_NAN       an image whose first pixel is of this red value has no finite features
SLEEPY_DEADLY    an image whose first pixel is of this red value kills the process that computes it
"""

import os
import signal
import time
from pathlib import Path

import torch
from torch import nn

SIDE = 8
PREPROCESS = {"resize": SIDE, "crop": SIDE, "mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0]}


class Sleepy(nn.Module):
    def __init__(self):
        super().__init__()
        self.weights = nn.Buffer(torch.arange(1.0, 3 * SIDE * SIDE + 1).reshape(-1, 1) * torch.arange(1.0, 5.0))

    def forward(self, images):
        if "SLEEPY_LOG" in os.environ:
            there = int((images.flatten(1) != 0).any(1).sum())
            with Path(os.environ["SLEEPY_LOG"]).open("a") as file:
                file.write(f"{os.getpid()} {there}\n")
        reds = (images[:, 0, 0, 0] * 255).round()
        if "SLEEPY_DEADLY" in os.environ and (reds == float(os.environ["SLEEPY_DEADLY"])).any():
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(float(os.environ.get("SLEEPY_SECONDS", 0)))
        features = images.flatten(1) @ self.weights
        features[reds == float(os.environ.get("SLEEPY_NAN", -1))] = float("nan")
        return features


def network():
    return Sleepy().eval(), PREPROCESS

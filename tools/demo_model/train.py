"""Training of the demo model: AdamW with warm-up and cosine decay, gradients clipped."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from tools.demo_model.network import Weights, initial_weights, loss_and_gradients
from tools.demo_model.sequences import Sequences

_LEARNING_RATE = 4e-3
_WARM_UP_STEPS = 100
_LAST_RATE_SHARE = 0.02
_BETAS = (0.9, 0.98)
_WEIGHT_DECAY = 0.01
_CLIP = 1.0
_BATCH = 16
# Folded into the last norm: answers stay the same, and sampling at temperature 1 follows them.
_SHARPNESS = 2.0

Report = Callable[[int, float], None]


def train(sequences: Sequences, rng: np.random.Generator, steps: int, report: Report) -> Weights:
    """Return trained weights; `report` is told each step and its loss."""
    weights = initial_weights(rng)
    optimiser = _AdamW()
    for step in range(steps):
        loss, gradients = loss_and_gradients(weights, sequences.batch(_BATCH))
        optimiser.apply(weights, _clipped(gradients), _rate(step, steps))
        report(step, loss)
    weights["model.norm.weight"] *= np.float32(_SHARPNESS)
    return weights


def _rate(step: int, steps: int) -> float:
    if step < _WARM_UP_STEPS:
        return _LEARNING_RATE * (step + 1) / _WARM_UP_STEPS
    done = (step - _WARM_UP_STEPS) / max(1, steps - _WARM_UP_STEPS)
    cosine = (1 + math.cos(math.pi * done)) / 2
    return _LEARNING_RATE * (_LAST_RATE_SHARE + (1 - _LAST_RATE_SHARE) * cosine)


def _clipped(gradients: Weights) -> Weights:
    norm = math.sqrt(sum(float(np.vdot(grad, grad)) for grad in gradients.values()))
    factor = np.float32(min(1.0, _CLIP / (norm + 1e-6)))
    return {name: grad * factor for name, grad in gradients.items()}


@dataclass
class _AdamW:
    """Loshchilov and Hutter, Decoupled Weight Decay Regularization, algorithm 2."""

    steps: int = 0
    means: Weights = field(default_factory=dict)
    squares: Weights = field(default_factory=dict)

    def apply(self, weights: Weights, gradients: Weights, rate: float) -> None:
        self.steps += 1
        for name, grad in gradients.items():
            self._apply_one(name, weights[name], grad, rate)

    def _apply_one(self, name: str, weight: np.ndarray, grad: np.ndarray, rate: float) -> None:
        first, second = _BETAS
        mean = self.means.setdefault(name, np.zeros_like(weight))
        square = self.squares.setdefault(name, np.zeros_like(weight))
        mean += np.float32(1 - first) * (grad - mean)
        square += np.float32(1 - second) * (grad * grad - square)
        corrected = square / np.float32(1 - second**self.steps)
        update = mean / np.float32(1 - first**self.steps) / (np.sqrt(corrected) + np.float32(1e-8))
        if weight.ndim > 1:
            weight *= np.float32(1 - rate * _WEIGHT_DECAY)
        weight -= np.float32(rate) * update

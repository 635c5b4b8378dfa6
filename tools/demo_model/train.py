"""Training of the demo model: AdamW with warm-up and cosine decay, gradients clipped."""

from collections.abc import Callable
from typing import Protocol

import mlx.core as mx
import mlx.optimizers as optim
import numpy as np
from mlx.nn.utils import value_and_grad

from tools.demo_model.network import Batch, Network

_LEARNING_RATE = 4e-3
_WARM_UP_STEPS = 100
_LAST_RATE_SHARE = 0.02
_BETAS = [0.9, 0.98]
_WEIGHT_DECAY = 0.01
_CLIP = 1.0
_BATCH = 16
# Folded into the last norm: answers stay the same, and sampling at temperature 1 follows them.
_SHARPNESS = 2.0

Report = Callable[[int, float], None]


class Batches(Protocol):
    """A source of training sequences."""

    def batch(self, size: int) -> Batch: ...


def train(sequences: Batches, rng: np.random.Generator, steps: int, report: Report) -> Network:
    """Returns a trained network; `report` gets the number and the loss of each step."""
    network = Network(rng)
    optimiser = _optimiser(steps)
    gradients_of = value_and_grad(network, network.loss)
    for step in range(steps):
        loss, gradients = gradients_of(sequences.batch(_BATCH))
        gradients, _ = optim.clip_grad_norm(gradients, _CLIP)
        optimiser.update(network, gradients)
        mx.eval(network.parameters(), optimiser.state)
        report(step, float(loss))
    network.model.norm.weight = network.model.norm.weight * _SHARPNESS
    return network


def _optimiser(steps: int) -> optim.Optimizer:
    """Weight decay is for matrices; norms are trained without it."""
    rate = optim.join_schedules(
        [
            optim.linear_schedule(_LEARNING_RATE / _WARM_UP_STEPS, _LEARNING_RATE, _WARM_UP_STEPS),
            optim.cosine_decay(
                _LEARNING_RATE,
                max(1, steps - _WARM_UP_STEPS),
                _LEARNING_RATE * _LAST_RATE_SHARE,
            ),
        ],
        [_WARM_UP_STEPS],
    )
    matrices, norms = (
        optim.AdamW(rate, _BETAS, weight_decay=decay, bias_correction=True)
        for decay in (_WEIGHT_DECAY, 0.0)
    )
    return optim.MultiOptimizer([matrices, norms], [lambda _, weight: weight.ndim > 1])

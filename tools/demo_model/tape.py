"""Reverse-mode differentiation for the few operations a Qwen3 decoder is made of.

NumPy rather than MLX: on Linux MLX multiplies matrices with the reference BLAS, some twenty
times slower than the one NumPy brings, and training is nothing but such products.

Invariants: an operation computes its value at once and records one backward step; `backward`
runs the steps in reverse order, each adding to the gradients of its inputs.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


class Node:
    """A value and the gradient of the loss with respect to it."""

    __slots__ = ("grad", "value")

    def __init__(self, value: Floats) -> None:
        self.value = value
        self.grad: Floats | None = None

    def add(self, grad: Floats) -> None:
        self.grad = grad if self.grad is None else self.grad + grad

    def taken(self) -> Floats:
        """The gradient, which every use of the node has added to by now."""
        if self.grad is None:
            raise ValueError("a node that the loss does not depend on has no gradient")
        return self.grad


class Tape:
    """Records operations; shapes are written batch B, length T, heads H, width D."""

    def __init__(self) -> None:
        self._steps: list[Callable[[], None]] = []

    def _record(self, value: Floats, step: Callable[[Floats], None]) -> Node:
        out = Node(value)
        self._steps.append(lambda: step(out.taken()))
        return out

    def backward(self, loss: Node) -> None:
        loss.add(np.ones_like(loss.value))
        for step in reversed(self._steps):
            step()
        self._steps.clear()

    def add(self, a: Node, b: Node) -> Node:
        def step(grad: Floats) -> None:
            a.add(grad)
            b.add(grad)

        return self._record(a.value + b.value, step)

    def reshape(self, x: Node, *shape: int) -> Node:
        return self._record(x.value.reshape(shape), lambda grad: x.add(grad.reshape(x.value.shape)))

    def rows(self, table: Node, index: Ints) -> Node:
        """Rows of a matrix by index: an embedding, or the positions that carry a loss."""

        def step(grad: Floats) -> None:
            total = np.zeros_like(table.value)
            np.add.at(total, index, grad)
            table.add(total)

        return self._record(table.value[index], step)

    def linear(self, x: Node, weight: Node) -> Node:
        """x @ weight.T for x of shape (N, in) and weight of shape (out, in)."""

        def step(grad: Floats) -> None:
            x.add(grad @ weight.value)
            weight.add(grad.T @ x.value)

        return self._record(x.value @ weight.value.T, step)

    def rms_norm(self, x: Node, weight: Node, eps: float) -> Node:
        width = x.value.shape[-1]
        scale = 1 / np.sqrt(np.mean(x.value**2, -1, keepdims=True) + np.float32(eps))
        unit = x.value * scale

        def step(grad: Floats) -> None:
            weight.add((grad * unit).reshape(-1, width).sum(0))
            inner = grad * weight.value
            x.add(scale * (inner - unit * np.mean(inner * unit, -1, keepdims=True)))

        return self._record(unit * weight.value, step)

    def rotate(self, x: Node, cos: Floats, sin: Floats) -> Node:
        """Rotary positions on (B, T, H, D), halves paired as mlx's `traditional=False` does."""

        def step(grad: Floats) -> None:
            x.add(_rotated(grad, cos, -sin))

        return self._record(_rotated(x.value, cos, sin), step)

    def attend(self, q: Node, k: Node, v: Node, bias: Floats) -> Node:
        """Attention of (B, T, H, D) queries to one shared key-value head (B, T, 1, D).

        `bias` (B, 1, T, T) is added to the scores; it holds the causal mask.
        """
        scale = np.float32(q.value.shape[-1] ** -0.5)
        queries = q.value.transpose(0, 2, 1, 3)
        keys, values = k.value.transpose(0, 2, 1, 3), v.value.transpose(0, 2, 1, 3)
        weights = _softmax(queries @ keys.swapaxes(-1, -2) * scale + bias)

        def step(grad: Floats) -> None:
            above = grad.transpose(0, 2, 1, 3)
            v.add((weights.swapaxes(-1, -2) @ above).sum(1)[:, :, None])
            scores: Floats = above @ values.swapaxes(-1, -2)
            scores -= np.einsum("bhts,bhts->bht", scores, weights)[..., None]
            scores *= weights
            scores *= scale
            q.add((scores @ keys).transpose(0, 2, 1, 3))
            k.add((scores.swapaxes(-1, -2) @ queries).sum(1)[:, :, None])

        return self._record((weights @ values).transpose(0, 2, 1, 3), step)

    def swiglu(self, gate: Node, up: Node) -> Node:
        sigmoid = _sigmoid(gate.value)
        silu = gate.value * sigmoid

        def step(grad: Floats) -> None:
            up.add(grad * silu)
            gate.add(grad * up.value * (sigmoid + silu * (1 - sigmoid)))

        return self._record(silu * up.value, step)

    def cross_entropy(self, logits: Node, targets: Ints) -> Node:
        """Mean negative log likelihood of (N,) targets under (N, V) logits."""
        likely = _softmax(logits.value)
        rows = np.arange(len(targets))
        loss = -np.log(likely[rows, targets] + np.float32(1e-30)).mean(dtype=np.float32)

        def step(grad: Floats) -> None:
            likely[rows, targets] -= 1
            logits.add(likely * (grad / np.float32(len(targets))))

        return self._record(np.asarray(loss, np.float32), step)


def _rotated(x: Floats, cos: Floats, sin: Floats) -> Floats:
    left, right = np.split(x, 2, -1)
    return np.concatenate([left * cos - right * sin, right * cos + left * sin], -1)


def _sigmoid(x: Floats) -> Floats:
    out: Floats = np.reciprocal(1 + np.exp(-x))
    return out


def _softmax(scores: Floats) -> Floats:
    scores = scores - scores.max(-1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= scores.sum(-1, keepdims=True)
    return scores

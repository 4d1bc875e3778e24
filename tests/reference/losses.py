"""Problems with gradients in closed form."""

import math
from collections.abc import Sequence

import numpy as np

from reference.server import Array


class Quadratic:
    """f_t(x) = (x - c_t)^T A (x - c_t) / 2 with A symmetric: the noise of SGD is in the centers c_t."""

    def __init__(self, h_matrix: Array, centers: Array):
        self.a = np.array(h_matrix, dtype=np.float64)
        self.centers = np.array(centers, dtype=np.float64)

    def loss_and_gradient(self, theta: Array, t: int) -> tuple[float, Array]:
        """f_t and its gradient A (theta - c_t)."""
        offset = theta - self.centers[t]
        return float(0.5 * offset @ self.a @ offset), self.a @ offset


class Softmax:
    """Softmax regression; theta = [W (num_features x num_classes) row-major, b (num_classes)]."""

    def __init__(self, features: Array, labels: Sequence[int], num_classes: int):
        self.features = np.array(features, dtype=np.float64)
        self.labels = [int(label) for label in labels]
        self.num_classes = num_classes

    def loss_and_gradient(self, theta_flat: Array, batch_indices: Sequence[int]) -> tuple[float, Array]:
        """Mean cross-entropy of the batch and its gradient: the means of x (p - e_y)^T and p - e_y."""
        split = self.features.shape[1] * self.num_classes
        weights, biases = theta_flat[:split].reshape(-1, self.num_classes), theta_flat[split:]
        loss, grad_weights, grad_biases = 0.0, np.zeros_like(weights), np.zeros_like(biases)
        for n in batch_indices:
            x, label = self.features[n], self.labels[n]
            logits = x @ weights + biases
            log_p = logits - logits.max()
            log_p = log_p - math.log(np.exp(log_p).sum())
            error = np.exp(log_p)
            error[label] -= 1.0
            loss -= log_p[label]
            grad_weights += np.outer(x, error)
            grad_biases += error
        grad = np.concatenate([grad_weights.ravel(), grad_biases])
        return float(loss / len(batch_indices)), grad / len(batch_indices)

"""Roots of polynomials with coefficients in descending order, means over circles, powers of matrices."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def largest_root(a: np.ndarray, b: np.ndarray, h: float) -> float:
    return float(max(np.abs(np.roots(a + h * b)), default=0.0))


def crossings(a: np.ndarray, b: np.ndarray, radius: float) -> np.ndarray:
    """All h > 0, sorted, at which a + h b has a root on the circle |z| = radius."""
    degree = len(a) - 1
    powers = radius ** np.arange(degree, -1.0, -1.0)
    a, b = a * powers, b * powers
    # At z = e^(i theta), Im(a conj(b)) = sum_k sine[k] sin(k theta), and h = -a / b is real where that is zero: at
    # theta = 0 and pi, and at the sign changes of the sum divided by sin(theta).
    lags = np.correlate(a, b, mode="full")
    sine = lags[:degree][::-1] - lags[degree + 1 :]
    k = np.arange(1, degree + 1)
    size = 16 * degree
    theta = np.pi * np.arange(size + 1) / size
    value = -np.fft.fft(np.append(0.0, sine), 2 * size).imag[: size + 1]
    value[1:-1] /= np.sin(theta[1:-1])
    value[[0, -1]] = k @ sine, -((-1.0) ** k * k) @ sine
    left = np.flatnonzero(np.sign(value[:-1]) != np.sign(value[1:]))
    root = theta[left] - value[left] * (np.pi / size) / (value[left + 1] - value[left])
    for _ in range(6):
        angles = np.outer(root, k)
        imaginary, slope = np.sin(angles) @ sine, np.cos(angles) @ (k * sine)
        sin = np.sin(root)
        derivative = slope - imaginary * np.cos(root) / np.where(sin == 0.0, np.inf, sin)  # sin (imaginary / sin)'
        root = root - imaginary / np.where(derivative == 0.0, np.inf, derivative)
        root = np.clip(root, theta[left], theta[left + 1])
    z = np.exp(1j * np.concatenate([root, [np.pi], [0.0] if radius < 1 else []]))  # at z = 1, h is 0
    with np.errstate(divide="ignore", invalid="ignore"):
        h = -(np.polyval(a, z) / np.polyval(b, z)).real
    return np.sort(h[np.isfinite(h) & (h > 0)])


def gains(numerator: np.ndarray, denominator: np.ndarray, h: float, momentum: float, rho: float) -> tuple[float, float]:
    """||G||^2 and Q(rho) ||G||^2 - ||Q G||^2 on the circle |z|^2 = rho, with points doubled until convergence."""
    scale = np.sqrt(rho)
    on_circle = lambda p: p * scale ** np.arange(len(p) - 1, -1.0, -1.0)
    total = np.convolve(np.poly([1.0, momentum]), denominator) + h * np.concatenate([[0.0], numerator, [0.0]])
    fresh, read, total = h * scale * on_circle(denominator), h * scale * on_circle(numerator), on_circle(total)
    at_rho = np.polyval(numerator, rho) / np.polyval(denominator, rho)
    before, size = np.inf, 64 * len(total)
    while True:
        fresh_square, read_square, total_square = (np.abs(np.fft.rfft(p, size)) ** 2 for p in (fresh, read, total))
        # The lower half of the circle mirrors the upper one.
        weights = np.append(1.0, np.full(size // 2, 2.0)) / size / total_square
        weights[-1] /= 2
        response, feedback = weights @ fresh_square, weights @ (at_rho * fresh_square - read_square)
        if abs(response - before) <= 1e-13 * response or size >= 2**18:
            return float(response), max(float(feedback), 1e-300)  # positive up to rounding
        before, size = response, 2 * size


def powers(matrix: np.ndarray, start: np.ndarray, steps: int, constant: np.ndarray | float = 0.0) -> np.ndarray:
    """The first entry of y, from `start` through `steps` applications of y <- matrix y + constant."""
    path, y = [start[0]], start
    for _ in range(steps):
        y = matrix @ y + constant
        path.append(y[0])
    return np.array(path)


def spectral_radius(matrix: np.ndarray) -> float:
    return float(np.abs(np.linalg.eigvals(matrix)).max())


def zero(function: Callable[[float], float], low: float, high: float) -> float:
    """The point between two others at which a function changes sign, to 12 digits."""
    from scipy import optimize

    return optimize.root_scalar(function, bracket=(low, high), xtol=1e-300, rtol=1e-12).root

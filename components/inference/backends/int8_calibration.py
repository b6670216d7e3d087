"""Scales of static int8 quantization: SmoothQuant with a strength for each layer, and bias correction.

A matmul of 8-bit activations and weights has one scale for all its input, so that channels far larger than the others
leave few steps for these. SmoothQuant divides channel c of the input by s[c] and multiplies the weights' column by it:

    s[c] = max|x[c]| ** strength / max|w[c]| ** (1 - strength)

The strength that is best differs between layers (MiniLM-L6: 0.5 to 0.95). It is chosen by the error of the layer's
output on sampled tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Floats = np.ndarray[Any, np.dtype[np.float32]]
STRENGTHS = (0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
LEVELS = 255
SMALLEST = 1e-5


@dataclass
class LayerInput:
    """Input of a layer over the calibration rows: bounds by channel [in], and sampled tokens [n, in]."""

    low: Floats = field(default_factory=lambda: np.zeros(1, np.float32))
    high: Floats = field(default_factory=lambda: np.zeros(1, np.float32))
    samples: list[Floats] = field(default_factory=list)
    _rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))

    def add(self, states: Floats, few: int) -> None:
        """Add the states [L, in] of a row, and keep `few` of its tokens."""
        self.low = np.minimum(self.low, states.min(axis=0))
        self.high = np.maximum(self.high, states.max(axis=0))
        self.samples.append(states[self._rng.integers(0, len(states), few)])


@dataclass(frozen=True)
class LayerWeights:
    """Quantized weights: values int8 [out, in], scales [out, 1], mean error of the output [out]."""

    values: np.ndarray[Any, np.dtype[np.int8]]
    scales: Floats
    error: Floats


@dataclass(frozen=True)
class LayerScales:
    """Scales of matmuls with a common input.

    error: squared error of the outputs without its mean, as a share of their variance. smoothing: divisors of the input
    [in]. low, high: bounds of the 256 steps of the input, after the division.
    """

    error: float
    smoothing: Floats
    low: float
    high: float
    weights: list[LayerWeights]


def calibrate(states: LayerInput, weights: Sequence[Floats]) -> LayerScales:
    """Choose the scales of matmuls with a common input. weights: float32 [out, in] each."""
    tokens = np.concatenate(states.samples)
    exact = [tokens @ each.T for each in weights]
    found = [_scales(states, tokens, weights, exact, strength) for strength in STRENGTHS]
    return min(found, key=lambda scales: scales.error)


def _scales(
    states: LayerInput, tokens: Floats, weights: Sequence[Floats], exact: Sequence[Floats], strength: float
) -> LayerScales:
    """Return the scales at this strength. exact: outputs [n, out] of each matmul."""
    largest = np.maximum(np.maximum(-states.low, states.high), SMALLEST)
    column = np.maximum(np.max([np.abs(each).max(axis=0) for each in weights], axis=0), SMALLEST)
    smoothing = np.maximum(largest**strength / column ** (1 - strength), SMALLEST).astype(np.float32)
    low, high = _bounds(float((states.low / smoothing).min()), float((states.high / smoothing).max()))
    step = (high - low) / LEVELS
    rounded = (np.clip(np.round((tokens / smoothing - low) / step), 0, LEVELS) * step + low).astype(np.float32)
    total, variance, layers = 0.0, SMALLEST, []
    for each, wanted in zip(weights, exact, strict=True):
        values, scales = _rounded(each * smoothing)
        difference = rounded @ (values * scales).T - wanted
        mean = difference.mean(axis=0)
        total += float(((difference - mean) ** 2).sum())
        variance += float(((wanted - wanted.mean(axis=0)) ** 2).sum())
        layers.append(LayerWeights(values, scales, mean))
    return LayerScales(total / variance, smoothing, low, high, layers)


def _bounds(low: float, high: float) -> tuple[float, float]:
    """Return bounds of which zero is a step."""
    step = max(high - low, SMALLEST) / LEVELS
    zero = round(-low / step)
    return -zero * step, (LEVELS - zero) * step


def _rounded(weights: Floats) -> tuple[np.ndarray[Any, np.dtype[np.int8]], Floats]:
    """Round weights [out, in] to int8 with a scale for each output."""
    scales = np.maximum(np.abs(weights).max(axis=1, keepdims=True) / 127, 1e-12).astype(np.float32)
    return np.round(weights / scales).astype(np.int8), scales

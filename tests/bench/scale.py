"""A model of what many GPUs would give: `python -m tests.bench.scale` prints the table that docs/benchmarks.md quotes.

Nothing here is measured. Compute: 6 FLOPs a weight and token (Kaplan et al., 2020) at 40% of an H100's 989 TFLOP/s in
bf16. Exchange: within a node of 8, 450 GB/s a GPU and direction over NVLink; between nodes one 400 Gb/s card a GPU; 80%
of either is had; 5 us a hop. Whole models reduce 4-byte gradients, first within nodes, then across, while the backward
pass (2/3 of the time) goes on. Sliced models gather 2-byte weights twice and reduce once, while all of it goes on.
"""

from __future__ import annotations

from dataclasses import dataclass

FLOPS = 989e12 * 0.40
INSIDE, BETWEEN = 450e9 * 0.8, 50e9 * 0.8
HOP = 5e-6


@dataclass(frozen=True)
class Case:
    """weights: those in matrices; tokens: a step and GPU."""

    name: str
    weights: float
    tokens: int
    sliced: bool = False


CASES = (
    Case("MiniLM-L6, 2,048 tokens", 10.6e6, 2_048),
    Case("MiniLM-L6, 65,536 tokens", 10.6e6, 65_536),
    Case("BERT-base, 32,768 tokens", 86e6, 32_768),
    Case("7B sliced, 8,192 tokens", 6.7e9, 8_192, sliced=True),
)


def compute(case: Case) -> float:
    """Seconds of a GPU's own work in a step."""
    return 6 * case.weights * case.tokens / FLOPS


def exchange(case: Case, gpus: int) -> float:
    """Seconds of exchange in a step: a ring within each node, and one across nodes for an eighth each."""
    size = case.weights * (2 if case.sliced else 4)
    inside, nodes = min(gpus, 8), max(1, gpus // 8)
    reduce = 2 * (inside - 1) / inside * size / INSIDE
    reduce += 2 * (nodes - 1) / nodes * size / inside / BETWEEN + 2 * (nodes - 1) * HOP
    return reduce * 1.5 if case.sliced else reduce


def efficiency(case: Case, gpus: int) -> float:
    """Share of the time in which the GPUs compute."""
    own = compute(case)
    hidden = own if case.sliced else own * 2 / 3
    return own / (own + max(0.0, exchange(case, gpus) - hidden))


def main() -> None:
    print("| model and step of a GPU | compute, ms | exchange at 8, 64, 512 GPUs, ms | efficiency |")
    print("| --- | ---: | ---: | ---: |")
    for case in CASES:
        times = ", ".join(f"{exchange(case, gpus) * 1e3:.1f}" for gpus in (8, 64, 512))
        shares = ", ".join(f"{efficiency(case, gpus):.2f}" for gpus in (8, 64, 512))
        print(f"| {case.name} | {compute(case) * 1e3:.1f} | {times} | {shares} |")


if __name__ == "__main__":
    main()

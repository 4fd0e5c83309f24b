"""The fastest matrix product that this machine shows now, in GFLOP/s: python gemm.py fp32|bf16."""

import sys
import time

import torch

SHAPES = ((512, 576, 1536), (1024, 576, 1536), (1024, 1536, 576), (1024, 1024, 1024))
"""Tokens, inputs, outputs: those of a training step, and a square for comparison."""
SECONDS = 0.5


def main() -> None:
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[sys.argv[1]]
    best = 0.0
    for tokens, inputs, outputs in SHAPES:
        rows, weight = torch.randn(tokens, inputs).to(dtype), torch.randn(outputs, inputs).to(dtype)
        until = time.perf_counter() + SECONDS
        while (start := time.perf_counter()) < until:
            torch.nn.functional.linear(rows, weight)
            rate = 2 * tokens * inputs * outputs / (time.perf_counter() - start)
            best = max(best, rate)
    print(best / 1e9)


if __name__ == "__main__":
    main()

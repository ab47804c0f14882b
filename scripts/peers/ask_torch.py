"""Times PyTorch's depthwise convolution, channels last: the answer to `scripts/benchmark_kernels.py`."""

import json
import sys
import time

import torch
from torch.nn.functional import conv2d


def seconds(call, spend_s):
    """The lower quartile of several calls, after two that warm up."""
    call(), call()
    spent = []
    while sum(spent) < spend_s or len(spent) < 5:
        began = time.perf_counter()
        call()
        spent.append(time.perf_counter() - began)
    return sorted(spent)[len(spent) // 4]


def main():
    """Read the shapes, print seconds of each: forward, forward and both gradients."""
    question = json.load(sys.stdin)
    torch.set_num_threads(question["threads"])
    found = []
    for batch, size, channels, kernel, stride, heads in question["shapes"]:
        x = torch.randn(batch, channels, size, size).to(memory_format=torch.channels_last).requires_grad_()
        w = torch.randn(channels * heads, 1, kernel, kernel).to(memory_format=torch.channels_last).requires_grad_()

        def forward(x=x, w=w, stride=stride, kernel=kernel, heads=heads, channels=channels):
            y = conv2d(x, w, None, stride, kernel // 2, groups=channels)
            return y if heads == 1 else y.unflatten(1, (channels, heads)).amax(2)

        g = torch.randn_like(forward()).to(memory_format=torch.channels_last)

        def alone(forward=forward):
            with torch.no_grad():
                forward()

        def with_gradients(forward=forward, x=x, w=w, g=g):
            x.grad = w.grad = None
            forward().backward(g)

        found.append([seconds(call, question["spend_s"]) for call in (alone, with_gradients)])
    print(json.dumps({"versions": [f"torch {torch.__version__}"], "seconds": found}))


main()

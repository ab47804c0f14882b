"""Times PyTorch's depthwise convolution, channels last: the answer to `scripts/benchmark_kernels.py`."""

import json
import sys
from functools import reduce

import torch
from timing import seconds
from torch.nn.functional import conv2d


def main():
    """Read the shapes, print seconds of each: forward, forward and both gradients."""
    question = json.load(sys.stdin)
    torch.set_num_threads(question["threads"])
    found = []
    for batch, size, channels, kernel, stride, heads in question["shapes"]:
        x = torch.randn(batch, channels, size, size).to(memory_format=torch.channels_last).requires_grad_()
        shape = (channels, 1, kernel, kernel)
        filters = [torch.randn(shape).to(memory_format=torch.channels_last).requires_grad_() for _ in range(heads)]

        # head by head: one convolution of all heads and `amax` over them takes twice as long forward
        def forward(x=x, filters=filters, stride=stride, kernel=kernel, channels=channels):
            return reduce(torch.maximum, [conv2d(x, w, None, stride, kernel // 2, groups=channels) for w in filters])

        g = torch.randn_like(forward()).to(memory_format=torch.channels_last)

        def alone(forward=forward):
            with torch.no_grad():
                forward()

        def with_gradients(forward=forward, x=x, filters=filters, g=g):
            for leaf in (x, *filters):
                leaf.grad = None
            forward().backward(g)

        found.append([seconds(call, question["spend_s"]) for call in (alone, with_gradients)])
    print(json.dumps({"versions": [f"torch {torch.__version__}"], "seconds": found}))


main()

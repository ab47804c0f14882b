"""NNI: operations of a published network and of its ProxylessNAS space, and the seconds that counting takes.

    {"samples": count, "rounds": count}
    -> {"network_macs", "network_s", "space_s", "sample_s", "samples": [[genes, macs], ...]}

`network_s` is its counter for a finished network, which runs it once; `space_s` its profiler's formula for a whole
space; `sample_s` that formula for one network of it. `genes` maps NNI's labels to the values chosen.
"""

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from nni.compression.utils.counter import count_flops_params
from nni.nas.hub.pytorch import ProxylessNAS
from nni.nas.profiler.pytorch.flops import FlopsProfiler


def timed(call: Callable[[], Any], rounds: int = 1) -> tuple[Any, float]:
    seconds = []
    for _ in range(rounds):
        began, began_cpu = time.perf_counter(), time.process_time()
        result = call()
        seconds.append(min(time.perf_counter() - began, time.process_time() - began_cpu))
    return result, min(seconds)


question = json.load(sys.stdin)
torch.set_num_threads(1)  # so that seconds of the processor are not those of two
images = torch.randn(1, 3, 224, 224)
network = ProxylessNAS.load_searched_model("proxyless-mobile", pretrained=False)
count_flops_params(network, images, verbose=False)
(network_macs, *_), network_s = timed(lambda: count_flops_params(network, images, verbose=False), question["rounds"])

only_macs = {"count_bias": False, "count_normalization": False, "count_activation": False}
space = ProxylessNAS()
profiler, space_s = timed(lambda: FlopsProfiler(space, images, **only_macs))
samples, sample_s = [], float("inf")
for position in range(question["samples"]):
    genes: dict[str, Any] = {}
    space.random(genes, random_state=np.random.RandomState(position))
    macs, seconds = timed(lambda genes=genes: profiler.profile(genes), question["rounds"])
    samples.append([genes, macs])
    sample_s = min(sample_s, seconds)
print(
    json.dumps(
        {
            "network_macs": network_macs,
            "network_s": network_s,
            "space_s": space_s,
            "sample_s": sample_s,
            "samples": samples,
        }
    )
)

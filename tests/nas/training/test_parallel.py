"""Training on several devices gives the losses of one.

Devices are forced by a flag that a process reads once; one process with the most of them trains on fewer as well.
"""

import json
import os
import subprocess
import sys

import jax
import pytest

from hw_models.errors import InputError
from nas.training.parallel import spread
from nas.training.recipe import Recipe
from search_spaces.kernels.depthwise import select

# convolutions without depthwise compile quickly; `tiny` has depthwise ones
SCRIPT = """
import functools, json, sys
import jax, numpy as np
from hw_models.errors import InputError
from nas.data import split
from nas.data_source import load
from nas.evaluators import supernet
from nas.training import parallel, standalone
from nas.training.recipe import Recipe
from nas.training.standalone import Images, train
from search_spaces.blocks.classifier import Classifier
from search_spaces.blocks.conv_norm import ConvNorm
from search_spaces.blocks.residual import Residual
from search_spaces.choice import Choice
from search_spaces.space import SearchSpace, Stage
from search_spaces.spaces import tiny

stages = (Stage(Residual(Choice(1, 3)), Choice(4, 6)),)
small = SearchSpace("small", 8, 1, 10, Stage(ConvNorm(), 8, stride=2), stages, Classifier())
depthwise, numbers = sys.argv[2], json.loads(sys.argv[3])
# where heads compete rounding grows from step to step: from 1e-7 of the loss after 4 steps to 1e-4 after 8
space, rounds, count = (tiny.space(), 1, 128) if sys.argv[1] == "tiny" else (small, 2, 256)
splits = split(load("digits"), 200, 0, count)
options = {"batch": 32, "epochs": rounds, "calibration": 100, "depthwise": depthwise, "learning_rate": 0.05}

def trained_on(devices):
    for module in (standalone, supernet):
        module.spread = functools.partial(parallel.spread, devices=devices)
    judge = supernet.evaluator(
        space, data=splits, paths="sandwich[random=1,distillation=0.5]", accumulate=2, mixup=0.2, ema=0.9, **options
    )
    found, state, losses = {}, judge.init(jax.random.key(0)), []
    for round in range(judge.rounds):
        state, metrics = judge.train(jax.random.fold_in(jax.random.key(1), round), state)
        losses.append(metrics["loss"])
    found["supernet"] = losses
    found["spread"] = len(jax.tree.leaves(state.average)[0].sharding.device_set)
    found["error"] = float(judge.evaluate(jax.random.key(2), state, [[0] * space.num_decisions], [0]).error[0])
    images, losses = Images.of(splits), []
    network = space.freeze([0] * space.num_decisions)
    for placement in ("device", "host"):
        report = lambda epoch, loss: losses.append(loss)
        train(network, images, Recipe(2, 32, 0.05), jax.random.key(0), None, report, placement=placement,
              depthwise=depthwise)
    found["standalone"] = losses
    try:
        supernet.evaluator(space, data=splits, batch=36, accumulate=6, calibration=100)
        found["refused"] = ""
    except InputError as error:
        found["refused"] = str(error)
    return found

print(json.dumps([trained_on(devices) for devices in numbers]))
"""


def run(space, depthwise, numbers):
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={max(numbers)}"
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, space, depthwise, json.dumps(numbers)],
        env={**os.environ, "XLA_FLAGS": flags},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("space", "depthwise", "numbers"),
    [
        ("small", "scan", (1, 4)),  # each number of devices compiles everything once more
        pytest.param("small", "scan", (1, 2, 4), marks=pytest.mark.slow),
        pytest.param("tiny", "scan", (1, 2, 4), marks=pytest.mark.slow),
        pytest.param("tiny", "native", (1, 2, 4), marks=pytest.mark.slow),
    ],
)
def test_several_devices_agree_with_one(space, depthwise, numbers):
    if depthwise == "native" and select()[0] != "native":
        pytest.skip(select()[1])
    one, *others = run(space, depthwise, numbers)
    for devices, several in zip(numbers[1:], others, strict=True):
        assert several["spread"] == devices
        for part in ("supernet", "standalone", "error"):
            assert several[part] == pytest.approx(one[part], rel=1e-5), part
    device, host = one["standalone"][:2], one["standalone"][2:]
    assert device == host and len(host) == 2
    assert not any(each["refused"] for each in (one, *others[:-1]))
    assert others[-1]["refused"] == (
        "batch=36, in 6 parts of 6, cannot be shared equally by 4 devices: give a multiple of 24, such as batch=48"
    )


def test_more_devices_than_there_are_are_refused():
    here = len(jax.devices())
    with pytest.raises(InputError, match=f"devices={here + 1} is out of range: give 1 to {here}"):
        spread(Recipe(), here + 1)

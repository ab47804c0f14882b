"""What the compiled kernels must compute alike: by every instruction set, and with any number of threads.

Both are chosen once per process, so each variant is a process of its own, in which all kernels run.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from search_spaces.kernels import native

pytestmark = pytest.mark.skipif(
    not native.load(native.FOLDER).available, reason=f"native: {native.load(native.FOLDER).reason}"
)

# Sizes fill no register evenly, and those of the first calls are worth several threads.
PROGRAM = """
import sys, jax, jax.numpy as jnp, numpy as np
from search_spaces.kernels import attention, frame, native, normalise, rounding, sgd
from search_spaces.kernels.depthwise import depthwise_moments, largest_depthwise
rng = np.random.default_rng(0)
random = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)
found = {}
def add(name, *parts):
    for place, part in enumerate(jax.tree.leaves(parts)):
        found[f"{name}: {place}"] = np.asarray(part.astype(jnp.float32))

for size, channels, kernel, stride, heads, dtype in (
    ((32, 16, 16), 45, 5, 1, 2, "float32"), ((3, 9, 13), 45, 5, 2, 1, "float32"), ((3, 9, 13), 45, 7, 1, 3, "float32"),
    ((3, 9, 13), 45, 9, 2, 2, "float32"), ((3, 9, 13), 45, 3, 1, 2, "bfloat16"), ((3, 9, 13), 45, 5, 2, 1, "bfloat16"),
):
    x, w = random(*size, channels).astype(dtype), random(kernel, kernel, channels, heads).astype(dtype)
    mean, variance = depthwise_moments(x, w, stride, implementation="native")
    scale = [random(size[0], heads, channels)] if heads == 3 else []
    run = lambda x, w, scale=None: largest_depthwise(x, w, stride, scale=scale, implementation="native")
    y, pull = jax.vjp(run, x, w, *scale)
    add(f"depthwise {kernel} {stride} {heads} {dtype}", y, pull(y), mean, variance)

for shape, activation, shared in (
    ((32, 16, 16, 45), "hard_swish", True), ((5, 7, 9, 23), "relu", False), ((5, 7, 9, 23), "relu6", True),
    ((5, 7, 9, 6), "identity", False),
):
    x, vectors, share = random(*shape), 1 + random(2, shape[-1]), [random(shape[-1])] if shared else []
    mean, variance = normalise.moments(x)
    rest = mean, variance, 1e-5, activation, jnp.int32(shape[-1] - 2)
    y, pull = jax.vjp(lambda *each: normalise.normalised(*each[:3], *rest, *each[3:]), x, *vectors, *share)
    add(f"normalise {activation}", mean, variance, y, pull(random(*shape)))

weights = attention.Weights(random(45, 12), random(12), random(12, 45), random(45), random(3))
for kind in range(3):
    run = lambda x, weights: attention.attended(x, ("none", "se", "eca"), jnp.int32(kind), weights, None)
    y, pull = jax.vjp(run, random(16, 24, 25, 45), weights)
    add(f"attention {kind}", y, pull(y))
for kind in ("eca", "mean_variance_softmax"):
    run = lambda *parts: attention.head_factors(*parts[:2], (kind,), None, None, 2.0, *parts[2:])
    y, pull = jax.vjp(run, random(40, 3, 301), random(40, 3, 301), random(7), random(7, 2))
    add(f"attention of heads {kind}", y, pull(random(*y.shape)))

arrays = [random(300, 501), random(1001), random(3)]
add("sgd", sgd.descend(arrays, arrays[:], [2 * each for each in arrays], jnp.float32(0.1), [0.01, 0.0, 0.1], 0.9, 5.0))
add("frame", frame.framed(arrays, [(290, 700), (500,), (9,)], [(-4, 33), (-77,), (5,)]))
for shape, dtype in (((32, 16, 16, 45), "float32"), ((5, 7, 9, 23), "bfloat16")):
    x = random(*shape).astype(dtype)
    ranges = rounding.extremes(x)
    add(f"rounding {dtype}", ranges, [rounding.affine(x, jnp.float32(bits), *ranges) for bits in (3, 8)])
for shape, shared in (((600, 701), 1), ((5, 5, 45, 3), 2), ((3, 3, 17, 45), 4)):
    add(f"rounding of weights {shared}", rounding.symmetric(random(*shape), jnp.float32(4), shared))
found["set"] = np.array(native.load(native.FOLDER).build["instruction_set"])
np.savez(sys.argv[1], **found)
"""


def computed(folder: Path, **environment: str) -> dict[str, np.ndarray]:
    """Every result of `PROGRAM` in a process with this environment, and the instruction set it had as `set`."""
    file = folder / f"{'_'.join(environment.values())}.npz"
    variables = os.environ | environment | {"JAX_PLATFORMS": "cpu"}
    subprocess.run([sys.executable, "-c", PROGRAM, str(file)], env=variables, check=True)
    return dict(np.load(file))


def test_every_instruction_set_computes_the_same(tmp_path: Path) -> None:
    weakest, *others = (computed(tmp_path, FLYNAS_KERNEL_ISA=wish) for wish in native.INSTRUCTION_SETS)
    assert weakest.pop("set") == native.INSTRUCTION_SETS[0] and len(weakest) > 50
    for found in others:
        name = found.pop("set")  # the best that this machine has, up to the wish
        assert found.keys() == weakest.keys()
        for part, right in weakest.items():
            # the order of float32 sums, and a last place of bfloat16 rounded the other way
            tolerance = 2**-7 if "bfloat16" in part else 2e-5
            atol = tolerance * np.abs(right).max()
            np.testing.assert_allclose(found[part], right, rtol=tolerance, atol=atol, err_msg=f"{name}, {part}")


def test_the_number_of_threads_changes_nothing(tmp_path: Path) -> None:
    alone, several = (computed(tmp_path, NPROC=threads) for threads in ("1", "3"))
    assert alone.keys() == several.keys()
    for part, right in alone.items():
        np.testing.assert_array_equal(several[part], right, err_msg=part)

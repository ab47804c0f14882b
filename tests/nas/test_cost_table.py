"""Cost tables against direct lowering and pricing."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hw_models import Workload, estimate, load_device
from hw_models.costs import Costs
from hw_models.errors import InputError
from hw_models.estimate import apply_precision
from hw_models.metrics import metrics
from nas.cost_table import cost_table
from search_spaces.blocks.inverted_residual import InvertedResidual
from search_spaces.encoding import one_hot, uniform_gates
from search_spaces.spaces import quickstart, tiny

price = jax.jit(estimate)


def direct(space, device, genes, rows=160, batch=1):
    """Padded to one number of rows, so that one program prices all networks on a device; padding costs nothing."""
    work, _, _ = apply_precision(device, Workload.of(space.freeze(genes).lower(), rows), None)
    return price(device, work, batch)


# one of each kind: nothing in the table depends on the device
@pytest.mark.parametrize("name", ["pixel_3", "a100", "zcu102", "tpu_v2", "zcu104_dataflow", "stm32h743"])
def test_table_equals_direct_pricing(name):
    space, device = quickstart.space(), load_device(name)
    batch = 8 if name == "a100" else 1
    table = cost_table(space, device, batch=batch)
    exact, expected = jax.jit(table.exact), jax.jit(table.expected)
    for seed in range(5):
        genes = space.sample(jax.random.key(seed))
        want = direct(space, device, genes, batch=batch)
        for field in Costs._fields:
            reference = float(getattr(want, field))
            assert float(getattr(exact(genes), field)) == pytest.approx(reference, rel=1e-5), (field, seed)
            assert float(getattr(expected(one_hot(space, genes)), field)) == pytest.approx(reference, rel=1e-5)


def test_expected_cost_is_the_mean_over_all_networks():
    space, device = tiny.space(), load_device("raspberry_pi_4")
    table = cost_table(space, device)
    everything = np.array(list(itertools.product(*(range(n) for n in space.cardinality))), np.int32)
    # Weighted by encodings, dead genes included, which is what independent uniform gates mean.
    canonical = jax.vmap(space.canonical)(everything)
    mean = jax.vmap(table.exact)(canonical).latency_s.mean()
    expected = table.expected(uniform_gates(space))
    assert float(expected.latency_s) == pytest.approx(float(mean), rel=1e-5)
    mean_peak = float(jax.vmap(table.exact)(canonical).peak_memory_bytes.mean())
    assert float(expected.peak_memory_bytes) <= mean_peak * 1.0001


def test_costs_are_differentiable_in_the_gates():
    space = tiny.space()
    table = cost_table(space, load_device("raspberry_pi_4"))
    gradient = jax.grad(lambda gates: table.expected(gates).latency_s)(uniform_gates(space))
    assert jnp.isfinite(gradient).all() and jnp.abs(gradient).max() > 0


def test_counts_are_those_of_the_layers():
    space = quickstart.space()
    table = cost_table(space, load_device("xeon_vnni"))
    genes = jax.vmap(space.sample)(jax.random.split(jax.random.key(0), 200))
    priced = jax.jit(jax.vmap(table.exact))(genes)
    for row in range(0, 200, 10):
        layers = space.freeze(genes[row]).lower()
        assert int(priced.macs[row]) == sum(layer.macs for layer in layers)
        assert int(priced.params[row]) == sum(layer.params for layer in layers)
        assert int(priced.activations[row]) == metrics(layers).activations


@pytest.mark.parametrize("batch", [0, -1, 2**25])
def test_a_batch_out_of_range_is_named(batch):
    with pytest.raises(InputError, match=f"batch {batch} is not allowed: give 1 to"):
        cost_table(tiny.space(), load_device("a100"), batch=batch)


@pytest.mark.parametrize(("name", "options"), [
    ("a100", {"sparsity": "2:4", "bits": "8/32"}),
    ("pixel_3", {"sparsity": "unstructured", "prune_ends": True}),
    ("raspberry_pi_4", {"sparsity": "channel"}),
])  # fmt: skip
def test_densities_are_priced_without_lowering_anew(name, options, monkeypatch):
    lowered = []
    lower = InvertedResidual.lower
    monkeypatch.setattr(InvertedResidual, "lower", lambda self, io: lowered.append(self) or lower(self, io))
    space, device = tiny.space(**options), load_device(name)
    lowered.clear()
    table = cost_table(space, device)
    shapes = 4 * (4 if options["sparsity"] == "channel" else 1)  # kernels and expansions, and widths where it is one
    assert len(lowered) == shapes
    exact, expected, seen = jax.jit(table.exact), jax.jit(table.expected), set()
    for seed in range(6):
        genes = space.sample(jax.random.key(seed))
        want = direct(space, device, genes)
        for field in Costs._fields:
            reference = float(getattr(want, field))
            assert float(getattr(exact(genes), field)) == pytest.approx(reference, rel=1e-5), (field, seed)
            assert float(getattr(expected(one_hot(space, genes)), field)) == pytest.approx(reference, rel=1e-5)
        seen.add(float(want.weight_bytes))
    assert len(seen) > 3

"""Ternary layers as reduce and scale stores them: those that cost models price, with the zeros that there are."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hw_models.compression import is_ternary, weight_bytes
from hw_models.workload import Workload
from nas import export
from nas.data_source import load
from nas.quantized.ternary import reduced_and_scaled, signs_of, ternary_layers
from nas.training.rounded import completed
from search_spaces.arithmetic import ras_codec
from search_spaces.network import Network, exact_form, fresh, pruned_variables
from search_spaces.spaces import tiny

TERNARY = {"bits": "w2a8", "sparsity": "unstructured", "densities": "0.3"}


def _network(**options):
    space = tiny.space(**{**TERNARY, **options}).freeze([0] * 6)
    digits = load("digits")
    variables = fresh(space, jax.random.key(0))
    return space, completed(space, variables, digits.test_images[:64], [0.5], [0.5])


@pytest.mark.parametrize(
    "options", [{}, {"prune_ends": True, "first_last_bits": 2}, {"weight_quantizer": "ttq", "first_last_bits": 32}]
)
def test_they_are_the_layers_that_cost_models_take_for_ternary(options):
    space, variables = _network(**options)
    priced = [layer for layer in space.lower() if is_ternary(Workload.of([layer]))[0]]
    found = ternary_layers(space, variables)
    key = lambda layer: (layer.in_channels, layer.out_channels, layer.weights, layer.density, layer.macs)  # noqa: E731
    assert [key(each.layer) for each in found] == [key(layer) for layer in priced] and len(found) >= 4
    report, notes = reduced_and_scaled(space, variables)
    bare = Workload.of([layer._replace(norm=0, bias=0) for layer in priced])
    assert report["estimated_bytes"] == pytest.approx(float(weight_bytes(bare).sum()))
    assert notes == [] and report["macs"] == sum(layer.macs for layer in priced)


def test_signs_and_counts_are_those_of_the_weights_in_use():
    space, variables = _network()
    _, exact = exact_form(space, variables)
    found = ternary_layers(space, variables)
    for each in found:
        slot, name = each.path.split("/")
        kernel = np.asarray(exact["params"][slot][name]["kernel"])
        np.testing.assert_array_equal(each.signs, np.sign(kernel.reshape(-1, kernel.shape[-1])).T)
    report, _ = reduced_and_scaled(space, variables)
    layers = [each.layer for each in found]
    assert report["multiplications"] == 2 * sum(layer.output_elements for layer in layers)
    assert report["nonzeros"] == sum(int(np.count_nonzero(each.signs)) for each in found)
    # rounding leaves more zeros than the density asks for, never less
    assert all(row["density"] <= row["estimated_density"] for row in report["layers"].values())
    assert report["bytes"] == len(ras_codec.encode([each.signs for each in found]))
    coded = report["bytes"] - report["overhead_bytes"]
    assert 0.95 * report["entropy_bytes"] < coded < 1.15 * report["entropy_bytes"]


@pytest.mark.parametrize("quantizer", ["nary", "ttq", "bwn", "symmetric"])
def test_weights_that_were_left_out_stay_0_and_have_no_part_in_the_levels(quantizer):
    bits = "w1a32" if quantizer == "bwn" else "w2a32"
    space, variables = _network(bits=bits, weight_quantizer=quantizer, first_last_bits=32)
    plain, exact = exact_form(space, variables)
    images = jax.random.normal(jax.random.key(1), (4, 8, 8, 1))
    logits = [Network(each).apply(known, images, "eval") for each, known in ((space, variables), (plain, exact))]
    np.testing.assert_allclose(*logits, rtol=1e-4, atol=1e-5)
    pruned = pruned_variables(space, variables)["params"]["stages_0_0"]["expand"]["kernel"]
    assert (exact["params"]["stages_0_0"]["expand"]["kernel"][pruned == 0] == 0).all()


@pytest.mark.parametrize(
    "options", [{"bits": "w4a8"}, {"sparsity": "2:4", "densities": "0.5"}, {"sparsity": "none", "densities": None}]
)
def test_other_bits_and_other_zeros_are_not_ternary(options):
    assert reduced_and_scaled(*_network(**options)) == ({}, [])


def test_two_bits_with_four_values_are_priced_as_ternary_and_not_run_so():
    assert signs_of(np.asarray([[2.0], [1.0], [0.0], [-1.0]])) is None
    space, variables = _network(weight_quantizer="nary[two_bits=quaternary+]", first_last_bits=32)
    values = {"weight_plus_1": 0.3, "weight_plus_2": 0.9}
    variables = jax.tree_util.tree_map_with_path(
        lambda path, leaf: jnp.full_like(leaf, values[path[-1].key]) if path[-1].key in values else leaf, variables
    )
    report, notes = reduced_and_scaled(space, variables)
    assert report == {} and len(notes) == 4
    assert "stages_0_0/expand is priced as ternary and has weights of more than three values" in notes[0]


def test_the_report_of_an_export_has_bytes_as_written_beside_the_estimate(tmp_path):
    report = export(_network(), tmp_path / "model", data="digits", devices=["cortex_a57"], measure_seconds=0.02)
    found = report["reduce_and_scale"]
    assert json.loads((tmp_path / "model" / "report.json").read_text())["reduce_and_scale"] == found
    assert found["bytes"] > found["overhead_bytes"] > 256 and found["estimated_bytes"] < found["weights"] / 4
    assert found["multiplications"] < found["macs"]


def test_activations_that_are_no_integers_are_stored_so_and_not_run():
    report, notes = reduced_and_scaled(*_network(bits="w2a32", first_last_bits=32))
    assert report["bytes"] > 0 and report["macs"] == report["multiplications"] == report["integer_additions"] == 0
    assert "stages_0_0/expand is stored as reduce and scale stores it and has activations of 32 bits" in notes[0]

"""Folding of normalisation: equal outputs, float64 weights, and what is left alone."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest

from nas.exporters._graph import INPUT, Graph, Node, record
from nas.quantized import _forms
from nas.quantized.folded import MULTIPLYING, affine, as_layers, fold
from nas.quantized.integer import normalised
from search_spaces.normalisation import NORM_EPSILON
from search_spaces.spaces import quickstart, tiny


def node(op: str, params: dict[str, Any], taken: str, given: str) -> Node:
    arrays = {name: np.asarray(value, np.float64) for name, value in params.items()}
    return Node(op, op, {}, arrays, (taken,), (given,))


def test_the_fold_of_the_survey() -> None:
    # equation 3, worked with epsilon 0: gamma 2, beta 1, mu 3, var 4, W 0.5, b 1 give W' 0.5, b' -1
    linear = node("Linear", {"kernel": [[0.5]], "bias": [1.0]}, INPUT, "a")
    norm = node("Norm", {"scale": [2.0], "bias": [1.0], "mean": [3.0], "var": [4.0 - NORM_EPSILON]}, "a", "b")
    shapes = {INPUT: (1, 1), "a": (1, 1), "b": (1, 1)}
    (folded,) = fold(Graph((linear, norm), "b", shapes)).nodes
    assert folded.params["weight"].item() == 0.5 and folded.params["bias"].tolist() == [-1.0]
    (y,) = _forms.computed(Graph((folded,), "a", shapes), folded, (np.asarray([[10.0]]),))
    assert y.item() == 4.0


def test_a_norm_after_a_shared_value_becomes_a_layer_of_its_own() -> None:
    params = {"scale": [2.0, 1.0], "bias": [0.0, 1.0], "mean": [1.0, 1.0], "var": [1.0, 4.0]}
    norm, add = node("Norm", params, INPUT, "a"), Node("Add", "Add", {}, {}, (INPUT, "a"), ("b",))
    shapes = dict.fromkeys((INPUT, "a", "b"), (1, 3, 3, 2))
    folded = fold(Graph((norm, add), "b", shapes))
    assert [each.op for each in folded.nodes] == ["Norm", "Add"]
    graph = as_layers(folded)
    x = np.random.default_rng(0).normal(0, 1, (2, 3, 3, 2))
    factor, offset = affine(norm)
    np.testing.assert_allclose(_forms.computed(graph, graph.nodes[0], (x,))[0], x * factor + offset)


@pytest.mark.parametrize(("module", "seed"), [(tiny, 1), (quickstart, 5)])
def test_a_folded_network_computes_what_the_network_computes(module: Any, seed: int, untrained: Any) -> None:
    space = module.space()
    space = space.freeze(space.sample(jax.random.key(seed)))
    model = untrained(space, seed)
    graph = as_layers(fold(record(space, model.variables)))
    assert not [each for each in graph.nodes if each.op == "Norm"]
    assert all(each.params["weight"].dtype == np.float64 for each in graph.nodes if each.op in MULTIPLYING)
    shape = (4, space.image_hw, space.image_hw, space.input_channels)
    images = np.random.default_rng(1).integers(0, 256, shape, np.uint8)
    x = normalised(images, model.meta)
    found = _forms.walk(graph, x, lambda each, inputs: _forms.computed(graph, each, inputs))
    expected = model.logits(images)
    assert (np.abs(found - expected) / np.maximum(1, np.abs(expected))).max() < 2e-5

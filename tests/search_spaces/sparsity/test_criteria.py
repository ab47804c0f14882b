"""Every criterion keeps the contract; a new file is tested without being listed. Then the values of each."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hw_models.errors import InputError
from search_spaces.sparsity._criterion import Evidence, criterion_of, names
from search_spaces.sparsity._masks import kept
from search_spaces.sparsity._patterns import KINDS, Structure
from search_spaces.sparsity.angle import Angle, binary_similarity, similarity
from search_spaces.sparsity.apoz import Apoz, share_of_zeros
from search_spaces.sparsity.batch_norm_scale import BatchNormScale
from search_spaces.sparsity.distance import Distance
from search_spaces.sparsity.geometric_median import GeometricMedian
from search_spaces.sparsity.magnitude import Magnitude
from search_spaces.sparsity.snip import Snip

OPTIONS = {"angle": ({}, {"of": "filter"}), "distance": ({}, {"of": "filter"}), "magnitude": ({}, {"p": 2.0})}
CRITERIA = [criterion_of(name)(**options) for name in names() for options in OPTIONS.get(name, ({},))]


def _normal(seed, shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def _evidence(structure, seed=0):
    """Everything there is to know of a layer, with a 3x3 convolution of 10 filters after it."""
    shape, reads = structure.shape, structure.kind == "input_channel"
    channels = shape[-2] * structure.groups if reads or structure.depthwise else shape[-1]
    written = shape[-2] if structure.depthwise else shape[-1]
    weight, following = _normal(seed, shape), _normal(seed + 1, (3, 3, written, 10))
    return Evidence(
        weight=weight,
        gradient=_normal(seed + 2, shape),
        scale=_normal(seed + 3, (channels,)),
        activations=np.maximum(_normal(seed + 4, (4, 5, 5, channels)), 0),
        image=np.sign(weight),
        next_weight=following,
        next_image=np.sign(following),
        key=jax.random.key(seed),
    )


_kept = jax.jit(kept, static_argnums=0)  # a program of each structure, the same for all criteria
LAYERS = (((3, 3, 8, 12),), ((8, 12),), ((3, 3, 4, 12), False, 2), ((3, 3, 8, 2), True))


def _served(criterion):
    for kind, arguments in itertools.product(criterion.serves, LAYERS):
        try:
            structure = Structure(kind, *arguments)
        except InputError:
            continue
        # a single weight has no angle: refused below
        if (
            criterion.kind != "angle"
            or structure.count < math.prod(structure.shape)
            or "next_weight" in criterion.needs
        ):
            yield structure


@pytest.mark.parametrize("criterion", CRITERIA, ids=str)
def test_criterion_scores_every_structure_that_it_serves(criterion):
    """With nothing but what it needs, all in one program; a change of the density compiles no mask anew."""
    assert criterion_of(criterion.kind) is type(criterion)
    assert criterion.serves and set(criterion.serves) <= set(KINDS)
    structures = list(_served(criterion))
    known = [_evidence(structure) for structure in structures]
    needed = [Evidence(**{name: getattr(each, name) for name in criterion.needs}) for each in known]

    @jax.jit
    def run(evidence):
        return [criterion(structure, each) for structure, each in zip(structures, evidence, strict=True)]

    first, again = run(needed), run(needed)
    for structure, scores, same in zip(structures, first, again, strict=True):
        assert scores.shape == structure.decisions and np.isfinite(scores).all()
        np.testing.assert_array_equal(scores, same)
        few = np.asarray(_kept(structure, scores, 0.1))
        programs = _kept._cache_size()
        fewer = np.asarray(_kept(structure, scores, 0.001))
        assert _kept._cache_size() == programs and few.any() and fewer.any()


@pytest.mark.parametrize("criterion", CRITERIA, ids=str)
def test_criterion_says_what_it_lacks_and_whom_it_does_not_serve(criterion):
    structure = Structure(criterion.serves[-1], (3, 3, 8, 12))
    for name in criterion.needs:
        with pytest.raises(InputError, match=f"criterion {criterion.kind} needs .*{name}.*: give Evidence"):
            criterion(structure, _evidence(structure)._replace(**{name: None}))
        if name in ("weight", "gradient", "image"):
            with pytest.raises(InputError, match=f"{name} of shape .* does not go with weights of shape"):
                criterion(structure, _evidence(structure)._replace(**{name: jnp.ones((8, 12))}))
    for kind in set(KINDS) - set(criterion.serves):
        with pytest.raises(InputError, match=f"{criterion.kind} does not serve structure {kind}: give one of"):
            criterion(Structure(kind, (3, 3, 8, 12)), _evidence(structure))


def test_unknown_names_and_options_are_refused():
    for wrong in ("penalties", "magnitud"):
        with pytest.raises(InputError, match=f"unknown criterion '{wrong}'"):
            criterion_of(wrong)
    for wrong, message in ((0.5, "magnitude.p=0.5 is out of range: give 1 to 4"), ("2", "magnitude.p='2'")):
        with pytest.raises(InputError, match=message):
            Magnitude(p=wrong)
    with pytest.raises(InputError, match="angle.of='both' is not allowed: give interactions or filter"):
        Angle(of="both")


def test_magnitude_is_the_norm_of_each_structure():
    structure = Structure("output_channel", (3, 3, 4, 6))
    w = _evidence(structure).weight
    for p in (1, 2, 3):
        expected = np.linalg.norm(np.asarray(w).reshape(-1, 6), p, axis=0)
        np.testing.assert_allclose(Magnitude(p=p)(structure, Evidence(weight=w)).ravel(), expected, rtol=1e-5)
    single = Structure("weight", w.shape)
    np.testing.assert_array_equal(Magnitude(p=2)(single, Evidence(weight=w)), np.abs(w))


def test_apoz_of_two_images_and_the_busiest_channel_stays():
    maps = jnp.asarray([[0, 0, 1.2, 0], [3, 0, 0, 0.1]])
    assert share_of_zeros(maps[..., None]).tolist() == [0.625]
    both = jnp.stack([maps, maps + 1], axis=-1).reshape(2, 2, 2, 2)  # images, rows, columns, channels
    scores = Apoz()(Structure("output_channel", (5, 2)), Evidence(activations=both))
    assert scores.tolist() == [[0.375, 1.0]]
    with pytest.raises(InputError, match="do not go with 3 channels"):
        Apoz()(Structure("output_channel", (5, 3)), Evidence(activations=both))


def test_slimming_takes_the_magnitude_of_the_scale():
    scale = jnp.asarray([0.5, -2.0, 0.0, 1.0])
    assert BatchNormScale()(Structure("input_channel", (4, 3)), Evidence(scale=scale)).ravel().tolist() == [
        0.5,
        2,
        0,
        1,
    ]
    depthwise = Structure("output_channel", (3, 3, 4, 2), depthwise=True)
    assert BatchNormScale()(depthwise, Evidence(scale=scale)).ravel().tolist() == [0.5, 2, 0, 1]


@pytest.mark.parametrize("kind", ["output_channel", "input_channel"])
@pytest.mark.parametrize("groups", [1, 2])
def test_geometric_median_equals_all_distances(kind, groups):
    structure = Structure(kind, (3, 3, 4, 6), groups=groups)
    w = np.asarray(_evidence(structure).weight)
    if kind == "input_channel":
        filters = [w[:, :, i].ravel() for i in range(4)]
    else:
        filters = [w[..., [o + group * 6 // groups for group in range(groups)]].ravel() for o in range(6 // groups)]
    expected = [sum(np.linalg.norm(a - b) for b in filters) for a in filters]
    scores = GeometricMedian()(structure, Evidence(weight=jnp.asarray(w)))
    np.testing.assert_allclose(scores.ravel(), expected, rtol=1e-5)


def test_geometric_median_drops_what_others_can_replace_where_magnitude_drops_the_small():
    w = jnp.asarray([[0.1, 10.0, 10.1, 20.0]])  # the second and third are in the middle, the first is small
    structure = Structure("output_channel", (1, 4))
    assert kept(structure, GeometricMedian()(structure, Evidence(weight=w)), 0.5).tolist() == [
        [True, False, False, True]
    ]
    assert kept(structure, Magnitude()(structure, Evidence(weight=w)), 0.5).tolist() == [[False, False, True, True]]


@pytest.mark.parametrize("kind", ["weight", "output_channel", "column", "split"])
def test_snip_is_the_derivative_by_a_gate(kind):
    structure = Structure(kind, (4, 8))
    x, w = _normal(5, (16, 4)), _normal(6, (4, 8))

    def loss(w):
        return jnp.tanh(x @ w).sum()

    by_gate = jax.grad(lambda gate: loss(w * structure.expand(gate)))(jnp.ones(structure.decisions))
    scores = Snip()(structure, Evidence(weight=w, gradient=jax.grad(loss)(w)))
    np.testing.assert_allclose(scores, np.abs(by_gate), rtol=1e-4, atol=1e-5)


def test_random_follows_its_key():
    structure, criterion = Structure("output_channel", (2, 50)), criterion_of("random")()
    one, same, other = (criterion(structure, Evidence(key=jax.random.key(seed))) for seed in (0, 0, 1))
    assert (one == same).all() and (one != other).any()


@pytest.mark.parametrize("kind", ["output_channel", "connection", "layer"])
def test_the_binary_shortcut_is_the_angle_to_the_signs_whatever_their_scale(kind):
    structure = Structure(kind, (3, 3, 4, 6))
    w = _evidence(structure).weight
    for scale in (1.0, 0.37):
        np.testing.assert_allclose(
            similarity(structure, w, scale * jnp.sign(w)), binary_similarity(structure, w), rtol=1e-5
        )


def test_the_largest_angle_goes_first_and_so_does_the_largest_distance():
    structure = Structure("output_channel", (2, 3))
    w = jnp.asarray([[0.9, 1.0, 0.1], [1.1, 0.02, 0.05]])
    evidence = Evidence(weight=w, image=jnp.sign(w))
    angles = np.degrees(np.arccos(np.asarray(Angle(of="filter")(structure, evidence)).ravel()))
    np.testing.assert_allclose(angles, [5.71, 43.85, 18.43], atol=0.01)
    assert kept(structure, Angle(of="filter")(structure, evidence), 0.6).tolist() == [[True, False, True]]
    distances = -np.asarray(Distance(of="filter")(structure, evidence)).ravel()
    np.testing.assert_allclose(distances, np.linalg.norm(np.asarray(w) - 1, axis=0), rtol=1e-5)
    assert kept(structure, Distance(of="filter")(structure, evidence), 0.6).tolist() == [[True, True, False]]


@pytest.mark.parametrize("criterion", [Angle(), Distance()], ids=str)
@pytest.mark.parametrize("groups", [1, 3])
def test_interactions_are_means_over_the_kernels_that_read_a_channel(criterion, groups):
    structure, following = Structure("output_channel", (1, 1, 5, 6)), _normal(7, (3, 3, 6 // groups, 9))
    scores = criterion(structure, Evidence(next_weight=following, next_image=0.7 * jnp.sign(following)))
    kernels, expected = np.asarray(following), []
    for channel in range(6):
        group, place = divmod(channel, 6 // groups)
        found = []
        for output in range(group * 9 // groups, (group + 1) * 9 // groups):
            v = kernels[:, :, place, output].ravel()
            image = 0.7 * np.sign(v)
            cosine = v @ image / np.linalg.norm(v) / np.linalg.norm(image)
            found.append(cosine if criterion.kind == "angle" else -np.linalg.norm(v - image))
        expected.append(np.mean(found))
    np.testing.assert_allclose(scores.ravel(), expected, rtol=1e-5)


def test_interactions_with_a_depthwise_layer_and_with_layers_that_have_none():
    structure = Structure("output_channel", (1, 1, 5, 6))
    filters = _normal(8, (3, 3, 6, 2))
    scores = Distance()(structure, Evidence(next_weight=filters, next_image=jnp.sign(filters)))
    v = np.asarray(filters - jnp.sign(filters))
    np.testing.assert_allclose(scores.ravel(), -np.linalg.norm(v.reshape(9, 6, 2), axis=0).mean(-1), rtol=1e-5)
    for shape in ((6, 10), (1, 1, 6, 10)):
        following = _normal(9, shape)
        evidence = Evidence(next_weight=following, next_image=jnp.sign(following))
        with pytest.raises(InputError, match="have no angle, one at a time: give of=filter, or criterion distance"):
            Angle()(structure, evidence)
        assert jnp.isfinite(Distance()(structure, evidence)).all()
    wrong = _normal(9, (3, 3, 4, 10))
    with pytest.raises(InputError, match="4 inputs and 10 outputs cannot read 6 channels"):
        Angle()(structure, Evidence(next_weight=wrong, next_image=wrong))


def test_a_filter_of_zeros_is_the_least_like_its_image():
    structure = Structure("output_channel", (3, 3, 2, 2))
    w = jnp.ones(structure.shape).at[..., 0].set(0)
    assert Angle(of="filter")(structure, Evidence(weight=w, image=jnp.ones_like(w))).ravel() == pytest.approx([0, 1])

"""The supernet evaluator on real digits."""

import ast
import dataclasses
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hw_models.errors import InputError
from nas.data import split
from nas.data_source import load
from nas.evaluators import supernet
from nas.stratify import drawn
from nas.training.epoch import Diverged
from nas.training.images import normalise
from nas.training.loss import wrong
from nas.training.memory import OutOfMemory
from nas.training.standalone import pooled_statistics
from search_spaces.network import Network, inherit
from search_spaces.spaces import quickstart, tiny
from search_spaces.supernet import Supernet

# prime numbers beyond one batch: of images to judge with none is left out, of those for statistics one
VALIDATION, CALIBRATION = 271, 257
SETTINGS = {"validation": VALIDATION, "epochs": 12, "batch": 64, "calibration": CALIBRATION, "chunk": 3}


def sorted_digits():
    """Training images in the order of their classes, as people keep them."""
    splits = split(load("digits"), VALIDATION, 1)
    order = np.argsort(splits.train_labels, kind="stable")
    return dataclasses.replace(splits, train_images=splits.train_images[order], train_labels=splits.train_labels[order])


@pytest.fixture(scope="module")
def trained():
    space = tiny.space()
    judge = supernet.evaluator(space, data=sorted_digits(), seed=1, **SETTINGS)
    state, losses = judge.init(jax.random.key(0)), []
    for round in range(judge.rounds):
        state, metrics = judge.train(jax.random.fold_in(jax.random.key(1), round), state)
        losses.append(metrics["loss"])
    return space, judge, state, losses


def genes_of(space, count):
    return np.asarray(jax.vmap(space.sample)(jax.random.split(jax.random.key(5), count)))


def test_training_learns(trained):
    _, _, _, losses = trained
    assert losses[-1] < losses[0] - 0.2


def test_error_is_that_of_the_inherited_network_recalibrated_on_the_same_images(trained):
    space, judge, state, _ = trained
    splits = sorted_digits()
    rows = drawn(len(splits.train_images), CALIBRATION)[: CALIBRATION - 1]
    assert set(splits.train_labels[rows]) == set(range(10)), "every class has its part in the statistics"
    genes = genes_of(space, 4)
    errors = np.asarray(judge.evaluate(jax.random.key(2), state, genes[:3], np.arange(3)).error)
    filled = {
        slot: {kind: {**part, "batch_stats": _zeros(space, slot, kind)} for kind, part in kinds.items()}
        for slot, kinds in state.params.items()
    }
    for row in range(3):
        network = Network(space.freeze(genes[row]))
        variables = inherit(filled, space, genes[row])

        @jax.jit
        def logits_of(variables, calibration, validation, network=network):
            x = normalise(calibration, jnp.asarray(splits.mean), jnp.asarray(splits.std))
            halves = [
                network.apply(variables, half, "calibrate", mutable=["batch_stats"])[1]["batch_stats"]
                for half in jnp.split(x, 2)
            ]
            statistics = pooled_statistics(jax.tree.map(lambda *leaves: jnp.stack(leaves), *halves))
            x = normalise(validation, jnp.asarray(splits.mean), jnp.asarray(splits.std))
            return network.apply({**variables, "batch_stats": statistics}, x, "eval")

        logits = logits_of(variables, splits.train_images[rows], splits.validation_images)
        own = int(wrong(logits, jnp.asarray(splits.validation_labels))) / VALIDATION
        assert errors[row] == pytest.approx(own, abs=1.01 / VALIDATION), "at most one image may tip by rounding"


def _zeros(space, slot, kind):
    from search_spaces.supernet import Supernet

    shapes = Supernet(space).shapes()[slot][kind]["batch_stats"]
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), shapes)


def test_rows_are_independent_of_their_neighbours_and_nothing_recompiles(trained):
    space, judge, state, _ = trained
    genes = genes_of(space, 3)
    together = np.asarray(judge.evaluate(jax.random.key(2), state, genes, np.arange(3)).error)
    with jax.log_compiles(), _NoCompilation():
        alone = [
            float(judge.evaluate(jax.random.key(2), state, genes[i : i + 1], np.arange(1)).error[0]) for i in (2, 0, 1)
        ]
    assert alone == [together[2], together[0], together[1]]


class _NoCompilation:
    """Fails when a program is compiled inside."""

    def __enter__(self):
        import logging

        self.seen = []
        self.handler = logging.Handler()
        self.handler.emit = lambda record: self.seen.append(record.getMessage())
        logging.getLogger("jax").addHandler(self.handler)

    def __exit__(self, *_):
        import logging

        logging.getLogger("jax").removeHandler(self.handler)
        compiled = [line for line in self.seen if "errors" in line and "ompil" in line]
        assert not compiled, compiled


def test_version_follows_the_weights(trained):
    _, judge, state, _ = trained
    assert judge.version(state) == judge.version(state)
    assert judge.version(state) != judge.version(judge.init(jax.random.key(0)))


@pytest.mark.parametrize(
    ("space", "options", "said"),
    [
        (quickstart.space(), {"data": "digits"}, "has images of 8x8x1, space quickstart takes 28x28x1"),
        (tiny.space(classes=3), {"data": "digits"}, "10 classes, space tiny is made for 3"),
        (tiny.space(), {"data": "digits", "validation": 200, "batch": 5000}, "lower the batch"),
        (tiny.space(), {"data": "digits", "validation": 200, "calibration": 0}, "calibration=0"),
        (tiny.space(), {"data": "digits", "epochs": 0}, "epochs=0"),
        (tiny.space(), {"data": "digits", "learning_rate": -1.0}, "learning_rate=-1.0"),
        (tiny.space(), {"data": "digit"}, "did you mean 'digits'"),
        (tiny.space(), {"data": "digits", "calibration": 100, "paths": "fare"}, "did you mean 'fair'"),
        (tiny.space(), {"data": "digits", "optimizer": "adamx"}, "did you mean 'adamw'"),
        (tiny.space(), {"data": "digits", "accumulate": 7}, "accumulate=7 does not divide a batch of 64"),
        (tiny.space(), {"data": "digits", "calibration": 100, "placement": "disk"}, "unknown placement 'disk'"),
        (
            tiny.space(),
            {"data": "digits", "calibration": 100, "execution": "mask"},
            r"unknown execution 'mask': did you mean 'masks'\? \(known: auto, masks, switch\)",
        ),
    ],
)
def test_bad_settings_are_named(space, options, said):
    with pytest.raises(InputError, match=said):
        supernet.evaluator(space, **options)


def test_the_description_says_how_to_load_the_images_again():
    few = {"validation": 200, "epochs": 1, "calibration": 50}
    found = [
        supernet.evaluator(tiny.space(), data=data, **few).describe["data_from"]
        for data in ("digits", load("digits"), split(load("digits"), 200, 0))
    ]
    assert found == ["digits", None, None]


@pytest.fixture(scope="module")
def averaged():
    """Every option of training at once: the largest network teaches, AdamW, bfloat16, parts of batches, the host."""
    options = {"paths": "sandwich[random=1,distillation=0.5]", "optimizer": "adamw", "learning_rate": 0.01, "ema": 0.9}
    more = {"cutout": 2, "mixup": 0.1, "accumulate": 2, "precision": "bfloat16", "placement": "host", "warmup": 0.2}
    settings = {**SETTINGS, "epochs": 3, **options, **more}
    judge = supernet.evaluator(tiny.space(), data=sorted_digits(), seed=1, **settings)
    state, losses = judge.init(jax.random.key(0)), []
    before = jax.tree.map(np.asarray, state.params)
    for round in range(judge.rounds):
        given = state
        state, metrics = judge.train(jax.random.fold_in(jax.random.key(1), round), state)
        losses.append(metrics["loss"])
    return judge, given, state, losses, before


def test_all_options_of_training_together_learn(averaged):
    judge, _, state, losses, _ = averaged
    assert losses[-1] < losses[0] - 0.1
    assert {leaf.dtype for leaf in jax.tree.leaves((state.params, state.average))} == {np.dtype("float32")}
    assert judge.describe["paths"] == {"name": "sandwich", "random": 1, "distillation": 0.5}
    assert judge.describe["precision"] == "bfloat16" and judge.describe["ema"] == 0.9


def test_a_round_leaves_the_state_it_is_given_alone(averaged):
    judge, given, _, _, before = averaged
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(given.params)), "not overwritten"
    first = judge.init(jax.random.key(0))
    assert all((a == b).all() for a, b in zip(jax.tree.leaves(first.params), jax.tree.leaves(before), strict=True))


def test_networks_are_judged_and_inherited_with_the_average(averaged):
    from nas.exporters._source import _shared_params
    from nas.plain import arrays_of

    judge, _, state, _, _ = averaged
    genes = genes_of(tiny.space(), 2)
    found = judge.evaluate(jax.random.key(2), state, genes, np.arange(2)).error
    swapped = state._replace(params=jax.tree.map(jnp.zeros_like, state.params))
    assert (judge.evaluate(jax.random.key(2), swapped, genes, np.arange(2)).error == found).all()
    assert judge.version(swapped) == judge.version(state)
    kept = _shared_params(arrays_of(state))
    assert all((a == b).all() for a, b in zip(jax.tree.leaves(kept), jax.tree.leaves(state.average), strict=True)), (
        "what an export inherits"
    )


def test_a_diverging_supernet_names_the_step_and_keeps_the_last_good_state():
    judge = supernet.evaluator(tiny.space(), data=sorted_digits(), **{**SETTINGS, "learning_rate": 90.0, "epochs": 2})
    state = judge.init(jax.random.key(0))
    state = state._replace(params=jax.tree.map(lambda leaf: leaf * np.nan, state.params))
    said = r"the supernet's loss of epoch 0 is nan at step 0, learning rate 0: .* \(now 90.0\)"
    with pytest.raises(Diverged, match=said) as told:
        judge.train(jax.random.key(1), state)
    assert told.value.state is state


def test_networks_side_by_side_have_the_errors_of_one_after_the_other(trained):
    """`masks` judges the same weights; its chunks are padded, and may be asked for more rows than one holds."""
    space, judge, state, _ = trained
    masks = supernet.evaluator(space, data=sorted_digits(), seed=1, execution="masks", **SETTINGS)
    assert (judge.describe["execution"], masks.describe["execution"]) == ("switch", "masks")
    assert judge.version(state) != masks.version(state), "rounding may tip an image"
    genes = genes_of(space, 4)
    expected = np.concatenate([judge.evaluate(jax.random.key(2), state, row[None], [0]).error for row in genes])
    found = np.asarray(masks.evaluate(jax.random.key(2), state, genes, np.arange(4)).error)
    assert found.shape == (4,) and np.abs(found - expected).max() <= 1.01 / VALIDATION


PROGRAMS = """
import sys
from pathlib import Path
import jax
import numpy as np
from nas.evaluators import supernet
from search_spaces.spaces import tiny

space = tiny.space()
for seed in (0, 1):
    judge = supernet.evaluator(
        space, data="digits", seed=seed, validation=200, train=64, epochs=1, calibration=64, chunk=2
    )
    state, _ = judge.train(jax.random.key(seed), judge.init(jax.random.key(seed)))
    judge.evaluate(jax.random.key(seed), state, np.zeros((2, space.num_decisions), np.int32), np.arange(2))
    print(sorted(path.name for path in Path(sys.argv[1]).iterdir()))
"""


def test_another_split_finds_its_programs_compiled(tmp_path):
    """Images and what normalises them are arguments, so that commands with another seed start fast as well."""
    cache = {"JAX_COMPILATION_CACHE_DIR": str(tmp_path), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAMS, str(tmp_path)], env={**os.environ, **cache}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    first, second = (set(ast.literal_eval(line)) for line in done.stdout.splitlines())
    kept = {name.split("-")[0] for name in first}
    assert {"jit_step", "jit_errors"} <= kept
    assert {name for name in second - first if name.endswith("-cache")} == set()


def test_what_does_not_fit_into_memory_says_what_to_lower(monkeypatch):
    space = tiny.space()
    settings = {"data": "digits", "validation": 200, "train": 64, "calibration": 64, "chunk": 3}
    genes = np.zeros((1, space.num_decisions), np.int32)

    def exhausted(*_, **__):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9000000000 bytes.\nmore")

    judge, alone = (supernet.evaluator(space, execution=name, **settings) for name in ("masks", "switch"))
    state = judge.init(jax.random.key(0))
    monkeypatch.setattr(Supernet, "calibrate", exhausted)
    monkeypatch.setattr(Supernet, "apply", exhausted)
    with pytest.raises(OutOfMemory, match=r"allocating 9000000000 bytes\): lower chunk \(now 3\)"):
        judge.evaluate(jax.random.key(0), state, genes, np.arange(1))
    with pytest.raises(OutOfMemory, match="take a space of smaller networks"):
        alone.evaluate(jax.random.key(0), state, genes, np.arange(1))
    with pytest.raises(OutOfMemory, match=r"a training step needs .* lower the batch \(now 64\), or raise accumulate"):
        judge.train(jax.random.key(0), state)

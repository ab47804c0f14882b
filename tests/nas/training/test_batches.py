"""Batches from the device and from the host are the same."""

from typing import NamedTuple

import jax
import numpy as np
import pytest

from hw_models.errors import InputError
from nas.training import batches
from nas.training.batches import feed
from nas.training.epoch import run_epoch
from nas.training.parallel import Spread
from nas.training.recipe import Recipe

IMAGES = np.random.default_rng(0).integers(0, 256, (40, 4, 4, 3)).astype(np.uint8)
LABELS = np.arange(40, dtype=np.int32)
ORDER = np.random.default_rng(1).permutation(40)[:32].reshape(4, 8)


def test_both_placements_give_the_same_batches_in_the_same_order():
    rows = [list(feed(IMAGES, LABELS, Spread(None), place).batches(ORDER)) for place in ("device", "host")]
    for (images, labels), (same_images, same_labels), index in zip(*rows, ORDER, strict=True):
        assert (labels == LABELS[index]).all() and (images == IMAGES[index]).all()
        assert (same_labels == labels).all() and (same_images == images).all()
        assert images.dtype == same_images.dtype == np.uint8 and labels.dtype == same_labels.dtype == np.int32


def test_large_sets_stay_on_the_host(monkeypatch, tmp_path):
    assert not feed(IMAGES, LABELS, Spread(None)).streams
    monkeypatch.setattr(batches, "RESIDENT_BYTES", IMAGES.nbytes - 1)
    np.save(tmp_path / "images.npy", IMAGES)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    source = feed(mapped, LABELS, Spread(None))
    assert source.streams and source.total == 40
    assert all((images == IMAGES[index]).all() for (images, _), index in zip(source.batches(ORDER), ORDER, strict=True))


def test_the_next_batch_is_gathered_only_when_the_one_before_was_taken():
    class Counting(np.ndarray):
        taken = 0

        def __getitem__(self, index):
            if isinstance(index, np.ndarray):
                Counting.taken += 1
            return super().__getitem__(index)

    found = feed(IMAGES.view(Counting), LABELS, Spread(None), "host").batches(ORDER)
    assert Counting.taken == 0
    next(found)
    assert Counting.taken == 1
    next(found)
    assert Counting.taken == 2


def test_the_next_batch_is_gathered_and_sent_before_a_step_is_waited_for(monkeypatch):
    """Each step is queued, the batch after it is brought, and only then is the step before it waited for."""
    seen = []

    class Gathered(np.ndarray):
        def __getitem__(self, index):
            if isinstance(index, np.ndarray):
                seen.append("gather")
            return super().__getitem__(index)

    class Loss:
        def __init__(self, number):
            self.number = number

        def block_until_ready(self):
            seen.append(f"wait {self.number}")

        def __array__(self, dtype=None, copy=None):
            return np.float32(0)

    class State(NamedTuple):
        params: dict
        steps: int

    def step(state, images, labels, key, clock):
        seen.append(f"step {state.steps}")
        return State({}, state.steps + 1), Loss(state.steps)

    def device_put(*arguments, put=jax.device_put, **options):
        seen.append("send")
        return put(*arguments, **options)

    source = feed(IMAGES.view(Gathered), LABELS, Spread(None), "host")
    monkeypatch.setattr(jax, "device_put", device_put)
    run_epoch(step, State({}, 0), source, Recipe(epochs=1, batch=10), 0, jax.random.key(0))
    bring = ["gather", "send"]
    first, second = [*bring, "step 0", *bring, "step 1", "wait 0"], [*bring, "step 2", "wait 1"]
    assert seen == [*first, *second, *bring, "step 3", "wait 2"]


def test_no_batches_at_all():
    assert list(feed(IMAGES, LABELS, Spread(None), "host").batches(ORDER[:0])) == []


def test_an_unknown_placement_is_named():
    with pytest.raises(InputError, match="did you mean 'device'"):
        feed(IMAGES, LABELS, Spread(None), "devise")

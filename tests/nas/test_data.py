"""Splits, hashing, loading by name / path / function, and the listing."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import textwrap
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hw_models import discover
from hw_models.errors import InputError
from nas import data as data_layer
from nas.data import Data, content_hash, split
from nas.data_source import load
from nas.stratify import stratified


@pytest.fixture(scope="module")
def shipped() -> Data:
    return load("fashion_mnist_10k")


def make_data(count: int = 60, classes: int = 3, channels: int = 1, seed: int = 0) -> Data:
    random = np.random.default_rng(seed)
    images = random.integers(0, 256, (count, 4, 5, channels), np.uint8)
    labels = (np.arange(count) % classes).astype(np.int32)
    names = tuple(f"class {k}" for k in range(classes))
    return Data(
        "made", images[: count // 2], labels[: count // 2], images[count // 2 :], labels[count // 2 :], names, ""
    )


def pictures(images: np.ndarray) -> set[bytes]:
    return {image.tobytes() for image in images}


# --- splits


def test_split_of_the_shipped_set_is_exactly_stratified(shipped: Data) -> None:
    splits = split(shipped, validation=1000, seed=3)
    for labels, each in ((splits.train_labels, 700), (splits.validation_labels, 100), (splits.test_labels, 200)):
        assert np.bincount(labels).tolist() == [each] * 10


def test_no_image_is_in_two_parts_and_none_is_lost(shipped: Data) -> None:
    splits = split(shipped, validation=1000, seed=5)
    train, validation, test = map(pictures, (splits.train_images, splits.validation_images, splits.test_images))
    assert (len(train), len(validation), len(test)) == (7000, 1000, 2000)  # no image occurs twice in the shipped set
    assert not train & validation and not train & test and not validation & test
    assert train | validation == pictures(shipped.images)


def test_labels_stay_with_their_images(shipped: Data) -> None:
    label_of = {image.tobytes(): label for image, label in zip(shipped.images, shipped.labels, strict=True)}
    splits = split(shipped, validation=500, seed=1, train=500)
    for images, labels in (
        (splits.train_images, splits.train_labels),
        (splits.validation_images, splits.validation_labels),
    ):
        assert [label_of[image.tobytes()] for image in images] == labels.tolist()


def test_same_seed_same_split_other_seed_other_split_same_test(shipped: Data) -> None:
    first, again, other = (split(shipped, 1000, seed) for seed in (0, 0, 1))
    assert content_hash(first) == content_hash(again) != content_hash(other)
    assert pictures(first.validation_images) != pictures(other.validation_images)
    np.testing.assert_array_equal(first.test_images, other.test_images)
    np.testing.assert_array_equal(first.test_images, shipped.test_images)
    np.testing.assert_array_equal(first.test_labels, other.test_labels)


def test_split_does_not_drift_between_versions(shipped: Data) -> None:
    # Golden value: a change here silently changes what every seeded run was trained on.
    splits = split(shipped, validation=1000, seed=0)
    assert splits.train_labels[:12].tolist() == GOLDEN_TRAIN_LABELS
    assert content_hash(shipped) == GOLDEN_HASH


GOLDEN_TRAIN_LABELS = [9, 9, 9, 9, 9, 5, 5, 5, 5, 9, 9, 9]
GOLDEN_HASH = "9972b979c0773832945d2e03d2ae44cb82dd6d58e21e8c61eab9de96ce4dc28a"


def test_validation_does_not_depend_on_how_much_is_trained_on(shipped: Data) -> None:
    whole, small = split(shipped, 1000, seed=2), split(shipped, 1000, seed=2, train=300)
    np.testing.assert_array_equal(whole.validation_images, small.validation_images)
    assert np.bincount(small.train_labels).tolist() == [30] * 10
    assert pictures(small.train_images) < pictures(whole.train_images)


def test_images_of_a_part_are_in_random_order(shipped: Data) -> None:
    labels = split(shipped, 1000, seed=0).train_labels
    changes = np.count_nonzero(np.diff(labels))
    assert 0.87 * len(labels) < changes < 0.93 * len(labels)  # a random order of 10 equal classes changes 9 times in 10


@pytest.mark.parametrize("channels", [1, 3])
def test_mean_and_std_are_those_of_the_training_images(channels: int) -> None:
    splits = split(make_data(20_000, channels=channels), validation=3000, seed=0)
    scaled = splits.train_images.astype(np.float64) / 255
    np.testing.assert_allclose(splits.mean, scaled.mean(axis=(0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(splits.std, scaled.std(axis=(0, 1, 2)), rtol=1e-6)
    assert splits.mean.dtype == splits.std.dtype == np.float32


def test_a_constant_channel_has_std_one() -> None:
    flat = dataclasses.replace(make_data(), images=np.full((30, 4, 5, 1), 51, np.uint8))
    splits = split(flat, validation=6, seed=0)
    assert (splits.mean[0], splits.std[0]) == (np.float32(0.2), 1.0)


@settings(max_examples=100, deadline=None)
@given(
    counts=st.lists(st.integers(2, 30), min_size=2, max_size=6),
    shares=st.tuples(st.floats(0, 1), st.floats(0, 1.1)),
    seed=st.integers(0, 9),
)
def test_stratified_parts_for_any_class_sizes(counts: list[int], shares: tuple[float, float], seed: int) -> None:
    validation = round(shares[0] * sum(counts))
    train = round(shares[1] * (sum(counts) - validation))
    labels = np.repeat(np.arange(len(counts)) * 3, counts)
    np.random.default_rng(seed).shuffle(labels)
    sizes = {"validation": validation, "train": train}
    possible = (
        min(validation, train) >= len(counts)
        and validation + train <= sum(counts)
        and validation <= sum(counts) - len(counts)
    )
    if not possible:
        with pytest.raises(InputError):
            stratified(labels, sizes, seed)
        return
    parts = stratified(labels, sizes, seed)
    assert [len(parts["validation"]), len(parts["train"])] == [validation, train]
    both = np.concatenate(list(parts.values()))
    assert len(np.unique(both)) == validation + train
    drawn = np.bincount(labels[parts["validation"]] // 3, minlength=len(counts))
    assert drawn.min() >= 1 and np.bincount(labels[parts["train"]] // 3, minlength=len(counts)).min() >= 1


@settings(max_examples=100, deadline=None)
@given(counts=st.lists(st.integers(5, 40), min_size=2, max_size=6), share=st.floats(0.25, 0.75))
def test_stratified_counts_follow_the_largest_remainder(counts: list[int], share: float) -> None:
    size = round(share * sum(counts))
    labels = np.repeat(np.arange(len(counts)), counts)
    drawn = np.bincount(labels[stratified(labels, {"validation": size}, 0)["validation"]])
    # By its definition: the floors, plus one for the classes with the largest fractions.
    quota = [Fraction(size * count, sum(counts)) for count in counts]
    expected = [int(each) for each in quota]
    largest_first = sorted(range(len(counts)), key=lambda k: -(quota[k] - int(quota[k])))
    for k in largest_first[: size - sum(expected)]:
        expected[k] += 1
    gap = [abs(each - float(part)) for each, part in zip(drawn, quota, strict=True)]
    assert max(gap) < 1
    # Equal fractions may be served in any order, so compare how far the counts are from the quotas, not the counts.
    assert sum(gap) == pytest.approx(float(sum(abs(e - q) for e, q in zip(expected, quota, strict=True))))


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ({"validation": 2, "seed": 0}, "at least 3"),
        ({"validation": 6, "seed": -1}, "seed -1"),
        ({"validation": 6, "seed": 0.5}, "seed 0.5"),
        ({"validation": 6.0, "seed": 0}, "whole number"),
        ({"validation": 6, "seed": 0, "train": 25}, "more than the 30"),
        ({"validation": 30, "seed": 0}, "train part of 0"),
    ],
)
def test_impossible_splits_are_one_line_errors(arguments: dict, part: str) -> None:
    with pytest.raises(InputError) as caught:
        split(make_data(), **arguments)
    assert part in str(caught.value) and "'made'" in str(caught.value) and "\n" not in str(caught.value)


def test_a_class_too_small_to_split_is_named() -> None:
    lone = dataclasses.replace(make_data(), labels=np.array([2] + [0, 1] * 14 + [1], np.int32))
    with pytest.raises(InputError, match=r"class 2 has too few images \(1\)"):
        split(lone, validation=6, seed=0)


# --- the type and its hash


def test_content_hash_sees_content_and_nothing_else() -> None:
    data = make_data()
    assert content_hash(data) == content_hash(dataclasses.replace(data, name="x", source="y", license="z"))
    pixel, label = data.images.copy(), data.test_labels.copy()
    pixel[3, 2, 1, 0] ^= 1
    label[0] = (label[0] + 1) % 3
    others = [
        dataclasses.replace(data, images=pixel),
        dataclasses.replace(data, test_labels=label),
        dataclasses.replace(data, class_names=("a", "b", "c")),
        dataclasses.replace(
            data, images=data.images.reshape(30, 5, 4, 1), test_images=data.test_images.reshape(30, 5, 4, 1)
        ),
        dataclasses.replace(data, images=data.test_images, test_images=data.images),
    ]
    assert len({content_hash(each) for each in [data, *others]}) == 6


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"images": np.zeros((30, 4, 5, 1), np.float32)}, "float32"),
        ({"images": np.zeros((30, 4, 5), np.uint8)}, "[30, 4, 5]"),
        ({"images": np.zeros((0, 4, 5, 1), np.uint8), "labels": np.zeros(0, np.int32)}, "at least one"),
        ({"labels": np.zeros(29, np.int32)}, "30 images"),
        ({"labels": np.zeros(30, np.int64)}, "int64"),
        ({"labels": np.full(30, 3, np.int32)}, "label 3 is out of range"),
        ({"test_labels": np.full(30, -1, np.int32)}, "label -1 is out of range"),
        ({"test_images": np.zeros((30, 5, 5, 1), np.uint8)}, "4x5x1"),
    ],
)
def test_malformed_data_is_refused(change: dict, part: str) -> None:
    with pytest.raises(InputError) as caught:
        dataclasses.replace(make_data(), **change)
    assert part in str(caught.value) and "\n" not in str(caught.value)


# --- load


def test_load_from_a_function() -> None:
    made = make_data()
    grey = made.images[..., 0]
    four = load(lambda: (grey, made.labels.astype(np.int64), made.test_images, made.test_labels))
    np.testing.assert_array_equal(four.images, made.images)
    assert four.labels.dtype == np.int32 and four.class_names == ("0", "1", "2")
    assert load(lambda: made) is made

    def mine(count: int) -> tuple[np.ndarray, np.ndarray]:
        return made.images[:count], made.labels[:count]

    two = load(mine, count=30)
    assert (two.name, len(two.images), len(two.test_images)) == ("mine", 24, 6)
    assert np.bincount(two.test_labels).tolist() == [2, 2, 2]
    assert content_hash(two) == content_hash(load(mine, count=30))


def test_load_from_a_dotted_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "flynas_own_arrays.py").write_text(
        textwrap.dedent("""
        import numpy as np
        def shapes(count=12):
            return np.zeros((count, 8, 8, 3), np.uint8), np.arange(count) % 2
        wrong = 3
        """)
    )
    monkeypatch.syspath_prepend(tmp_path)
    own = load("flynas_own_arrays.shapes", count=20)
    assert own.images.shape == (16, 8, 8, 3) and own.source == "function flynas_own_arrays.shapes"
    for name, part in (
        ("flynas_own_arrays.wrong", "no function 'wrong'"),
        ("flynas_no_such.shapes", "can be imported"),
    ):
        with pytest.raises(InputError, match=part):
            load(name)


@pytest.mark.parametrize(
    ("value", "part"),
    [
        (3, "returned int"),
        ((np.zeros((4, 2, 2, 1)), np.zeros(4, int)), "float64"),
        ((np.zeros((4, 2, 2, 1), np.uint8), np.zeros(4)), "whole numbers"),
        ((np.zeros((4, 2, 2, 1), np.uint8), np.eye(4, dtype=int)), "a row of whole numbers"),
        ((np.zeros((4, 2, 2, 1), np.uint8), np.array([0, 1, 0, 10**9])), "label 1000000000 for 4 images"),
        ((np.zeros((4, 2, 2, 1), np.uint8), np.array([0, 0, 0, 1])), "too few images"),
    ],
)
def test_useless_functions_are_one_line_errors(value: object, part: str) -> None:
    with pytest.raises(InputError, match=part):
        load(lambda: value)


@pytest.mark.parametrize(
    ("source", "options", "part"),
    [
        ("fashion_mnist10k", {}, "did you mean 'fashion_mnist_10k'"),
        ("digits", {"sise": 3}, "unknown option 'sise'"),
        ("image_folder", {}, "'folder' is missing"),
        ("./no/such/folder", {}, "does not exist"),
        (7, {}, "7 is not allowed"),
    ],
)
def test_unknown_sources_and_options(source: Any, options: dict, part: str) -> None:
    with pytest.raises(InputError, match=part):
        load(source, **options)


# --- the listing


def test_listing_names_every_data_set() -> None:
    entries = data_layer.listing()
    assert [entry["name"] for entry in entries] == list(discover.names("nas.datasets"))
    assert [e["name"] for e in entries] == [
        "cifar10",
        "cifar100",
        "digits",
        "fashion_mnist",
        "fashion_mnist_10k",
        "image_folder",
    ]
    keys = ["name", "found", "where", "images", "how_to_get", "license", "description"]
    for entry in json.loads(json.dumps(entries)):
        assert list(entry) == keys
        assert entry["found"] == bool(entry["where"]) and entry["how_to_get"] and entry["license"]


def test_listing_and_shipped_set_need_no_network_and_nothing_heavy() -> None:
    code = """
        import sys
        def refuse(event, arguments):
            assert event not in ("socket.connect", "socket.getaddrinfo", "urllib.Request"), event
        sys.addaudithook(refuse)
        from nas import data, data_source
        data.listing()
        data.split(data_source.load("fashion_mnist_10k"), 1000, 0)
        heavy = {"sklearn", "PIL", "pandas", "matplotlib", "ray"} & set(sys.modules)
        assert not heavy, heavy
        """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)


def test_download_of_a_set_without_address() -> None:
    with pytest.raises(InputError, match="pip install scikit-learn"):
        data_layer.download("digits")
    with pytest.raises(InputError, match="unknown data set"):
        data_layer.download("digitz")


def test_the_line_for_a_person(shipped: Data) -> None:
    line = split(shipped, validation=1000, seed=0).text()
    assert line.startswith("fashion_mnist_10k: 7,000 / 1,000 / 2,000 images") and "from the FlyNAS package" in line

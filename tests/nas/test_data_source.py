"""How a run finds its images again, which of them stand for all, and whether they fit a network."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from hw_models.errors import InputError
from nas.data import check_fits, split
from nas.data_source import is_dotted, load, reference
from nas.stratify import drawn


def test_a_reference_loads_the_same_images_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    (tmp_path / "my_lab.py").write_text("def images():\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    import my_lab  # type: ignore[import-not-found]

    folder = str(tmp_path / "photos")
    assert [reference(given) for given in ("photos", "./photos", Path("photos"), folder)] == [folder] * 4
    assert reference("digits") == "digits" and reference("my_lab.images") == "my_lab.images"
    assert reference(my_lab.images) == "my_lab.images"
    assert reference(load) == "nas.data_source.load"

    def inner() -> object:
        return load("digits")

    assert [reference(given) for given in (inner, lambda: load("digits"), load("digits"), None)] == [None] * 4


def test_options_in_the_text_reach_the_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_lab_of_options.py").write_text(
        "import numpy as np\n"
        "def images(count: int, folder: str = '', bright: bool = False):\n"
        "    return np.full((count, 4, 4), 200 if bright else 100, np.uint8), np.arange(count) % 2\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    data = load("my_lab_of_options.images[count=20, bright=true]")
    assert len(data.images) + len(data.test_images) == 20 and data.images.max() == 200
    (tmp_path / "1").mkdir()
    text = reference("my_lab_of_options.images[count=20,folder=1]")
    assert text == f"my_lab_of_options.images[count=20,folder={tmp_path / '1'}]" and len(load(text).images) == 16
    assert is_dotted("my_lab_of_options.images[folder=/x]") and not is_dotted("fashion_mnist[folder=my.lab/x]")
    (tmp_path / "odd[1]").mkdir()
    assert reference("odd[1]") == str(tmp_path / "odd[1]")
    for wrong, said in [
        ("my_lab_of_options.images[count=x]", "count=x is not allowed: give a whole number"),
        ("my_lab_of_options.images[cont=20]", "did you mean 'count'"),
        ("my_lab_of_options.images", "option 'count' is missing"),
        ("my_lab_of_options.images[count]", "option 'count' needs the form name=value"),
        ("fashion_mnist[folder=1]", "'1' has no train-images"),
        ("./photos[size=none]", "size=none is not allowed"),
    ]:
        with pytest.raises(InputError, match=said):
            load(wrong)
    with pytest.raises(InputError, match="option 'count' is given twice"):
        load("my_lab_of_options.images[count=20]", count=10)


def test_a_fixed_sample_is_fixed_and_a_sample() -> None:
    rows = drawn(1000, 100)
    assert np.array_equal(rows, drawn(1000, 100)) and len(set(rows.tolist())) == 100 and rows.max() < 1000
    assert np.array_equal(rows, drawn(1000, 300)[:100]) and 400 < rows.mean() < 600


def test_one_rule_says_which_images_fit() -> None:
    splits = split(load("digits"), 200, 0)
    check_fits(splits, "the network", 8, 1, 10, "fix")
    for sizes, said in [((28, 1, 10), "28x28x1"), ((8, 3, 10), "takes 8x8x3"), ((8, 1, 9), "made for 9: change it")]:
        with pytest.raises(InputError, match=said):
            check_fits(splits, "the network", *sizes, "change it")
    odd = dataclasses.replace(splits, validation_images=splits.validation_images[:, :4])
    with pytest.raises(InputError, match="4x8x1"):
        check_fits(odd, "the network", 8, 1, 10, "fix")

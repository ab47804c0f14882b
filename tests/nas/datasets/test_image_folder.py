"""A folder of one's own images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hw_models.errors import InputError
from nas.data import content_hash, split
from nas.data_source import load

Image = pytest.importorskip("PIL.Image", reason="needs Pillow")


def paint(path: Path, color: object, size: tuple[int, int] = (6, 5), mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, color).save(path)


def flat_folder(root: Path, each: int = 10) -> Path:
    for position, name in enumerate(("birch", "ash")):
        for number in range(each):
            paint(root / name / f"{number:02}.png", (100 * position, number, 7))
    return root


def test_classes_without_train_and_test_folders(tmp_path: Path) -> None:
    data = load(str(flat_folder(tmp_path / "trees")))
    assert data.name == "trees" and data.class_names == ("ash", "birch") and data.source == str(tmp_path / "trees")
    assert data.images.shape == (16, 5, 6, 3) and data.test_images.shape == (4, 5, 6, 3)
    assert np.bincount(data.test_labels).tolist() == [2, 2]
    assert (data.images[data.labels == 0, 0, 0, 0] == 100).all()  # ash was painted with 100, birch with 0
    numbers = sorted([*data.images[data.labels == 0, 0, 0, 1], *data.test_images[data.test_labels == 0, 0, 0, 1]])
    assert numbers == list(range(10))
    assert content_hash(data) == content_hash(load(tmp_path / "trees"))
    assert len(split(data, validation=4, seed=1).train_labels) == 12


def test_train_and_test_folders_are_kept_apart(tmp_path: Path) -> None:
    for name in ("a", "b"):
        for number in range(3):
            paint(tmp_path / "train" / name / f"{number}.png", (1, number, 0))
        paint(tmp_path / "test" / name / "0.PNG", (2, 0, 0))
        (tmp_path / "test" / name / "notes.txt").write_text("not an image")
        (tmp_path / "test" / name / ".hidden.png").write_text("not an image")
    data = load(tmp_path)
    assert set(data.images[..., 0].ravel()) == {1} and set(data.test_images[..., 0].ravel()) == {2}
    assert data.labels.tolist() == [0, 0, 0, 1, 1, 1] and data.test_labels.tolist() == [0, 1]


def test_grey_and_size(tmp_path: Path) -> None:
    flat_folder(tmp_path)
    paint(tmp_path / "ash" / "wide.png", (255, 255, 255), size=(40, 20))
    with pytest.raises(InputError, match="wide.png' is 40x20 but the first image is 6x5: give size="):
        load(tmp_path)
    data = load(tmp_path, size=8, grey=True)
    assert data.images.shape[1:] == (8, 8, 1)
    assert data.images.max() == 255 or data.test_images.max() == 255


def test_size_cuts_to_the_centre_instead_of_squeezing(tmp_path: Path) -> None:
    for name in ("a", "b"):
        for number in range(5):
            file = tmp_path / name / f"{number}.png"
            paint(file, "black", size=(30, 10))
            picture = Image.open(file)
            picture.paste("white", (10, 0, 20, 10))
            picture.save(file)
    assert (load(tmp_path, size=10).images == 255).all()


def test_transparent_pixels_become_white_and_palettes_are_resolved(tmp_path: Path) -> None:
    for name in ("a", "b"):
        for number in range(4):
            paint(tmp_path / name / f"{number}.png", (10, 20, 30, 0), mode="RGBA")
        palette = Image.new("RGB", (6, 5), (255, 255, 255)).convert("P")
        palette.save(tmp_path / name / "palette.gif")
    data = load(tmp_path)
    assert (data.images == 255).all() and (data.test_images == 255).all()


def _unreadable(root: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (50, 60, 3), np.uint8)
    Image.fromarray(noise).save(root / "ash" / "03.png")
    whole = (root / "ash" / "03.png").read_bytes()
    (root / "ash" / "03.png").write_bytes(whole[: len(whole) // 2])


def _text(root: Path) -> None:
    (root / "ash" / "03.png").write_text("not a picture")


def _deep(root: Path) -> None:
    Image.fromarray(np.full((5, 6), 3000, np.uint16)).save(root / "ash" / "03.png")


def _few(root: Path) -> None:
    for file in sorted((root / "birch").iterdir())[2:]:
        file.unlink()


def _one_class(root: Path) -> None:
    for file in (root / "birch").iterdir():
        file.unlink()
    (root / "birch").rmdir()


def _only_train(root: Path) -> None:
    paint(root / "train" / "a" / "0.png", "red")


def _other_classes(root: Path) -> None:
    for part, names in (("train", "ab"), ("test", "ac")):
        for name in names:
            for number in range(2):
                paint(root / part / name / f"{number}.png", "red")


@pytest.mark.parametrize(
    ("break_it", "part"),
    [
        (_unreadable, "03.png' is not a readable image"),
        (_text, "03.png' is not a readable image"),
        (_deep, "03.png' has more than 8 bits"),
        (_few, "birch' has 2 image(s), at least 3"),
        (_one_class, "has 1 class folder(s)"),
        (_only_train, "has 'train' but not both"),
        (_other_classes, "class 'b' is only in train or only in test"),
    ],
)
def test_errors_are_one_line_and_name_the_culprit(tmp_path: Path, break_it: Callable[[Path], None], part: str) -> None:
    flat_folder(tmp_path)
    break_it(tmp_path)
    with pytest.raises(InputError) as caught:
        load(tmp_path)
    assert part in str(caught.value) and str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("size", [0, -3, 2.5, True])
def test_useless_sizes(tmp_path: Path, size: object) -> None:
    with pytest.raises(InputError, match="size .* is not allowed"):
        load(flat_folder(tmp_path), size=size)


def test_not_a_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist: give the path"):
        load(tmp_path / "nowhere")

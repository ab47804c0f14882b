"""The full Fashion-MNIST: where it is looked for, how it is fetched and checked, and that it is the official one."""

from __future__ import annotations

import gzip
import hashlib
import struct
from pathlib import Path

import numpy as np
import pytest

from hw_models.errors import InputError
from nas import data as data_layer
from nas.data_source import load
from nas.datasets import fashion_mnist

DEBIAN_FOLDER = Path(fashion_mnist.DEBIAN[0])
needs_debian = pytest.mark.skipif(not DEBIAN_FOLDER.is_dir(), reason="needs the Debian package dataset-fashion-mnist")

# The MD5 sums in Zalando's README are of the packed files, whose headers hold a name and a time. Debian's files are the
# same streams without name and time; the times (31 August 2017) were found by trial.
OFFICIAL = {
    "train-images-idx3-ubyte": (1504176606, "8d4fb7e6c68d591d4c3dfef9ec88bf0d"),
    "train-labels-idx1-ubyte": (1504176606, "25c81989df183df01b3e8a0aad5dffbe"),
    "t10k-images-idx3-ubyte": (1504176627, "bef4ecab320f06d8554ea6380940ec79"),
    "t10k-labels-idx1-ubyte": (1504176627, "bb300cfdad3c16e7a12a480ee83cd310"),
}


@needs_debian
@pytest.mark.parametrize("name", OFFICIAL)
def test_our_checksums_are_those_of_the_official_files(name: str) -> None:
    debian = (DEBIAN_FOLDER / f"{name}.gz").read_bytes()
    assert debian[3] == 0  # no name in the header, so the stream starts at byte 10
    time_stamp, md5 = OFFICIAL[name]
    header = b"\x1f\x8b\x08\x08" + struct.pack("<I", time_stamp) + b"\x00\x03" + name.encode() + b"\x00"
    official = header + debian[10:]
    assert hashlib.md5(official).hexdigest() == md5
    assert hashlib.sha256(gzip.decompress(official)).hexdigest() == fashion_mnist.SHA256[name]


@needs_debian
def test_the_full_set_from_the_debian_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("FLYNAS_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    data = load("fashion_mnist")
    assert data.images.shape == (60_000, 28, 28, 1) and data.test_images.shape == (10_000, 28, 28, 1)
    assert np.bincount(data.labels).tolist() == [6000] * 10 and np.bincount(data.test_labels).tolist() == [1000] * 10
    assert data.source == str(DEBIAN_FOLDER) == fashion_mnist.status().where


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder 'official' with four tiny files that take the place of the published ones; nothing else is found."""
    official = tmp_path / "official"
    official.mkdir()
    random = np.random.default_rng(0)
    sums = {}
    for part, count in (("train", 20), ("t10k", 10)):
        arrays = {
            f"{part}-images-idx3-ubyte": random.integers(0, 256, (count, 28, 28), np.uint8),
            f"{part}-labels-idx1-ubyte": np.arange(count, dtype=np.uint8) % 10,
        }
        for name, array in arrays.items():
            raw = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()
            (official / f"{name}.gz").write_bytes(gzip.compress(raw))
            sums[name] = hashlib.sha256(raw).hexdigest()
    monkeypatch.setattr(fashion_mnist, "SHA256", sums)
    monkeypatch.setattr(fashion_mnist, "DEBIAN", (str(tmp_path / "debian"),))
    monkeypatch.setattr(fashion_mnist, "ADDRESSES", (f"file://{tmp_path}/dead/", f"file://{official}/"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("FLYNAS_DATA", raising=False)
    return official


def test_files_may_be_plain_or_packed(tiny: Path) -> None:
    packed = load("fashion_mnist", folder=str(tiny))
    for file in list(tiny.iterdir())[:2]:
        file.with_suffix("").write_bytes(gzip.decompress(file.read_bytes()))
        file.unlink()
    mixed = load("fashion_mnist", folder=tiny)
    assert data_layer.content_hash(packed) == data_layer.content_hash(mixed)


def test_folders_are_tried_in_order(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not fashion_mnist.status().found
    cache, debian, own = tmp_path / "cache/flynas/fashion_mnist", tmp_path / "debian", tmp_path / "own/fashion_mnist"
    monkeypatch.setenv("FLYNAS_DATA", str(own.parent))
    for place in (cache, debian, own):  # last to first
        place.mkdir(parents=True)
        for file in tiny.iterdir():
            (place / file.name).write_bytes(file.read_bytes())
        assert fashion_mnist.status().where == str(place) == fashion_mnist.dataset().source
    assert fashion_mnist.dataset(tiny).source == str(tiny)


def test_missing_data_says_how_to_get_it_and_fetches_nothing(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("urllib.request.urlopen", lambda *_, **__: pytest.fail("asked the network"))
    with pytest.raises(InputError) as caught:
        fashion_mnist.dataset()
    message = str(caught.value)
    for part in ("flynas data --download fashion_mnist", "apt install dataset-fashion-mnist", "FLYNAS_DATA", "debian"):
        assert part in message
    assert "\n" not in message
    (tiny / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(InputError, match=r"official' has no t10k-labels-idx1-ubyte\[.gz\]"):
        fashion_mnist.dataset(tiny)


def test_download_goes_to_the_cache_and_is_found_there(tiny: Path, tmp_path: Path) -> None:
    place = data_layer.download("fashion_mnist")
    assert place == tmp_path / "cache/flynas/fashion_mnist" and len(list(place.iterdir())) == 4
    assert fashion_mnist.dataset().source == str(place)


def test_download_only_when_needed(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = fashion_mnist.dataset(tmp_path / "new", download=True)
    assert data.source == str(tmp_path / "new")
    monkeypatch.setattr(fashion_mnist, "ADDRESSES", ())
    assert fashion_mnist.dataset(tmp_path / "new", download=True).source == data.source
    assert fashion_mnist.download(tmp_path / "new") == tmp_path / "new"
    (tmp_path / "new" / "t10k-images-idx3-ubyte.gz").write_bytes(b"half a file")
    with pytest.raises(InputError, match="t10k-images-idx3-ubyte.gz' cannot be read .* delete it"):
        fashion_mnist.download(tmp_path / "new")


def test_a_wrong_or_dead_download_leaves_nothing_behind(tiny: Path, tmp_path: Path) -> None:
    file = tiny / "train-labels-idx1-ubyte.gz"
    file.write_bytes(gzip.compress(gzip.decompress(file.read_bytes()) + b"\0"))
    with pytest.raises(InputError) as caught:
        fashion_mnist.download(tmp_path / "new")
    message = str(caught.value)
    assert "train-labels-idx1-ubyte.gz" in message and "damaged or another file" in message and "dead" in message
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["train-images-idx3-ubyte.gz"]


def test_another_data_set_in_the_same_format_is_refused(tiny: Path) -> None:
    file = tiny / "t10k-labels-idx1-ubyte.gz"
    raw = bytearray(gzip.decompress(file.read_bytes()))
    raw[-1] ^= 1
    file.write_bytes(gzip.compress(raw))
    with pytest.raises(InputError, match="t10k-labels-idx1-ubyte.gz' is damaged or another file"):
        fashion_mnist.dataset(tiny)

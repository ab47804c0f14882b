"""Checkpoints of a training, written by Orbax: what it needs to go on, and whose they are.

The search keeps snapshots of its own in the run folder (`nas/store.py`).
"""

from __future__ import annotations

import dataclasses
import hashlib
import warnings
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import numpy as np

from hw_models.errors import InputError
from nas.plain import arrays_of, plain, tree_from
from nas.store import said_of_versions, versions
from nas.training.recipe import Recipe
from nas.types import Key
from search_spaces.space import SearchSpace

REMOVE = "give another folder, or remove this one to start again"
ANSWER = 1e-3  # by how much answers of one teacher may differ, which depend on threads and machines

# for what is kept as a hash or as numbers, which say nothing to a person
DIFFER = {
    "images": "the images differ",
    "labels": "the labels differ",
    "normalisation": "mean and deviation of the images differ",
    "start": "the weights to start from differ",
    "teacher": "the teachers differ",
}


def identity(
    space: SearchSpace,
    data: Any,
    recipe: Recipe,
    key: Key,
    variables: Any,
    distillation: float,
    teacher: Any = None,
    runs: str = "",
) -> Any:
    """What a checkpoint belongs to, as plain values; arrays are kept as hashes, with what a person recognises.

    `data` has the fields of `nas.training.standalone.Images`, `variables` is a PyTree of arrays or None; `teacher` is
    the teacher's logits for some images `[N, classes]`, None without one; `runs` what else the bits depend on.

    Example:
        >>> from nas.training.standalone import Images
        >>> from search_spaces.spaces import tiny
        >>> data = Images(np.zeros((3, 8, 8, 1), np.uint8), np.zeros(3, np.int32), np.zeros(1), np.ones(1))
        >>> found = identity(tiny.space().freeze([0] * 6), data, Recipe(), jax.random.key(3), None, 0.0)
        >>> found["key"], found["images"], found["start"]
        ([0, 3], '3 of 8x8x1 (hash 5d5b3f175708948f)', 'fresh ones')
    """
    count, *size = data.images.shape
    return {
        "space": f"{space.name}#{space.fingerprint}",
        "images": f"{count:,} of {'x'.join(map(str, size))} (hash {hash_of(data.images)})",
        "labels": f"{len(data.labels):,} (hash {hash_of(data.labels)})",
        "normalisation": f"{np.asarray(data.mean).tolist()} and {np.asarray(data.std).tolist()}",
        "start": "fresh ones" if variables is None else f"given ones (hash {hash_of(variables)})",
        "key": np.asarray(jax.random.key_data(key)).tolist(),
        # numbers, for they are computed: another machine finds the same up to rounding
        "teacher": "none" if teacher is None else _answers(np.asarray(teacher, np.float64)),
        "distillation": distillation,
        "runs": runs,
        **{f"recipe.{name}": value for name, value in dataclasses.asdict(recipe).items()},
    }


def hash_of(tree: Any) -> str:
    """What tells a PyTree of arrays from any other: names, types, shapes and contents.

    Example:
        >>> hash_of({"w": np.zeros(2)}) == hash_of({"w": np.ones(2)})
        False
    """
    digest = hashlib.sha256()
    for name, array in arrays_of(tree).items():
        digest.update(f"{name}{array.dtype}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:16]


def _answers(logits: np.ndarray) -> list[float]:
    """One number for each image, in which every class counts differently."""
    return [float(f"{number:.6g}") for number in logits @ np.cos(np.arange(logits.shape[-1]))]


def _same(name: str, there: Any, here: Any) -> bool:
    if name != "teacher" or not isinstance(there, list) or not isinstance(here, list):
        return bool(there == here)
    old, new = np.asarray(there, float), np.asarray(here, float)  # a None becomes a NaN
    return old.shape == new.shape and np.allclose(old, new, rtol=ANSWER, atol=ANSWER, equal_nan=True)


def _shown(name: str, value: Any) -> Any:
    return f"one that answers {value[0]}, ..." if name == "teacher" and isinstance(value, list) else value


class Checkpoints:
    """The checkpoints in one folder, of one training; the newest is kept, and it is complete or not there at all.

    A training may go on with other threads, versions or on another machine (`nas.store.versions`), where its last bits
    may differ: that is a warning. A checkpoint remembers all under which its training ran.

    Raises:
        InputError: the folder cannot be used, or holds checkpoints of something else, which is named.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     Checkpoints(folder, {"space": "tiny"}).save(2, {"w": np.ones(3)})
        ...     Checkpoints(folder, {"space": "tiny"}).restored({"w": np.zeros(3)})
        (2, {'w': array([1., 1., 1.])})
    """

    def __init__(self, folder: str | Path, whose: Mapping[str, Any]):
        self.folder, self.whose = Path(folder).resolve(), dict(plain(whose))
        self._under: list[Any] = [plain(versions())]
        if self.folder.exists() and not self.folder.is_dir():
            raise InputError(f"{self.folder} is a file: give a folder for checkpoints")
        if self.folder.is_dir() and any(
            not entry.name.isdecimal() and "tmp" not in entry.name for entry in self.folder.iterdir()
        ):
            raise InputError(f"{self.folder} holds other things than checkpoints: give another folder")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{self.folder} cannot be written ({error.strerror}): give another folder") from error

    @cached_property
    def _orbax(self) -> tuple[Any, Any]:
        """Orbax' manager of the folder and its arguments: seconds to import, for trainings shorter than that."""
        import orbax.checkpoint as ocp

        options = ocp.CheckpointManagerOptions(max_to_keep=1, enable_async_checkpointing=False)
        return ocp.CheckpointManager(self.folder, options=options), ocp.args

    def save(self, epoch: int, state: Any) -> None:
        """Keep `state`, a PyTree of arrays, after `epoch` epochs.

        Raises:
            InputError: it cannot be written.
        """
        arrays = arrays_of(state)
        about = {"whose": self.whose, "leaves": _leaves(arrays), "versions": self._under}
        numbered = {str(number): array for number, array in enumerate(arrays.values())}
        try:
            manager, args = self._orbax
            content = args.Composite(state=args.StandardSave(numbered), about=args.JsonSave(about))
            manager.save(epoch, args=content, force=True)
        except Exception as error:  # Orbax and its storage layer raise many kinds
            fix = "free space or correct that; the same call goes on from the last one that was"
            raise InputError(f"{self.folder}: checkpoint {epoch} cannot be written ({_line(error)}): {fix}") from error

    def restored(self, template: Any) -> tuple[int, Any]:
        """`(epochs done, state)` of the newest checkpoint, in the structure of `template`; `(0, template)` without one.

        Raises:
            InputError: a checkpoint of something else, one of another version, or one that cannot be read.
        """
        if not epochs_kept(self.folder):
            return 0, template
        manager, args = self._orbax
        epoch = manager.latest_step()
        if epoch is None:  # what there is was not finished
            return 0, template
        try:
            about = manager.restore(epoch, args=args.Composite(about=args.JsonRestore()))["about"]
            self._compare(about["whose"])
            arrays = arrays_of(template)
            if about["leaves"] != _leaves(arrays):
                raise InputError(f"{self.folder}: the checkpoint is of another version of this package: {REMOVE}")
            numbered = {str(number): np.zeros_like(array) for number, array in enumerate(arrays.values())}
            found = manager.restore(epoch, args=args.Composite(state=args.StandardRestore(numbered)))["state"]
        except InputError:
            raise
        except Exception as error:  # Orbax and its storage layer raise many kinds
            raise InputError(f"{self.folder}: checkpoint {epoch} cannot be read ({_line(error)}): {REMOVE}") from error
        state = tree_from(template, dict(zip(arrays, (found[name] for name in numbered), strict=True)))
        here = self._under[-1]
        others = [there for there in about["versions"] if there != here]
        if others:
            warnings.warn(f"{self.folder}: {said_of_versions(others[0], here)}", RuntimeWarning, stacklevel=2)
        self._under = [*others, here]
        return epoch, state

    def _compare(self, stored: Mapping[str, Any]) -> None:
        if set(stored) != set(self.whose):
            raise InputError(f"{self.folder}: the checkpoint is of another version of this package: {REMOVE}")
        for name, here in self.whose.items():
            there = stored[name]
            if not _same(name, there, here):
                what = f"{DIFFER[name]}," if name in DIFFER else f"{name} is"
                raise InputError(
                    f"{self.folder} holds a checkpoint of another training, {what} {_shown(name, there)} there and "
                    f"{_shown(name, here)} here: {REMOVE}"
                )


def epochs_kept(folder: str | Path) -> int:
    """After how many epochs the newest checkpoint in `folder` was made, 0 where there is none or no such folder.

    Example:
        >>> epochs_kept("no such folder")
        0
    """
    numbers = (entry.name for entry in Path(folder).glob("*") if entry.is_dir() and entry.name.isdecimal())
    return max(map(int, numbers), default=0)


def _leaves(arrays: Mapping[str, np.ndarray]) -> list[list[Any]]:
    return [[name, str(array.dtype), list(array.shape)] for name, array in arrays.items()]


def _line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:120]

"""Checkpoints of a training, written by Orbax: what it needs to go on, and whose they are.

The search keeps snapshots of its own in the run folder (`nas/store.py`).
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import numpy as np

from hw_models.errors import InputError
from nas.plain import arrays_of, plain, tree_from
from nas.training.recipe import Recipe
from nas.types import Key
from search_spaces.space import SearchSpace


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
    """What a checkpoint belongs to, as plain values; `data` and `variables` are PyTrees of arrays and kept as hashes.

    `teacher` is what the teacher says to some images, None without one; `runs` what else the bits depend on.

    Example:
        >>> from search_spaces.spaces import tiny
        >>> space = tiny.space().freeze([0] * 6)
        >>> identity(space, (np.zeros(2),), Recipe(), jax.random.key(3), None, 0.0)["key"]
        [0, 3]
    """
    return {
        "space": f"{space.name}#{space.fingerprint}",
        "data": _hash(data),
        "start": "fresh" if variables is None else _hash(variables),
        "key": np.asarray(jax.random.key_data(key)).tolist(),
        "distillation": distillation,
        "teacher": "none" if teacher is None else _hash(teacher),
        "runs": runs,
        **{f"recipe.{name}": value for name, value in dataclasses.asdict(recipe).items()},
    }


def _hash(tree: Any) -> str:
    digest = hashlib.sha256()
    for name, array in arrays_of(tree).items():
        digest.update(f"{name}{array.dtype}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:16]


class Checkpoints:
    """The checkpoints in one folder, of one training; the newest is kept, and it is complete or not there at all.

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
        if self.folder.exists() and not self.folder.is_dir():
            raise InputError(f"{self.folder} is a file: give a folder for checkpoints")
        if self.folder.is_dir() and any(
            not entry.name.isdigit() and "tmp" not in entry.name for entry in self.folder.iterdir()
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
        about = {"whose": self.whose, "leaves": _leaves(arrays)}
        numbered = {str(number): array for number, array in enumerate(arrays.values())}
        try:
            manager, args = self._orbax
            content = args.Composite(state=args.StandardSave(numbered), about=args.JsonSave(about))
            manager.save(epoch, args=content, force=True)
        except Exception as error:  # Orbax and its storage layer raise many kinds
            fix = "free space or correct that, and the same call goes on from the one before"
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
        remove = "give another folder, or remove this one to start again"
        try:
            about = manager.restore(epoch, args=args.Composite(about=args.JsonRestore()))["about"]
            self._compare(about["whose"], remove)
            arrays = arrays_of(template)
            if about["leaves"] != _leaves(arrays):
                raise InputError(f"{self.folder}: the checkpoint is of another version of this package: {remove}")
            numbered = {str(number): np.zeros_like(array) for number, array in enumerate(arrays.values())}
            found = manager.restore(epoch, args=args.Composite(state=args.StandardRestore(numbered)))["state"]
        except InputError:
            raise
        except Exception as error:  # Orbax and its storage layer raise many kinds
            raise InputError(f"{self.folder}: checkpoint {epoch} cannot be read ({_line(error)}): {remove}") from error
        return epoch, tree_from(template, dict(zip(arrays, (found[name] for name in numbered), strict=True)))

    def _compare(self, stored: Mapping[str, Any], remove: str) -> None:
        for name in (*self.whose, *(name for name in stored if name not in self.whose)):
            there, here = stored.get(name), self.whose.get(name)
            if there != here:
                raise InputError(
                    f"{self.folder} holds a checkpoint of another training, {name} is {there} there and {here} here: "
                    f"{remove}"
                )


def epochs_kept(folder: str | Path) -> int:
    """After how many epochs the newest checkpoint in `folder` was made, 0 where there is none or no such folder.

    Example:
        >>> epochs_kept("no such folder")
        0
    """
    return max((int(entry.name) for entry in Path(folder).glob("*") if entry.name.isdigit()), default=0)


def _leaves(arrays: Mapping[str, np.ndarray]) -> list[list[Any]]:
    return [[name, str(array.dtype), list(array.shape)] for name, array in arrays.items()]


def _line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:120]

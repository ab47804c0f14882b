"""From what a person gives to images, and back to text for a run to remember.

Data is given as a name (a file in `nas/datasets/`), as the path of a folder of images, or as a function of one's own.
Options of a data set follow in brackets: `fashion_mnist[folder=/data/fashion]`, `./photos[size=32,grey=true]`.
"""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hw_models import discover
from hw_models.errors import InputError
from nas.data import PACKAGE, Data, check_part, hold_out
from search_spaces.options import annotation_of, bracketed, typed


class _Found(NamedTuple):
    """What a source stands for: the function that reads the images, its name for a person, the options it is given."""

    function: Callable[..., Any]
    what: str
    options: Mapping[str, Any]
    own: bool = False


def load(source: str | os.PathLike[str] | Callable[..., Any], **options: Any) -> Data:
    """The data set that `source` stands for.

    `source` is a name from `nas/datasets/`, a folder of images (see `nas/datasets/image_folder.py`), or your own
    function, given as such or by its dotted name (`"my_lab.mushrooms"`). A function returns a `Data`, or the arrays
    `(images, labels, test_images, test_labels)`, or `(images, labels)`, of which a fifth is then set aside as test
    images (stratified, the same ones every time). `options` go to the data set's function; text may hold them in
    brackets, `"fashion_mnist[folder=/data/fashion]"`.

    Raises:
        InputError: an unknown name or option, data that is not there (with the ways to get it) or is damaged.

    Example:
        >>> load("fashion_mnist_10k").images.shape
        (8000, 28, 28, 1)
    """
    source, written = _split(source)
    found = _find(source)
    parameters = inspect.signature(found.function).parameters
    given = dict(found.options)
    for option, text in written.items():
        entry = parameters.get(option)
        given[option] = text if entry is None else typed(option, text, annotation_of(entry, default=True))
    for option, value in options.items():
        if option in given:
            raise InputError(f"{found.what}: option '{option}' is given twice: keep one")
        given[option] = value
    value = _call(found.function, found.what, given)
    return _as_data(found.function, value) if found.own else value


def is_dotted(source: Any) -> bool:
    """Whether `source` is the dotted name of a function, options or not, which may lie in the working directory.

    Example:
        >>> is_dotted("my_lab.mushrooms[folder=./x]"), is_dotted("./photos"), is_dotted("digits")
        (True, False, False)
    """
    name, _ = _split(source)
    return isinstance(name, str) and not _is_folder(name) and discover.is_dotted(name)


def _split(source: Any) -> tuple[Any, dict[str, str]]:
    """A source without the options in brackets, and those; a folder may have brackets in its name."""
    if not isinstance(source, str) or not source.endswith("]") or os.path.isdir(source):
        return source, {}
    return bracketed(source, f"data '{source}'")


def _is_folder(source: str | os.PathLike[str]) -> bool:
    name = os.fspath(source)
    return isinstance(source, os.PathLike) or os.sep in name or "/" in name or os.path.isdir(name)


def _find(source: Any) -> _Found:
    if not isinstance(source, str | os.PathLike):
        if not callable(source):
            raise InputError(f"data {source!r} is not allowed: give a name, a folder or a function")
        return _Found(source, _named(source), {}, own=True)
    name = os.fspath(source)
    known = discover.names(PACKAGE)
    if name in known:
        return _Found(discover.load(PACKAGE, name, "dataset", "data set"), f"data set '{name}'", {})
    if _is_folder(source):
        function = discover.load(PACKAGE, "image_folder", "dataset")
        return _Found(function, f"image folder '{name}'", {"folder": source})
    if discover.is_dotted(name):
        function = _function(name)
        return _Found(function, _named(function), {}, own=True)
    raise discover.unknown("data set", name, known)


def _function(name: str) -> Callable[..., Any]:
    module, _, attribute = name.rpartition(".")
    try:
        function = getattr(importlib.import_module(module), attribute, None)
    except ModuleNotFoundError as error:
        if error.name is None or not (module == error.name or module.startswith(error.name + ".")):
            raise
        raise InputError(f"data '{name}': no module '{module}' can be imported") from error
    if not callable(function):
        raise InputError(f"data '{name}': module '{module}' has no function '{attribute}'")
    return function


def _call(function: Callable[..., Any], what: str, options: Mapping[str, Any]) -> Any:
    parameters = inspect.signature(function).parameters
    for option in options:
        if option not in parameters and not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            raise InputError(f"{what}: {discover.unknown('option', option, parameters)}")
    for parameter in parameters.values():
        optional = parameter.default is not parameter.empty or parameter.kind in (
            parameter.VAR_KEYWORD,
            parameter.VAR_POSITIONAL,
        )
        if parameter.name not in options and not optional:
            raise InputError(f"{what}: option '{parameter.name}' is missing: give {parameter.name}=...")
    return function(**options)


def _named(function: Callable[..., Any]) -> str:
    return f"data function '{getattr(function, '__name__', type(function).__name__)}'"


def _as_data(function: Callable[..., Any], value: Any) -> Data:
    """What a function of one's own returned."""
    name, what = getattr(function, "__name__", type(function).__name__), _named(function)
    if isinstance(value, Data):
        return value
    if not isinstance(value, tuple) or len(value) not in (2, 4):
        raise InputError(
            f"{what} returned {type(value).__name__}: return a Data, or arrays (images, labels) or "
            "(images, labels, test_images, test_labels)"
        )
    arrays = [np.asarray(array) for array in value]
    images = [array[..., None] if array.ndim == 3 else array for array in arrays[0::2]]
    for array in arrays[1::2]:
        if array.dtype.kind not in "iu" or array.ndim != 1:
            raise InputError(
                f"{what} returned labels {array.dtype} {list(array.shape)}: return a row of whole numbers from 0"
            )
    labels = [array.astype(np.int32) for array in arrays[1::2]]
    highest = max(int(array.max(initial=0)) for array in arrays[1::2])
    if highest >= len(labels[0]):
        raise InputError(
            f"{what} returned label {highest} for {len(labels[0])} images: number the classes 0, 1, 2, ..."
        )
    class_names = tuple(str(label) for label in range(highest + 1))
    source = f"function {getattr(function, '__module__', '?')}.{name}"
    if len(arrays) == 4:
        return Data(name, images[0], labels[0], images[1], labels[1], class_names, source, "yours")
    check_part(name, "its", images[0], labels[0], class_names)
    return hold_out(name, images[0], labels[0], class_names, source, "yours")


def reference(source: Any) -> str | None:
    """Text that `load` takes for the same data as `source`, from any working directory; None for arrays.

    A name stays as it is, the path of a folder becomes absolute, that of an option `folder` as well, a function becomes
    its dotted name. A function that cannot be imported by name (a lambda, or one of the program that was started) gives
    None as well.

    Example:
        >>> reference("digits"), reference(Path("/photos/../birds")), reference(lambda: None)
        ('digits', '/birds', None)
        >>> reference("fashion_mnist[folder=/data/../fashion]")
        'fashion_mnist[folder=/fashion]'
    """
    source, options = _split(source)
    if isinstance(source, str | os.PathLike):
        name = os.fspath(source)
        if name not in discover.names(PACKAGE) and _is_folder(source):
            name = str(Path(name).resolve())
        texts = [f"{option}={_absolute(option, text)}" for option, text in options.items()]
        return f"{name}[{','.join(texts)}]" if texts else name
    if not callable(source):
        return None
    module, name = getattr(source, "__module__", None), getattr(source, "__qualname__", "")
    importable = module not in (None, "__main__") and getattr(sys.modules.get(module), name, None) is source
    return f"{module}.{name}" if importable else None


def _absolute(option: str, text: str) -> str:
    return str(Path(text).resolve()) if option == "folder" else text

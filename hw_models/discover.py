"""The folder is the registry: a module's file name is the name of the thing it defines.

`names("nas.strategies")` lists the modules of a package, `load("nas.strategies", "nsga2", "strategy")` returns the
attribute that every module of that package defines. A dotted name (`"my_lab.hill_climb"`) loads code from outside the
project. Modules whose name starts with an underscore are private and not listed.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.resources
import importlib.util
import pkgutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hw_models.errors import InputError


def names(package: str) -> tuple[str, ...]:
    """Names of the public modules in `package`, sorted.

    Example:
        >>> "errors" in names("hw_models")
        True
    """
    found = importlib.import_module(package).__path__
    return tuple(sorted(module.name for module in pkgutil.iter_modules(found) if not module.name.startswith("_")))


def resource_names(package: str, suffix: str) -> tuple[str, ...]:
    """Stems of the data files in `package` that end in `suffix`, sorted.

    Example:
        >>> "raspberry_pi_4" in resource_names("hw_models.devices", ".toml")
        True
    """
    files = importlib.resources.files(package).iterdir()
    return tuple(sorted(file.name.removesuffix(suffix) for file in files if file.name.endswith(suffix)))


def read_resource(package: str, suffix: str, kind: str, name_or_path: str | Path) -> tuple[str, str, bytes]:
    """Name, file and content of a data file: one of `package` by its name, or any by a path that ends in `suffix`.

    `kind` is what a person calls it, for errors.

    Raises:
        InputError: no such name or file.

    Example:
        >>> read_resource("hw_models.devices", ".toml", "device", "zcu102")[:2]
        ('zcu102', 'zcu102.toml')
    """
    text = str(name_or_path)
    if text.endswith(suffix):
        path = Path(text)
        if not path.is_file():
            raise InputError(
                f"{kind} file '{text}' does not exist: give a path to a {suffix} file or a name of a {kind}"
            )
        return path.stem, text, path.read_bytes()
    known = resource_names(package, suffix)
    if text not in known:
        raise unknown(kind, text, known)
    return text, text + suffix, (importlib.resources.files(package) / (text + suffix)).read_bytes()


def is_dotted(name: str) -> bool:
    """Whether `name` is that of a module outside the project.

    Example:
        >>> is_dotted("my_lab.hill_climb"), is_dotted("hill_climb"), is_dotted("./hill_climb")
        (True, False, False)
    """
    return "." in name and all(part.isidentifier() for part in name.split("."))


def unknown(kind: str, name: str, allowed: Iterable[str], where: str = "") -> InputError:
    """An error for a name that is not among `allowed`, suggesting the nearest one; `where` it was found, if in a file.

    Example:
        >>> print(unknown("strategy", "nsga", ["nsga2", "random_search"]))
        unknown strategy 'nsga': did you mean 'nsga2'? (known: nsga2, random_search)
        >>> print(unknown("device", "A100", ["a100", "v100"]))
        unknown device 'A100': did you mean 'a100'? (known: a100, v100)
    """
    allowed = sorted(allowed)
    # Names of ours are in lower case: A100 is a100 rather than v100.
    near = difflib.get_close_matches(name.lower(), allowed, n=1, cutoff=0.5)
    hint = f": did you mean '{near[0]}'?" if near else ""
    place = f" in {where}" if where else ""
    return InputError(f"unknown {kind} '{name}'{place}{hint} (known: {', '.join(allowed) or 'none'})")


def load(package: str, name: str, attribute: str, kind: str | None = None, where: str = "") -> Any:
    """The `attribute` of module `name` in `package`, or of the dotted module `name` outside the project.

    `kind` is what a person calls it, `where` the file that names it; both are for errors.

    Raises:
        InputError: no such module, or the module lacks `attribute`.

    Example:
        >>> load("hw_models", "errors", "InputError").__name__
        'InputError'
    """
    kind = kind or package.rsplit(".", 1)[-1].removesuffix("s").replace("_", " ")
    module = _module(package, name, kind, where)
    if not hasattr(module, attribute):
        raise InputError(f"{kind} '{name}': its module defines no '{attribute}'")
    return getattr(module, attribute)


def load_optional(package: str, name: str, attribute: str, otherwise: Any = None) -> Any:
    """The `attribute` of a module as by `load`, or `otherwise` where the module does not define it.

    Raises:
        InputError: no such module.

    Example:
        >>> load_optional("hw_models", "errors", "NoSuchThing", 3)
        3
    """
    return getattr(_module(package, name, package.rsplit(".", 1)[-1], ""), attribute, otherwise)


def _module(package: str, name: str, kind: str, where: str) -> Any:
    if is_dotted(name):
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or not (name == error.name or name.startswith(error.name + ".")):
                raise
            place = f"'{name}'{f' in {where}' if where else ''}"
            raise InputError(f"unknown {kind} {place}: no module of that dotted name can be imported") from error
    if name in names(package):
        return importlib.import_module(f"{package}.{name}")
    raise unknown(kind, name, names(package), where)

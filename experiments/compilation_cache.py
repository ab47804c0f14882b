"""Compiled programs that are kept between processes, by JAX's persistent cache: the second command starts fast.

JAX's key of a program holds the program itself, the versions of JAX and XLA, XLA's flags and the features of the
processor, so that a folder may be shared by machines. A program from the cache computes the same bits.
"""

from __future__ import annotations

import os
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

SWITCH = "FLYNAS_COMPILATION_CACHE"
"""Environment variable: `off`, or a folder in place of the user's cache folder."""

FOLDER = "JAX_COMPILATION_CACHE_DIR"
SETTINGS = {
    "JAX_COMPILATION_CACHE_MAX_SIZE": str(4 << 30),  # bytes; the least recently used go first
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
}


def default_folder() -> Path:
    """The user's cache folder, as the XDG base directory specification names it.

    Example:
        >>> default_folder().parts[-2:]
        ('flynas', 'jax')
    """
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if os.path.isabs(base) else Path("~/.cache").expanduser()) / "flynas" / "jax"


def switch_on() -> Path | None:
    """Keep the programs that this process and those it starts compile; the folder, or None where it is not ours.

    Does nothing where the user told JAX of a folder, or switched it off. A folder that cannot be written costs only the
    cache, and is said on standard error. Call it before anything is compiled.

    Example:
        >>> import os, unittest.mock
        >>> with unittest.mock.patch.dict(os.environ, {SWITCH: "off"}):
        ...     switch_on()
    """
    wanted = os.environ.get(SWITCH, "")
    if FOLDER in os.environ or wanted.lower() == "off":
        return None
    jax = sys.modules.get("jax")
    if jax is not None and jax.config.jax_compilation_cache_dir:
        return None
    try:
        folder = Path(wanted).expanduser().resolve() if wanted else default_folder()
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except (OSError, RuntimeError) as error:  # RuntimeError: a user without a home
        why = getattr(error, "strerror", None) or error
        print(
            f"note: compiled programs are not kept, their folder cannot be written ({why}): "
            f"set {SWITCH} to another folder, or to off",
            file=sys.stderr,
        )
        return None
    settings = {FOLDER: str(folder), **SETTINGS}
    if find_spec("filelock") is None:  # what JAX needs to hold the folder to a size
        del settings["JAX_COMPILATION_CACHE_MAX_SIZE"]
    for name, value in settings.items():
        if name not in os.environ:
            os.environ[name] = value  # also for the processes that this one starts
            if jax is not None:  # it has read its environment
                now = getattr(jax.config, name.lower())
                jax.config.update(name.lower(), value if now is None else type(now)(value))
    return folder

"""How a run remembers its images: as text from which `nas.data.load` finds them again."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from hw_models import discover
from nas.data import PACKAGE


def reference(source: Any) -> str | None:
    """Text that `nas.data.load` takes for the same data as `source`, from any working directory; None for arrays.

    A name stays as it is, the path of a folder becomes absolute, a function becomes its dotted name. A function that
    cannot be imported by name (a lambda, or one of the program that was started) gives None as well.

    Example:
        >>> reference("digits"), reference(Path("/photos/../birds")), reference(lambda: None)
        ('digits', '/birds', None)
    """
    if isinstance(source, str | os.PathLike):
        name = os.fspath(source)
        if name in discover.names(PACKAGE):
            return name
        is_path = isinstance(source, os.PathLike) or os.sep in name or "/" in name or Path(name).is_dir()
        return str(Path(name).resolve()) if is_path else name
    if not callable(source):
        return None
    module, name = getattr(source, "__module__", None), getattr(source, "__qualname__", "")
    importable = module not in (None, "__main__") and getattr(sys.modules.get(module), name, None) is source
    return f"{module}.{name}" if importable else None

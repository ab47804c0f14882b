"""What experiments that are stopped and go on share: rows in a file with the settings they belong to, and an end."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hw_models.errors import InputError


def rows_of(file: Path, settings: Mapping[str, Any], named: str = "rows") -> dict[str, Any]:
    """The rows that `file` keeps under `named`; none where there is no file.

    Raises:
        InputError: they are of other settings.

    Example:
        >>> rows_of(Path("no/such/file.json"), {"epochs": 3})
        {}
    """
    if not file.is_file():
        return {}
    found = json.loads(file.read_text())
    if found["settings"] != dict(settings):
        raise InputError(f"{file} holds results of {found['settings']}: give the same settings, or another --out")
    return dict(found[named])


def run_main(main: Callable[[], None]) -> None:
    """Run a command: bad input and an interruption end it in one line, without a traceback.

    Example:
        >>> run_main(lambda: print("done"))
        done
    """
    try:
        main()
    except InputError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("stopped; the same command goes on")

"""Results of searches, one JSON file each: `FOLDER/problem/who/seed.json`. What is there is not searched again.

A result of `genes45` is `{"cpu_s", "compile_s", "counts", "hypervolume", "front"}`, of other problems
`{"proposals", "rows": [[proposal, *objectives], ...]}` with every evaluated network once (see `search_judges.py`).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


class Kept:
    """The results below a folder.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     kept = Kept(Path(folder))
        ...     kept.save("macro", "nsga2", 3, {"proposals": 1, "rows": []})
        ...     kept.missing("macro", "nsga2", [3, 4]), kept.who("macro"), len(kept.of("macro", "nsga2"))
        ([4], ['nsga2'], 1)
    """

    def __init__(self, folder: Path):
        self.folder = folder

    def _file(self, problem: str, who: str, seed: int) -> Path:
        return self.folder / problem / who / f"{seed}.json"

    def missing(self, problem: str, who: str, seeds: list[int]) -> list[int]:
        """The seeds without a result."""
        return [seed for seed in seeds if not self._file(problem, who, seed).exists()]

    def save(self, problem: str, who: str, seed: int, result: dict[str, Any]) -> None:
        """Keep a result."""
        file = self._file(problem, who, seed)
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(".part")  # a run that is killed leaves no half of a file
        part.write_text(json.dumps(result))
        part.replace(file)

    def by_seed(self, problem: str, who: str) -> dict[int, dict[str, Any]]:
        """All results of one."""
        files = sorted((self.folder / problem / who).glob("*.json"), key=lambda file: int(file.stem))
        return {int(file.stem): json.loads(file.read_text()) for file in files}

    def of(self, problem: str, who: str) -> list[dict[str, Any]]:
        """All results of one, in the order of seeds."""
        return list(self.by_seed(problem, who).values())

    def who(self, problem: str) -> list[str]:
        """Everybody with a result."""
        return sorted(folder.name for folder in (self.folder / problem).glob("*") if any(folder.glob("*.json")))

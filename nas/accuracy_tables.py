"""Published accuracies of networks: one `.csv.gz` per benchmark in `nas/tables`, looked up by genes.

    # spaces = ["macro"]            # spaces, as text, whose networks the rows are
    # task = "CIFAR-10, test images"
    # training = "from scratch, one run per column"
    # source = "..."
    # licence = "Apache-2.0"
    genes,accuracy_percent_0,accuracy_percent_1
    0.0.1.0.2.0.0.0,64.34,64.21

One column of accuracies per training run. Shape letters: `P` candidates, `D` decisions, `N` rows, `R` runs.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
import math
import tomllib
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hw_models.discover import read_resource, resource_names
from hw_models.errors import InputError
from search_spaces.space import SearchSpace

PACKAGE = "nas.tables"
SUFFIX = ".csv.gz"
HEADER = ("spaces", "task", "training", "source", "licence")
LARGEST_GENE = 1 << 31
LARGEST_KEY = 2**63  # keys are int64


@dataclass(frozen=True, eq=False)
class AccuracyTable:
    """Errors of networks, as fractions.

    Shapes:
        genes: int32 `[N, D]` in the order of `keys`, int64 `[N]`; errors: float32 `[N, R]`; radix: int64 `[D]`.

    `spaces` are the texts of the spaces whose networks these are, `content` a hash of what the file holds.
    """

    name: str
    spaces: tuple[str, ...]
    task: str
    training: str
    source: str
    licence: str
    genes: np.ndarray
    errors: np.ndarray
    keys: np.ndarray
    radix: np.ndarray
    content: str

    @property
    def runs(self) -> int:
        """`R`, how often every network was trained."""
        return int(self.errors.shape[1])

    def rows(self, genes: Any) -> np.ndarray:
        """The row of each of `genes [P, D]`, int `[P]`; -1 where the table has none.

        Example:
            >>> load_accuracy_table("nas_bench_macro").rows([[0] * 8, [2] * 8]).tolist()
            [0, 6560]
        """
        given = np.asarray(genes, np.int64)
        keys = given @ self.radix
        place = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        # compared gene by gene: a value that no row has would share its key with another network
        return np.where((self.genes[place] == given).all(-1), place, -1)


def table_names() -> tuple[str, ...]:
    """Names of the tables that come with the package, sorted.

    Example:
        >>> table_names()
        ('accel_nasbench', 'nas_bench_macro')
    """
    return resource_names(PACKAGE, SUFFIX)


@functools.lru_cache(maxsize=4)
def load_accuracy_table(name_or_path: str | Path) -> AccuracyTable:
    """A shipped table by name, or the one in a file whose path ends in `.csv.gz`.

    Raises:
        InputError: no such table or file, or a file that is wrong, with the row and the reason.

    Example:
        >>> table = load_accuracy_table("nas_bench_macro")
        >>> table.errors.shape, round(float(table.errors.mean(1).min()), 4)
        ((6561, 3), 0.0687)
    """
    name, source, content = read_resource(PACKAGE, SUFFIX, "table of accuracies", name_or_path)
    try:
        text = gzip.decompress(content).decode("utf-8")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise InputError(f"{source}: not a gzip file of text ({error}): pack the CSV with gzip") from error
    return parse_accuracy_table(text, name, source)


def parse_accuracy_table(text: str, name: str, source: str | None = None) -> AccuracyTable:
    """The table in the unpacked text of a file.

    Raises:
        InputError: what is wrong, with the row.

    Example:
        >>> parse_accuracy_table("genes,accuracy_percent_0\\n0.0,50\\n", "mine")
        Traceback (most recent call last):
        ...
        hw_models.errors.InputError: mine: key 'spaces' is missing in the header: add '# spaces = ...' above the columns
    """
    source = source or name
    lines = text.splitlines()
    head = sum(line.startswith("#") for line in lines)
    fields = _header(lines[:head], source)
    columns = lines[head].split(",") if len(lines) > head else []
    wanted = ["genes", *(f"accuracy_percent_{run}" for run in range(max(1, len(columns) - 1)))]
    if columns != wanted:
        raise InputError(f"{source}: columns {','.join(columns) or '(none)'}: name them {','.join(wanted)}")
    if len(lines) == head + 1:
        raise InputError(f"{source}: no rows: give at least one network")
    genes, errors = _rows([line.split(",") for line in lines[head + 1 :]], head + 2, len(columns), source)
    radix = _radix(genes.max(0).astype(np.int64) + 1, source)
    keys = genes.astype(np.int64) @ radix
    order = np.argsort(keys, kind="stable")
    twice = np.flatnonzero(np.diff(keys[order]) == 0)
    if len(twice):
        network = ".".join(map(str, genes[order[twice[0]]]))
        raise InputError(f"{source}: network {network} is there twice: keep one row")
    # hashed before the spaces are looked at: content says what was published, whatever becomes of our spaces
    content = hashlib.sha256(text.encode()).hexdigest()[:16]
    fields["spaces"] = tuple(fields["spaces"])
    return AccuracyTable(name, **fields, genes=genes[order], errors=errors[order], keys=keys[order], radix=radix,
                         content=content)  # fmt: skip


def _header(lines: list[str], source: str) -> dict[str, Any]:
    try:
        data = tomllib.loads("\n".join(line.removeprefix("#") for line in lines))
    except ValueError as error:
        raise InputError(f"{source}: the comment lines at its head are not TOML ({error}): correct them") from error
    for key in HEADER:
        if key not in data:
            raise InputError(f"{source}: key '{key}' is missing in the header: add '# {key} = ...' above the columns")
    if not isinstance(data["spaces"], list) or not data["spaces"]:
        raise InputError(f'{source}: spaces = {data["spaces"]!r} is not allowed: give a list such as ["macro"]')
    return {key: data[key] for key in HEADER}


def _rows(cells: list[list[str]], first: int, width: int, source: str) -> tuple[np.ndarray, np.ndarray]:
    """Genes and errors; a row that cannot be read is looked for only where the whole cannot."""
    try:
        genes = np.asarray([row[0].split(".") for row in cells]).astype(np.int32)
        errors = 1.0 - np.asarray([row[1:] for row in cells]).astype(np.float64) / 100.0
        fits = genes.ndim == 2 and errors.shape[1:] == (width - 1,) and genes.min() >= 0
        if fits and ((errors >= 0) & (errors <= 1)).all():
            return genes, errors.astype(np.float32)
    except (ValueError, OverflowError):
        pass
    decisions = len(cells[0][0].split("."))
    number, row = first, cells[0]
    for number, row in enumerate(cells, first):  # noqa: B007
        good = len(row) == width and row[0].replace(".", "").isdecimal() and row[0].count(".") == decisions - 1
        good = good and all(int(gene) < LARGEST_GENE for gene in row[0].split("."))
        if not good or not all(_percent(cell) for cell in row[1:]):
            break
    raise InputError(
        f"{source}, line {number}: '{','.join(row)}' is not allowed: give {decisions} genes joined by dots, then "
        f"{width - 1} accuracies from 0 to 100"
    )


def _percent(text: str) -> bool:
    try:
        return 0 <= float(text) <= 100
    except ValueError:
        return False


def _radix(counts: np.ndarray, source: str) -> np.ndarray:
    if math.prod(counts.tolist()) >= LARGEST_KEY:
        raise InputError(f"{source}: {len(counts)} decisions are too many: give fewer than 2^63 networks")
    return np.concatenate([np.cumprod(counts[::-1].astype(np.int64))[::-1][1:], np.ones(1, np.int64)])


def table_of(space: SearchSpace, name: str | Path | None = None) -> AccuracyTable:
    """The table called `name`, or the one that has the networks of `space`.

    Raises:
        InputError: no table has them, or the one named has those of another space.

    Example:
        >>> from search_spaces.spaces import macro
        >>> table_of(macro.space()).name
        'nas_bench_macro'
    """
    if name is not None:
        table = load_accuracy_table(name)
        if not _holds(table, space):
            raise InputError(
                f"table {table.name} has no networks of {_text(space)}: search {' or '.join(table.spaces)}, "
                "or name another table"
            )
        return table
    found = [table for table in map(load_accuracy_table, table_names()) if _holds(table, space)]
    if not found:
        known = "; ".join(f"{table} has {', '.join(load_accuracy_table(table).spaces)}" for table in table_names())
        raise InputError(f"no table of accuracies has networks of {_text(space)} ({known}): search one of those spaces")
    return found[0]


def _text(space: SearchSpace) -> str:
    return space.text(np.zeros(space.num_decisions, np.int32)).rsplit(":", 1)[0] if space.num_decisions else space.name


def _holds(table: AccuracyTable, space: SearchSpace) -> bool:
    """By the whole tree, because another resolution or other widths have other accuracies."""
    from search_spaces.texts import resolve

    if getattr(space, "num_decisions", 0) != table.genes.shape[1]:
        return False
    return any(resolve(text, prefer_space=True).space.fingerprint == space.fingerprint for text in table.spaces)

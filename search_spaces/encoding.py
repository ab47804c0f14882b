"""Genes and spaces as text, JSON and gates.

Text: `space[option=value,...]:3.1.0.2#fp8`; options that are defaults are left out, the fingerprint is optional when
read. Gates are a probability matrix `[D, C]` whose rows sum to 1.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import operator
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from hw_models import discover
from hw_models.errors import InputError
from search_spaces.choice import Choice
from search_spaces.density import Sparsity
from search_spaces.options import bracketed
from search_spaces.precision import Scheme
from search_spaces.widths import RULES

if TYPE_CHECKING:
    from search_spaces.space import SearchSpace

# an exported network: its file in the folder, and what the file says of itself
ARCHITECTURE = "architecture.json"
FORMAT, SCHEMA = "flynas network", 1


def one_hot(space: SearchSpace, genes: Array) -> Array:
    """Genes `[D]` as gates `[D, C]`."""
    widest = int(space.cardinality.max(initial=1))
    return (jnp.arange(widest) == jnp.asarray(genes)[:, None]).astype(jnp.float32)


def uniform_gates(space: SearchSpace) -> Array:
    """Gates `[D, C]` under which every value of a decision is equally likely."""
    widest = int(space.cardinality.max(initial=1))
    legal = np.arange(widest) < space.cardinality[:, None]
    return jax.device_put(np.divide(legal, space.cardinality[:, None], dtype=np.float32))


def fingerprint(tree: dict[str, Any]) -> str:
    """Eight hexadecimal characters of the hash of a tree from `to_json`.

    Example:
        >>> len(fingerprint({"name": "demo"}))
        8
    """
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()[:8]


def to_json(item: Any, defaults: bool = True) -> Any:
    """A space, stage, block, width rule or `Choice` as plain data; fields that have their default may be left out.

    Fingerprints are taken without them, so that a new option that is off changes none.
    """
    if isinstance(item, Choice):
        return {"choice": [to_json(value, defaults) for value in item.values]}
    if isinstance(item, tuple):
        return [to_json(value, defaults) for value in item]
    if dataclasses.is_dataclass(item) and not isinstance(item, type):
        fields = {
            field.name: to_json(getattr(item, field.name), defaults)
            for field in dataclasses.fields(item)
            if defaults or getattr(item, field.name) != field.default
        }
        return {"kind": item.kind, **fields} if hasattr(item, "kind") else fields
    # equal values have equal text
    return int(item) if isinstance(item, float) and item.is_integer() else item


def space_from_json(tree: dict[str, Any]) -> SearchSpace:
    """The space that `SearchSpace.to_json` wrote.

    Raises:
        InputError: a key is missing or unknown, or a block kind is not known.
    """
    from search_spaces.space import SearchSpace

    try:
        fields = {name: _parsed(value) for name, value in tree.items()}
        fields["stem"] = _stage(tree["stem"])
        fields["stages"] = tuple(_stage(stage) for stage in tree["stages"])
        fields["scheme"] = None if tree.get("scheme") is None else Scheme(**tree["scheme"])
        fields["sparsity"] = None if tree.get("sparsity") is None else Sparsity(**tree["sparsity"])
        fields["options"] = tuple((name, _parsed(value)) for name, value in tree["options"])
        return SearchSpace(**fields)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"not a search space of this version ({error}): write it again with this version") from error


def _stage(tree: dict[str, Any]) -> Any:
    from search_spaces.stage import Stage

    return Stage(**{name: _parsed(value) for name, value in tree.items()})


def _parsed(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_parsed(entry) for entry in value)
    if isinstance(value, dict) and "choice" in value:
        return Choice(*(_parsed(entry) for entry in value["choice"]))
    if isinstance(value, dict) and "kind" in value:
        kind = RULES.get(value["kind"]) or discover.load("search_spaces.blocks", value["kind"], "block", "block")
        return kind(**{name: _parsed(entry) for name, entry in value.items() if name != "kind"})
    return value


def read_architecture(path: str | Path) -> dict[str, Any]:
    """What the description of an exported network holds; `path` is its folder or the file itself.

    Raises:
        InputError: no such file, not a description of a network, or one of another version.

    Example:
        >>> read_architecture("nowhere")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        hw_models.errors.InputError: nowhere cannot be read (no such file): give an exported folder or its ...
    """
    file = Path(path) / ARCHITECTURE if os.path.isdir(path) else Path(path)
    try:
        content = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = "no such file" if isinstance(error, FileNotFoundError) else str(error)
        raise InputError(f"{file} cannot be read ({why}): give an exported folder or its {ARCHITECTURE}") from error
    try:
        tree = json.loads(content)
        kind, schema, _ = tree["format"], tree["schema"], tree["space"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        why = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
        raise InputError(f"{file} is no exported network ({why}): export it again") from error
    if kind != FORMAT or schema != SCHEMA:
        raise InputError(f"{file} is '{kind}' of schema {schema}, this version reads '{FORMAT}' of schema {SCHEMA}")
    return dict(tree)


def text(space: SearchSpace, genes: np.ndarray) -> str:
    """The line described at the top of this module."""
    chosen = ",".join(f"{name}={value}" for name, value in space.options)
    head = f"{space.name}[{chosen}]" if chosen else space.name
    return f"{head}:{'.'.join(str(int(gene)) for gene in genes)}#{space.fingerprint}"


def split_text(line: str) -> tuple[str, dict[str, str], str, str]:
    """`(space name, options, genes, fingerprint)` of a network text; the last two may be empty.

    Raises:
        InputError: an option that is not `name=value`, or given twice.

    Example:
        >>> split_text("tiny[classes=5]:1.0#0123abcd")
        ('tiny', {'classes': '5'}, '1.0', '0123abcd')
    """
    body, _, mark = line.partition("#")
    head, genes = head_and_genes(body)
    name, chosen = bracketed(head, f"network text '{line}'")
    return name, chosen, genes.strip(), mark.strip()


def head_and_genes(line: str) -> tuple[str, str]:
    """The parts before and after the colon in front of the genes, which is none of those inside brackets.

    Example:
        >>> head_and_genes("tiny[sparsity=2:4]:1.0"), head_and_genes("tiny[sparsity=2:4]")
        (('tiny[sparsity=2:4]', '1.0'), ('tiny[sparsity=2:4]', ''))
    """
    head, *rest = re.split(r":(?![^\[\]]*\])", line, maxsplit=1)
    return head, rest[0] if rest else ""


def has_genes(line: str) -> bool:
    """Whether a network text has a colon in front of genes.

    Example:
        >>> has_genes("tiny[sparsity=2:4]:1.0"), has_genes("tiny[sparsity=2:4]")
        (True, False)
    """
    return head_and_genes(line)[0] != line


def parse(space: SearchSpace, line: str) -> np.ndarray:
    """Genes of a network text; see `SearchSpace.parse`."""
    named = has_genes(line)
    name, options, genes, mark = split_text(line) if named else ("", {}, *_genes_and_mark(line))
    if name and name != space.name:
        raise InputError(f"network text '{line}' is of space '{name}', not '{space.name}'")
    own = dict(space.options)
    for option, value in options.items():
        has = str(own.get(option, getattr(space, option, "its default")))
        if value != has:
            raise InputError(
                f"network text '{line}' has {option}={value}, this space has {option}={has}: give a text of it"
            )
    check_mark(space, mark, line)
    try:
        values = [int(gene) for gene in genes.split(".")] if genes else []
    except ValueError:
        raise InputError(f"genes '{genes}' are not whole numbers joined by dots") from None
    return space.check(values)


def validated(space: SearchSpace, genes: Any) -> np.ndarray:
    """Genes as an int32 array, as they are; see `SearchSpace.validated`."""
    try:
        given = list(genes.tolist() if hasattr(genes, "tolist") else genes)
    except TypeError:
        raise InputError(f"genes {genes!r} are not allowed: give a list of whole numbers") from None
    number, wanted = len(given), space.num_decisions
    if number != wanted:
        beyond = f", the first missing is {space.names[number]}" if number < wanted else ""
        if number > wanted > 0:
            beyond = f", the last is {space.names[-1]}"
        raise InputError(
            f"{number} genes given, space {space.name} has {wanted} decisions{beyond}: give one number per decision"
        )
    for decision, gene in zip(space.decisions, given, strict=True):
        last = len(decision.values) - 1
        if isinstance(gene, bool) or not hasattr(gene, "__index__"):
            raise InputError(f"gene {decision.name} is {gene!r}: give whole numbers, here 0 to {last}")
        if not 0 <= operator.index(gene) <= last:
            listed = ", ".join(map(str, decision.values))
            raise InputError(f"gene {decision.name} is {gene}: give 0 to {last} (values {listed})")
    return np.asarray([operator.index(gene) for gene in given], np.int32)


def check_mark(space: SearchSpace, mark: str, line: str) -> None:
    """Raise InputError unless `mark`, where there is one, is the fingerprint of the space that `line` names.

    Example:
        >>> from search_spaces.spaces import tiny
        >>> check_mark(tiny.space(), "", "tiny")
    """
    if mark and mark != space.fingerprint:
        raise InputError(
            f"network text '{line}' was written for a space with fingerprint {mark}, this one has {space.fingerprint}: "
            "use the same version and options, or drop the part after '#'"
        )


def _genes_and_mark(line: str) -> tuple[str, str]:
    genes, _, mark = line.partition("#")
    return genes, mark

"""Rows of a benchmark: `{"name", "ours", "peer", "ratio", "goal", "met"}`, their table and their file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

Row = dict[str, Any]
HEAD = ("measurement", "ours", "peer", "ours / peer", "goal", "met")


def row(
    name: str,
    ours: float | None,
    peer: float | None = None,
    goal: float | None = None,
    *,
    at_most: bool | None = None,
) -> Row:
    """One measurement; a goal is an upper bound for names in seconds and a lower bound otherwise.

    `at_most` says it where the name does not: True for counts of what should not happen.

    Example:
        >>> row("step_s", 0.5, 2.0, goal=1.0)
        {'name': 'step_s', 'ours': 0.5, 'peer': 2.0, 'ratio': 0.25, 'goal': 1.0, 'met': True}
        >>> row("recompilations", 3.0, goal=0, at_most=True)["met"]
        False
    """
    above = name.endswith("_s") if at_most is None else at_most
    met = None if goal is None or ours is None else (ours <= goal if above else ours >= goal)
    ratio = None if peer is None or ours is None else ours / peer
    return {"name": name, "ours": ours, "peer": peer, "ratio": ratio, "goal": goal, "met": met}


def table_text(rows: Sequence[Row]) -> str:
    """The rows for a person to read, four digits each.

    Example:
        >>> print(table_text([row("step_s", 0.5, 2.0, goal=1.0)]))
        measurement  ours  peer  ours / peer  goal  met
        step_s        0.5     2         0.25     1  yes
    """
    lines = [HEAD] + [
        (
            entry["name"],
            *map(_digits, (entry["ours"], entry["peer"], entry["ratio"], entry["goal"])),
            _yes(entry["met"]),
        )
        for entry in rows
    ]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(line[1:], widths[1:], strict=True))])
        for line in lines
    )


def json_text(rows: Sequence[Row], **also: Any) -> str:
    """What `--json` writes: `{"rows": [...]}` and what else a benchmark says of its run."""
    return json.dumps({"rows": list(rows), **also}, indent=1) + "\n"


def _digits(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _yes(met: bool | None) -> str:
    return "-" if met is None else "yes" if met else "no"

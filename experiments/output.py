"""How commands print: tables for people, plain JSON for programs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


def console() -> Console:
    """A console on the current standard output; without colours and as wide as it needs where that is no terminal.

    Example:
        >>> console().file is sys.stdout
        True
    """
    from rich.console import Console

    if sys.stdout.isatty():
        return Console(highlight=False)
    return Console(highlight=False, width=200, no_color=True, force_terminal=False)


def table(header: Sequence[str], rows: Sequence[Sequence[str]], title: str = "") -> Table:
    """A table of text; columns of numbers are aligned to the right.

    Example:
        >>> table(("name", "size"), [("tiny", "288")]).row_count
        1
    """
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    made = Table(box=SIMPLE_HEAD, pad_edge=False, title=title or None, title_justify="left")
    for position, heading in enumerate(header):
        numbers = all(cell[position][:1].isdigit() or cell[position] in ("", "-") for cell in rows)
        made.add_column(Text(heading), justify="right" if numbers else "left", overflow="fold")
    for row in rows:
        made.add_row(*(Text(cell) for cell in row))
    return made


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]], title: str = "") -> None:
    """Print a `table`; in a file or a pipe without spaces at the ends of lines.

    Example:
        >>> print_table(("name",), [("tiny",)])
        <BLANKLINE>
         name
         ────
         tiny
        <BLANKLINE>
    """
    where = console()
    if where.is_terminal:
        where.print(table(header, rows, title))
        return
    with where.capture() as captured:
        where.print(table(header, rows, title))
    print("\n".join(line.rstrip() for line in captured.get().splitlines()), flush=True)


def pairs(rows: Sequence[tuple[str, str]]) -> None:
    """Print headings and sentences, one pair per line, unwrapped.

    Example:
        >>> pairs([("space", "tiny")])
        space  tiny
    """
    width = max((len(heading) for heading, _ in rows), default=0)
    for heading, sentence in rows:
        print(f"{heading:<{width}}  {sentence}", flush=True)


def print_json(value: Any) -> None:
    """Print `value` as JSON; what is not finite becomes null.

    Example:
        >>> print_json({"name": "tiny", "latency_s": float("inf")})
        {
         "name": "tiny",
         "latency_s": null
        }
    """
    from nas.plain import dumps

    sys.stdout.write(dumps(value, indent=1) + "\n")


def first_line(docstring: str | None) -> str:
    """The first line of a docstring, without the name in front of a colon and without markup.

    Example:
        >>> first_line("`tiny`: 288 encodings, for tests.")
        '288 encodings, for tests.'
    """
    line = (docstring or "").strip().partition("\n")[0].strip()
    if line.startswith("`") and "`: " in line:
        line = line.partition("`: ")[2]
    return line.replace("`", "")

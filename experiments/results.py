"""Runs read back for people: data frames, and the rows of the front as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from experiments.output import print_table
from experiments.quantities import error_of, scale_of, shown
from nas import pareto
from nas.run import UNFINISHED, Record, Run, value_of
from nas.store import load


@dataclass(frozen=True)
class Results(Run):
    """A run with a data frame."""

    def frame(self) -> Any:
        """A pandas data frame, one row per record: what the record holds, objectives, costs, `on_front`.

        A decision is a column `gene:<name>`. Values that are not known are missing.

        Example:
            >>> len(Results(None, {"objective": {"minimize": ["error"]}}, []).frame())
            0
        """
        import pandas as pd

        front = {tuple(record["genes"]) for record in self.front()}
        rows = []
        for record in self.records:
            flat = {name: value for name, value in record.items() if not isinstance(value, dict | list)}
            flat["on_front"] = record["status"] in ("ok", "cached") and tuple(record["genes"]) in front
            flat |= {**record["costs"], **record["objectives"]}
            # `error` of a record says why it failed; the objective of the same name is a number
            flat["failure"] = record["error"]
            flat["error"] = record["objectives"].get("error")
            decoded = record["names"]
            flat |= {f"gene:{name}": value for name, value in decoded.items()} if isinstance(decoded, dict) else {}
            rows.append(flat)
        return pd.DataFrame(rows)


def load_run(path: str | Path) -> Results:
    """Read a run folder, finished or not.

    Raises:
        InputError: not a run, of another schema, or damaged.

    Example:
        >>> load_run("runs/never_made")
        Traceback (most recent call last):
        ...
        hw_models.errors.InputError: there is no run folder runs/never_made: give the --out of a search
    """
    run = load(path)
    return Results(**{field.name: getattr(run, field.name) for field in fields(run)})


def front_header(objectives: Sequence[str]) -> tuple[str, ...]:
    """Headings of `front_rows`.

    Example:
        >>> front_header(("error", "latency_s"))
        ('', 'pick', 'error', 'latency')
    """
    return ("", "pick", *(scale_of(name).label for name in objectives))


def front_rows(records: Sequence[Mapping[str, Any]], objectives: Sequence[str], most: int = 0) -> list[tuple[str, ...]]:
    """The front as text, one row per network; with `most`, that many of them, evenly spaced, the knee among them.

    Example:
        >>> record = {"objectives": {"error": 0.25, "latency_s": 0.002}, "costs": {}}
        >>> front_rows([record], ("error", "latency_s"))
        [('0', 'knee', '25 %', '2 ms')]
    """
    if not records:
        return []
    knee = pareto.knee([[value_of(record, name) for name in objectives] for record in records])
    chosen = list(range(len(records)))
    if most and len(records) > most:
        step = (len(records) - 1) / max(most - 1, 1)
        chosen = sorted({round(i * step) for i in range(most)})
        if knee not in chosen:
            nearest = min(range(len(chosen)), key=lambda i: abs(chosen[i] - knee))
            chosen[nearest] = knee
    rows = []
    for number in chosen:
        mark = "knee" if number == knee else "best" if number == 0 else ""
        rows.append((str(number), mark, *(shown(name, value_of(records[number], name)) for name in objectives)))
    return rows


def print_front(run: Run) -> None:
    """Print the front of a run as a table.

    Example:
        >>> costs = {"latency_s": 2e-3, "weight_bytes": 4e5}
        >>> record = {"status": "ok", "genes": [0], "objectives": {"error": 0.25}, "costs": costs}
        >>> print_front(Run(None, {"objective": {"minimize": ["error", "latency_s", "weight_bytes"]}}, [record]))
        front: 1 network of 1 candidates
        <BLANKLINE>
             pick   error   latency   size of weights
         ────────────────────────────────────────────
         0   knee    25 %      2 ms            400 KB
        <BLANKLINE>
    """
    front = run.front()
    soft = sum(record["status"] == "relaxed" for record in run.records)
    title = f"front: {len(front)} network{'s' if len(front) != 1 else ''} of {len(run.records) - soft} candidates"
    print_table(front_header(run.objectives), front_rows(front, run.objectives), title)
    for line in calibrations(run):
        print(line)


def calibrations(run: Run) -> list[str]:
    """How far the latencies of a run are off, one line for each of its devices that was calibrated.

    Example:
        >>> found = {"typical_error": 0.081, "networks": 30, "precision": "float32", "batch": 1}
        >>> meta = {"objective": {"minimize": ["latency_s"]}, "devices": {"mine": {"calibration": found}}}
        >>> calibrations(Run(None, meta, []))
        ['latency on mine: +- 8.1 %, calibrated on 30 networks in float32 at batch 1']
    """
    if not any(name.partition("@")[0] in ("latency_s", "interval_s") for name in run.objectives):
        return []
    known = {name: device.get("calibration") for name, device in run.meta.get("devices", {}).items()}
    return [
        f"latency on {name}: {error_of(found['typical_error'])}, calibrated on {found['networks']} networks in "
        f"{found['precision']}" + (f" at batch {found['batch']}" if "batch" in found else "")
        for name, found in known.items()
        if found
    ]


def landed(run: Run) -> list[tuple[str, str]]:
    """For a search with a scalar: the network with the lowest, and how far it is from its targets; else nothing.

    Example:
        >>> landed(Run(None, {"objective": {"minimize": ["error"], "scalar": "first"}}, []))
        []
    """
    if not run.has_reward:
        return []
    pick = run.pick("scalar")
    said = [("scalar", pick.network)]
    for name, aim in run.meta["objective"].get("targets", {}).items():
        value = value_of(pick.record, name)
        said.append(("target", f"{name} = {shown(name, aim)}: {shown(name, value)}, {value / aim - 1:+.1%}"))
    return said


def evaluated(records: Sequence[Record]) -> list[Record]:
    """Records whose network was evaluated for them: not those screened out by their costs, nor repeats, nor gates, nor
    trained in part.

    Example:
        >>> evaluated([{"status": status, "objectives": {"error": 0.5}} for status in ("cached", "relaxed")])
        []
    """
    other = ("cached", *UNFINISHED)
    return [r for r in records if r["status"] not in other and r["objectives"].get("error") is not None]

"""What there is to choose from, as plain rows: one function per kind, each entry with `name` and `description`."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from typing import Any

from experiments.output import first_line
from hw_models import discover

Row = dict[str, Any]
ENUMERABLE = 100_000  # encodings


def _described(package: str, name: str) -> Row:
    return {"name": name, "description": first_line(importlib.import_module(f"{package}.{name}").__doc__)}


def _options(function: Callable[..., Any], skip: int = 0) -> Row:
    entries = list(inspect.signature(function).parameters.values())[skip:]
    return {entry.name: None if entry.default is entry.empty else entry.default for entry in entries}


def spaces() -> list[Row]:
    """Search spaces with their defaults: exact number of encodings, decisions, fingerprint.

    Example:
        >>> [row["size"] for row in spaces() if row["name"] == "tiny"]
        [144]
    """
    package, rows = "search_spaces.spaces", []
    for name in discover.names(package):
        function = discover.load(package, name, "space")
        space = function()
        size = {
            "size": space.size,
            "distinct": _distinct(space),
            "decisions": space.num_decisions,
            "fingerprint": space.fingerprint,
        }
        rows.append({**_described(package, name), **size, "options": _options(function)})
    return rows


def _distinct(space: Any) -> int | None:
    """How many networks the encodings of a small space describe; None where there are too many to enumerate."""
    if space.size > ENUMERABLE:
        return None
    import jax
    import numpy as np

    every = np.stack(np.unravel_index(np.arange(space.size), space.cardinality), axis=1).astype(np.int32)
    return len(np.unique(np.asarray(jax.jit(jax.vmap(space.canonical))(every)), axis=0))


def blocks() -> list[Row]:
    """Blocks: their fields, and which of them are true branches or elastic in a supernet.

    Example:
        >>> [row["branches"] for row in blocks() if row["name"] == "flynet"]
        [['kernel', 'expand']]
    """
    package, rows = "search_spaces.blocks", []
    for name in discover.names(package):
        block = discover.load(package, name, "block")
        fields = {"branches": list(block.BRANCHES), "elastic": list(block.ELASTIC), "options": _options(block)}
        rows.append({**_described(package, name), **fields})
    return rows


def _functions(package: str, attribute: str) -> list[Row]:
    return [
        {**_described(package, name), "options": _options(discover.load(package, name, attribute), skip=1)}
        for name in discover.names(package)
    ]


def strategies() -> list[Row]:
    """Search strategies and their options.

    Example:
        >>> "nsga2" in [row["name"] for row in strategies()]
        True
    """
    return _functions("nas.strategies", "strategy")


def evaluators() -> list[Row]:
    """Evaluators and their options.

    Example:
        >>> "supernet" in [row["name"] for row in evaluators()]
        True
    """
    return _functions("nas.evaluators", "evaluator")


def devices() -> list[Row]:
    """Devices: kind, precisions, and where their numbers come from.

    Example:
        >>> [row["kind"] for row in devices() if row["name"] == "zcu102"]
        ['fpga']
    """
    from hw_models import device_names, load_device
    from hw_models.device_file import read_device_text
    from hw_models.keys import keys_of

    rows = []
    for device in map(load_device, device_names()):
        known = dict(device.provenance)
        first = read_device_text(device.name)[2].partition("\n")[0]
        description = first.removeprefix("#").strip() if first.startswith("#") else device.kind
        if keys_of(device.kind).any_width:
            description += " Any integer width."
        rows.append(
            {
                "name": device.name,
                "description": description,
                "kind": device.kind,
                "default_precision": device.default_precision,
                "precisions": list(device.precisions),
                "source": known.get("source", ""),
                "date": known.get("date", ""),
            }
        )
    return rows


def tables() -> list[Row]:
    """Measured tables: of what device, how many rows of what, and where they come from.

    Example:
        >>> [row["rows"] for row in tables() if row["name"] == "pixel1_proxylessnas"]
        [144]
    """
    from hw_models import load_table, table_names

    rows = []
    for table in map(load_table, table_names()):
        rows.append(
            {
                "name": table.name,
                "description": f"{table.device} ({table.kind}), precision {table.precision}, runtime {table.runtime}",
                "device": table.device,
                "kind": table.kind,
                "level": table.level,
                "values": table.values,
                "precision": table.precision,
                "runtime": table.runtime,
                "threads": table.threads,
                "batch": table.batch,
                "rows": len(table.rows),
                "constant_s": table.constant_s,
                "constant_meaning": table.constant_meaning,
                "space": table.space,
                "notes": table.notes,
                "source": table.source,
                "licence": table.licence,
                "date": table.date,
            }
        )
    return rows


def datasets() -> list[Row]:
    """Data sets: whether they were found, where, and how to get them.

    Example:
        >>> "digits" in [row["name"] for row in datasets()]
        True
    """
    from nas.data import listing

    return listing()


def references() -> list[Row]:
    """Published networks: exact counts of ours beside what the paper reports.

    Example:
        >>> [row["params"] for row in references() if row["name"] == "mobilenet_v2"]
        [3504872]
    """
    from search_spaces import published

    rows = []
    for name, entry in published.table().items():
        space = None if entry.network is None else entry.network()
        params, macs = (None, None) if space is None else (space.params, space.macs)
        row: Row = {"name": name, "description": entry.note or entry.source, "params": params, "macs": macs}
        row |= {"paper_params": entry.params, "paper_macs": entry.macs, "source": entry.source}
        row |= {"params_difference": _ratio(params, entry.params), "macs_difference": _ratio(macs, entry.macs)}
        rows.append(row)
    return rows


def _ratio(ours: int | None, paper: float | None) -> float | None:
    return None if ours is None or paper is None else ours / paper - 1


def kernels() -> list[Row]:
    """Implementations of depthwise convolution: which are available here, which one runs.

    Example:
        >>> [row["name"] for row in kernels()]
        ['native', 'scan', 'xla']
    """
    from search_spaces.kernels.depthwise import status

    return [{"name": row["name"], "description": row["reason"], **row} for row in status()]


def quantizers() -> list[Row]:
    """Quantizers of weights and activations: the bits that they know, what they serve, their options.

    Example:
        >>> [row["bits"] for row in quantizers() if row["name"] == "symmetric"]
        ['2 to 16']
    """
    package, rows = "search_spaces.quantizers", []
    for name in discover.names(package):
        kind = discover.load(package, name, "quantizer")
        least, most = kind.BITS
        known = str(least) if least == most else f"{least} to {most}"
        facts = {"bits": known, "serves": ", ".join(kind.SERVES), "learns": kind().learns}
        rows.append({**_described(package, name), **facts, "options": _options(kind)})
    return rows


def configs() -> list[Row]:
    """Shipped configurations for `flynas search`.

    Example:
        >>> "tiny" in [row["name"] for row in configs()]
        True
    """
    from experiments.config import CONFIGS, load_config, to_json

    rows = []
    for name in discover.names(CONFIGS):
        settings = to_json(load_config(name))
        chosen = {part: settings[part]["name"] for part in ("space", "strategy", "evaluator")}
        rows.append(
            {**_described(CONFIGS, name), **chosen, "device": settings["device"], "minimize": settings["minimize"]}
        )
    return rows


KINDS: dict[str, Callable[[], list[Row]]] = {
    "spaces": spaces,
    "blocks": blocks,
    "strategies": strategies,
    "evaluators": evaluators,
    "devices": devices,
    "tables": tables,
    "datasets": datasets,
    "references": references,
    "kernels": kernels,
    "quantizers": quantizers,
    "configs": configs,
}

"""The tables and the picture of `judge_joint.py`, from its rows by `seed/device/way`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from search_summary import cell

from experiments.plots import COLOURS, styled
from nas import pareto

DEVICES, WAYS = ("pixel_1", "pynq_z1_dataflow"), ("joint", "after")
WORST_ERROR = 40.0


def hypervolume(rows: list[dict[str, float]], worst_s: float) -> float:
    """Of trained networks, in percent times decades.

    Example:
        >>> hypervolume([{"error_percent": 30.0, "latency_s": 0.001}], 0.1)
        20.0
    """
    points = [[row["error_percent"], np.log10(row["latency_s"])] for row in rows]
    return round(pareto.hypervolume(points, [WORST_ERROR, np.log10(worst_s)]), 9)


def table(kept: Mapping[str, Any], seeds: list[int], worst_s: Mapping[str, float]) -> str:
    """Hypervolumes, and what was chosen, in Markdown."""
    lines = ["| device | joint | architecture, then compressed | difference | better in |", "|---|---|---|---|---|"]
    chosen = ["| device | way | bits of weights | bits of activations | density |", "|---|---|---|---|---|"]
    for device in DEVICES:
        of = {way: [kept[f"{seed}/{device}/{way}"]["networks"] for seed in seeds] for way in WAYS}
        joint, after = ([hypervolume(rows, worst_s[device]) for rows in of[way]] for way in WAYS)
        apart = [a - b for a, b in zip(joint, after, strict=True)]
        better = f"{sum(each > 0 for each in apart)} of {len(apart)}"
        lines.append(f"| {device} | {cell(joint, 2)} | {cell(after, 2)} | {cell(apart, 2)} | {better} |")
        for way in WAYS:
            means = [
                cell([float(np.mean([row[field] for row in rows])) for rows in of[way]], 2)
                for field in ("weight_bits", "act_bits", "density")
            ]
            chosen.append(f"| {device} | {way} | {' | '.join(means)} |")
    return "\n".join([*lines, "", *chosen])


@styled
def picture(kept: Mapping[str, Any], seeds: list[int]) -> Any:
    """Trained networks of all seeds, one panel for each device."""
    import matplotlib.pyplot as plt
    from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

    figure, axes = plt.subplots(1, len(DEVICES), figsize=(9, 3.6), sharey=True)
    for axis, device in zip(axes, DEVICES, strict=True):
        for colour, marker, way in zip(COLOURS[:2], "o^", WAYS, strict=True):
            rows = [row for seed in seeds for row in kept[f"{seed}/{device}/{way}"]["networks"]]
            x, y = [1e6 * row["latency_s"] for row in rows], [row["error_percent"] for row in rows]
            label = {"joint": "all at once", "after": "architecture, then compressed"}[way]
            axis.scatter(x, y, s=24, color=colour, marker=marker, label=label)
        axis.set_xscale("log")
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter(ScalarFormatter())
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.set_title(device)
        axis.set_xlabel("predicted latency, µs")
    axes[0].set_ylabel("test error, %")
    axes[0].legend()
    return figure

"""How busy networks keep systolic arrays of many sizes: what `flynas plot utilization` prints and draws."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from experiments.plots import COLOURS, INK, styled
from experiments.pricing import resolved
from experiments.quantities import shown
from hw_models.errors import whole
from hw_models.estimate import MAX_BATCH
from hw_models.systolic import network_cycles
from hw_models.workload import Workload

NETWORKS = ("vgg16", "inception_v1", "resnet152", "densenet264")
SIDES = (16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
SQUARES = (64, 128, 256)  # in the table
BUSY = 80  # percent
PLANS = {"ws": "weight stationary", "os": "output stationary", "is": "input stationary"}
LONGEST = 40  # letters of a title
BRIGHT = 0.55  # utilization above which the map is too light for white figures


class Utilization(NamedTuple):
    """A network on every array: `cycles` and `mac_utilization` are `[height, width]` over `sides`."""

    name: str
    macs: int
    sides: tuple[int, ...]
    cycles: np.ndarray
    mac_utilization: np.ndarray

    def best(self) -> tuple[int, int]:
        """Height and width of the array that is busiest; the larger of equals.

        Example:
            >>> Utilization("a", 1, (8, 16), np.ones((2, 2)), np.asarray([[0.5, 0.9], [0.9, 0.2]])).best()
            (16, 8)
        """
        return self._last(self.mac_utilization >= self.mac_utilization.max())

    @property
    def busy(self) -> np.ndarray:
        """Arrays that are at least `BUSY`, in whole percents as printed. bool `[height, width]`"""
        return np.round(self.mac_utilization * 100) >= BUSY

    def largest(self) -> tuple[int, int] | None:
        """Height and width of the busy array with the most multipliers, None if none is busy.

        Example:
            >>> Utilization("a", 1, (8, 16), np.ones((2, 2)), np.asarray([[0.5, 0.9], [0.85, 0.2]])).largest()
            (8, 16)
        """
        return self._last(self.busy) if self.busy.any() else None

    def _last(self, allowed: np.ndarray) -> tuple[int, int]:
        """Of the allowed arrays the one with most multipliers, of these the busiest."""
        heights, widths = np.nonzero(allowed)
        multipliers = np.asarray(self.sides)[heights] * np.asarray(self.sides)[widths]
        place = np.lexsort((self.mac_utilization[heights, widths], multipliers))[-1]
        return self.sides[heights[place]], self.sides[widths[place]]


def utilizations(
    networks: Sequence[str] = NETWORKS,
    dataflow: str = "ws",
    overlap: bool = True,
    batch: int = 1,
    sides: Sequence[int] = SIDES,
) -> list[Utilization]:
    """Networks on arrays of all heights and widths of `sides`, priced in one go (`hw_models.systolic`).

    Depthwise layers run on the array, channel by channel.

    Raises:
        InputError: unknown network or dataflow, a space in place of a network, a batch that cannot be priced.

    Example:
        >>> (one,) = utilizations(["mobilenet_v2"], sides=(16, 128))
        >>> one.best(), one.mac_utilization.shape
        ((16, 16), (2, 2))
    """
    whole("--batch", batch, 1, MAX_BATCH)
    found = [resolved(text) for text in dict.fromkeys(networks)]
    layers = [each.network().lower() for each in found]
    side = jnp.asarray(sides, jnp.float32)
    priced = network_cycles(Workload.stack(layers), side[:, None], side, dataflow, overlap, batch=batch)
    cycles, busy = np.asarray(priced.cycles), np.asarray(priced.mac_utilization)
    return [
        Utilization(each.name, sum(layer.macs for layer in rows), tuple(sides), cycles[number], busy[number])
        for number, (each, rows) in enumerate(zip(found, layers, strict=True))
    ]


def as_json(rows: Sequence[Utilization]) -> list[dict[str, Any]]:
    """One plain object per network; matrices are lists of heights of widths.

    Example:
        >>> as_json([Utilization("a", 1, (8,), np.ones((1, 1)), np.ones((1, 1)))])[0]["best"]
        {'rows': 8, 'cols': 8, 'mac_utilization': 1.0}
    """

    def place(row: Utilization, size: tuple[int, int] | None) -> dict[str, Any] | None:
        if size is None:
            return None
        at = tuple(row.sides.index(side) for side in size)
        return {"rows": size[0], "cols": size[1], "mac_utilization": _short(row.mac_utilization[at])}

    return [
        {
            "name": row.name,
            "macs": row.macs,
            "best": place(row, row.best()),
            f"largest_at_{BUSY}_percent": place(row, row.largest()),
            "rows": list(row.sides),
            "cols": list(row.sides),
            "cycles": [[round(float(value)) for value in line] for line in row.cycles],
            "mac_utilization": [[_short(value) for value in line] for line in row.mac_utilization],
        }
        for row in rows
    ]


def _short(value: Any) -> float:
    return round(float(value), 6)  # digits after these would be float32 noise


def as_table(rows: Sequence[Utilization]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Heading and rows of text.

    Example:
        >>> as_table([Utilization("a", 10**6, (8, 128), np.ones((2, 2)), np.full((2, 2), 0.5))])[1]
        [('a', '1 M', '128 x 128', '50.0%', '-', '50.0%')]
    """
    squares = [side for side in SQUARES if side in rows[0].sides]
    header = ("network", "multiply-acc.", "best array", "busy", f"largest at {BUSY}%",
              *(f"{side} x {side}" for side in squares))  # fmt: skip

    def size(found: tuple[int, int] | None) -> str:
        return "-" if found is None else f"{found[0]} x {found[1]}"

    def busy(row: Utilization, height: int, width: int) -> str:
        return f"{row.mac_utilization[row.sides.index(height), row.sides.index(width)]:.1%}"

    cells = [
        (
            row.name,
            shown("macs", row.macs),
            size(row.best()),
            busy(row, *row.best()),
            size(row.largest()),
            *(busy(row, side, side) for side in squares),
        )  # fmt: skip
        for row in rows
    ]
    return header, cells


@styled
def draw(rows: Sequence[Utilization], dataflow: str = "ws", overlap: bool = True, batch: int = 1) -> Any:
    """One map of array height by width per network, in percent, on one scale; a line goes round what is `BUSY`.

    Example:
        >>> draw([Utilization("a", 1, (8, 16), np.ones((2, 2)), np.ones((2, 2)))]).axes[0].get_title(loc="left")
        'a'
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    across = 1 if len(rows) == 1 else 2 if len(rows) <= 4 else 3
    down = -(-len(rows) // across)
    figure = Figure(figsize=(0.9 + 2.9 * across, 0.6 + 2.9 * down), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(down, across, squeeze=False)
    for axes in grid.flat[len(rows) :]:
        axes.remove()
    for number, (row, axes) in enumerate(zip(rows, grid.flat, strict=False)):
        image = _map(axes, row)
        if number % across == 0:
            axes.set_ylabel("height of the array (rows)")
        if number + across >= len(rows):
            axes.set_xlabel("width of the array (columns)")
    bar = figure.colorbar(image, ax=list(grid.flat[: len(rows)]), shrink=0.6 if down > 1 else 0.9, aspect=30, pad=0.02)
    bar.set_label(f"multipliers busy (%), line at {BUSY}")
    bar.outline.set_visible(False)
    bar.ax.axhline(BUSY, color=COLOURS[1], linewidth=1.1)
    figure.suptitle(caption(dataflow, overlap, batch), x=0.01, ha="left", fontsize=8)
    return figure


def _map(axes: Any, row: Utilization) -> Any:
    """One network in percent, a line round what is busy; the image that the colour bar is of."""
    from matplotlib.collections import LineCollection

    image = axes.imshow(row.mac_utilization * 100, cmap="viridis", vmin=0, vmax=100, origin="lower", aspect="equal")
    for (i, j), value in np.ndenumerate(row.mac_utilization):
        ink = INK if value > BRIGHT else "white"
        axes.text(j, i, f"{value * 100:.0f}", ha="center", va="center", fontsize=6, color=ink)
    for colour, width in (("white", 1.8), (COLOURS[1], 1.1)):
        axes.add_collection(LineCollection(_border(row.busy), colors=colour, linewidths=width))
    name = row.name if len(row.name) <= LONGEST else f"{row.name[: LONGEST - 1]}\N{HORIZONTAL ELLIPSIS}"
    axes.set_title(name, loc="left", weight="bold", parse_math=False)
    places = range(len(row.sides))
    axes.set_xticks(places, row.sides)
    axes.set_yticks(places, row.sides)
    axes.tick_params(length=0, pad=2)
    axes.spines[:].set_visible(False)
    return image


def caption(dataflow: str, overlap: bool, batch: int) -> str:
    """How the networks run.

    Example:
        >>> caption("ws", True, 1)
        'weight stationary, overlapped folds, batch 1'
    """
    return f"{PLANS[dataflow]}, {'overlapped' if overlap else 'serial'} folds, batch {batch}"


def _border(inside: np.ndarray) -> list[list[tuple[float, float]]]:
    """Edges `[(x, y), (x, y)]` between cells that are inside and those that are not."""
    edges = []
    for i, j in zip(*np.nonzero(inside[:, 1:] != inside[:, :-1]), strict=True):
        edges.append([(j + 0.5, i - 0.5), (j + 0.5, i + 0.5)])
    for i, j in zip(*np.nonzero(inside[1:] != inside[:-1]), strict=True):
        edges.append([(j - 0.5, i + 0.5), (j + 0.5, i + 0.5)])
    return edges

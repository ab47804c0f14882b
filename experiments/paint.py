"""Painting a sheet of panels, and its legend, with matplotlib. Lengths are points; y grows downwards."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from experiments.plots import COLOURS, INK
from experiments.sheet import (
    APART,
    ARROW_AT,
    BAR,
    CHIP_HEIGHT,
    CHIP_PAD,
    FRAME,
    GREY,
    GROUND,
    GUTTER,
    LINE,
    PAD,
    PALE,
    SPACE,
    STACK,
    Box,
    Frame,
    Word,
    measured,
)

SAMPLE = 14.0  # width of a frame in the legend


class Key(NamedTuple):
    """An entry of the legend: a word or a frame (`dashed`, `crossed`, `stacked`, `kinds`), and what it means.

    Example:
        >>> Key("dashed", "optional").start
        17.4
    """

    sample: Word | str
    meaning: str

    @property
    def width(self) -> float:
        """Width of the sample and the meaning."""
        return self.start + measured(Word(self.meaning))

    @property
    def start(self) -> float:
        """Where the meaning begins."""
        return (measured(self.sample) if isinstance(self.sample, Word) else SAMPLE) + SPACE


class Paint:
    """Draws on one matplotlib figure of `width` by `height` points.

    Example:
        >>> Paint(144.0, 72.0).figure.get_size_inches().tolist()
        [2.0, 1.0]
    """

    def __init__(self, width: float, height: float):
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        self.figure: Any = Figure(figsize=(width / 72, height / 72))
        FigureCanvasAgg(self.figure)
        self.axes: Any = self.figure.add_axes((0.0, 0.0, 1.0, 1.0))
        self.axes.set_xlim(0, width)
        self.axes.set_ylim(height, 0)
        self.axes.set_axis_off()

    def row(self, entries: Sequence[Sequence[Word]], x: float, y: float) -> None:
        """Entries side by side in the line whose top is `y`."""
        for entry in entries:
            for word in entry:
                self.word(word, x, y)
                x += measured(word) + SPACE
            x += APART - SPACE

    def word(self, word: Word, x: float, y: float) -> None:
        """One word, from `x` in the line whose top is `y`."""
        if word.chip is not None:
            if word.chip != "none":
                self.frame(x, y + 0.9, measured(word), CHIP_HEIGHT, face=word.chip, round_by=1.6, level=3)
            x += CHIP_PAD
        self.axes.text(x, y + LINE / 2 + 0.36 * word.size, word.text, color=word.colour, fontsize=word.size,
                       weight="bold" if word.bold else "normal", family="DejaVu Sans", va="baseline", zorder=4,
                       parse_math=False)  # fmt: skip

    def frame(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        face: str = "white",
        edge: str = "none",
        round_by: float = 2.0,
        dashed: bool = False,
        level: float = 2,
        name: str | None = None,
    ) -> None:
        """A rounded rectangle; `name` becomes its id in an svg file."""
        from matplotlib.patches import FancyBboxPatch

        style = f"round,pad=0,rounding_size={round_by}"
        line = (0, (3.2, 2.0)) if dashed else "-"
        drawn = FancyBboxPatch((x, y), width, height, boxstyle=style, facecolor=face, edgecolor=edge, linewidth=0.7,
                               linestyle=line, zorder=level, gid=name)  # fmt: skip
        self.axes.add_patch(drawn)

    def stroke(self, points: Sequence[tuple[float, float]], colour: str, width: float = 0.7, level: float = 2) -> None:
        """A line through `points`."""
        self.axes.plot(*zip(*points, strict=True), color=colour, linewidth=width, solid_capstyle="butt",
                       solid_joinstyle="round", zorder=level)  # fmt: skip

    def cross(self, x: float, y: float, width: float, height: float) -> None:
        """Both diagonals of a frame."""
        for ends in ((y + 1, y + height - 1), (y + height - 1, y + 1)):
            self.stroke(list(zip((x + 1, x + width - 1), ends, strict=True)), "#DEDEDE", level=2.5)

    def box(self, box: Box, x: float, y: float) -> None:
        """A box with its top left corner at `x`, `y`."""
        for shift in (STACK, STACK / 2) if box.stacked else ():
            self.frame(x + shift, y + shift, box.width, box.height, edge=box.edge, dashed=box.dashed)
        self.frame(
            x,
            y,
            box.width,
            box.height,
            edge=box.edge,
            dashed=box.dashed,
            name="-".join(["block", *box.name.split("/")]),
        )
        if box.crossed:
            self.cross(x, y, box.width, box.height)
        for top, bottom, colour in box.bars:
            self.frame(x + PAD, y + top, BAR, bottom - top, face=colour, round_by=0.8, level=3)
        for word_x, word_y, word in box.words:
            self.word(word, x + word_x, y + word_y)

    def arrow(self, start: tuple[float, float, Box], end: tuple[float, float, Box], turn: float | None) -> None:
        """From one box to the next; to the next line through the gutter at height `turn`."""
        x, y = start[0] + start[2].width + (STACK if start[2].stacked else 0.0), start[1] + ARROW_AT
        end_x, end_y = end[0], end[1] + ARROW_AT
        path = [(x, y), (end_x - 2.2, end_y)]
        if turn is not None:
            path = [(x, y), (x + 2.8, y), (x + 2.8, turn), (end_x - 4.0, turn), (end_x - 4.0, end_y), path[1]]
        self.stroke(path, GREY, 0.8, 2.2)
        tip = [(end_x, end_y), (end_x - 3.0, end_y - 1.7), (end_x - 3.0, end_y + 1.7)]
        self.axes.fill(*zip(*tip, strict=True), color=GREY, linewidth=0, zorder=2.3)

    def sheet(self, frames: Sequence[Frame], left: float, top: float) -> None:
        """Panels in their places, with arrows from box to box."""
        before: tuple[float, float, Box] | None = None
        for frame in frames:
            x, y = left + frame.x, top + frame.y
            name = "-".join(["panel", *frame.panel.name.split()])
            self.frame(x, y, frame.width, frame.height, face=GROUND, round_by=4.0, level=1, name=name)
            inner = frame.width - 2 * FRAME
            self.row([[frame.panel.title]], x + FRAME, y + FRAME - 2)
            for number, row in enumerate(frame.panel.heading(inner), 1):
                self.row(row, x + FRAME, y + FRAME - 2 + number * LINE)
            for line in frame.boxes:
                for box_x, box_y, box in line:
                    here = (left + box_x, top + box_y, box)
                    self.box(box, *here[:2])
                    if before is not None:
                        turn = here[1] - GUTTER / 2 if box_y > frame.boxes[0][0][1] else y - GUTTER / 2
                        self.arrow(before, here, turn if here[1] > before[1] + 0.1 else None)
                    before = here

    def key(self, key: Key, x: float, y: float) -> None:
        """An entry of the legend in the line whose top is `y`."""
        self.word(Word(key.meaning), x + key.start, y)
        if isinstance(key.sample, Word):
            self.word(key.sample, x, y)
            return
        left, top, width, height = x, y + 1.4, SAMPLE - 2.4, 7.0
        for shift in (2.4, 1.2, 0.0) if key.sample == "stacked" else (0.0,):
            edge, dashed = (PALE if key.sample == "crossed" else INK), key.sample in ("dashed", "crossed")
            self.frame(left + shift, top + shift, width, height, edge=edge, dashed=dashed)
        if key.sample == "crossed":
            self.cross(left, top, width, height)
        for place, colour in enumerate(COLOURS[:2] if key.sample == "kinds" else ()):
            self.frame(left + 2.0, top + 1.2 + 2.5 * place, BAR, 2.0, face=colour, round_by=0.5, level=3)


def tint(colour: str) -> str:
    """The colour on white at a fifth of its strength.

    Example:
        >>> tint("#000000")
        '#CCCCCC'
    """
    return "#" + "".join(f"{round(255 - 0.2 * (255 - part)):02X}" for part in _parts(colour))


def readable_on(colour: str) -> str:
    """White, or ink where that is easier to read on `colour`.

    Example:
        >>> readable_on("#0072B2"), readable_on("#E69F00")
        ('#FFFFFF', '#222222')
    """
    red, green, blue = _parts(colour)
    return "#FFFFFF" if 0.299 * red + 0.587 * green + 0.114 * blue < 140 else INK


def _parts(colour: str) -> list[int]:
    return [int(colour[start : start + 2], 16) for start in (1, 3, 5)]

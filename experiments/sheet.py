"""Boxes of words on a sheet: measured, wrapped into rows and placed. Lengths are points; y grows downwards.

Panels follow each other like words of a text. A panel has a heading and boxes; a box has sections, one below the other,
with a coloured bar each. Nothing is scaled: letters keep their size, and the sheet is as large as needed.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from experiments.plots import INK

GREY, PALE = "#757575", "#ADADAD"
GROUND = "#F1F3F5"
TEXT, SMALL = 6.5, 6.0
LINE, CHIP_HEIGHT, CHIP_PAD = 10.0, 8.2, 2.2
SPACE, APART, FIELD = 3.4, 6.8, 5.0  # between words, between entries, after the name of a field
PAD, BAR = 4.5, 2.4
FRAME = 7.5  # around the boxes of a panel
INNER, CAPTION = 132.0, 76.0  # words of a box wrap here; those of its caption no earlier than this
GAP, GUTTER, MARGIN = 11.0, 13.0, 8.0
STACK = 3.0  # by how much the last box of a stack is moved
ARROW_AT = 9.0  # below the top of a box: every box is higher
PAGE, NARROWEST, WIDEST = (518.0, 670.0), 246, 2000  # text of a page, text of a column, the largest sheet


class Word(NamedTuple):
    """Text that is never broken; `chip` is the colour behind it ("none": room for it, but no colour).

    Example:
        >>> Word("kernel", bold=True).size
        6.5
    """

    text: str
    colour: str = INK
    size: float = TEXT
    bold: bool = False
    chip: str | None = None


class Line(NamedTuple):
    """Words in a row that wraps, behind the name of a field; names of a box share a column.

    Example:
        >>> Line([Word("3"), Word("5")], Word("kernel")).label.text
        'kernel'
    """

    words: Sequence[Word]
    label: Word | None = None


class Section(NamedTuple):
    """Lines beside a bar of one colour.

    Example:
        >>> Section([Line([Word("conv_norm")])]).bar
        'none'
    """

    lines: Sequence[Line]
    bar: str = "none"


@dataclass
class Box:
    """A frame with a caption and sections; `stacked` shows that it stands for several.

    `words` and `bars` are where they are inside the box: left and top, and top and bottom.

    Example:
        >>> box = Box("stem/0", [Section([Line([Word("conv_norm")]), Line([Word("kernel 3")])])])
        >>> box.height, [top for _, top, _ in box.words]
        (27.0, [3.5, 13.5])
    """

    name: str
    sections: Sequence[Section]
    caption: Sequence[Word] = ()
    edge: str = INK
    dashed: bool = False
    crossed: bool = False
    stacked: bool = False
    inner: float = INNER
    words: list[tuple[float, float, Word]] = field(default_factory=list)
    bars: list[tuple[float, float, str]] = field(default_factory=list)
    width: float = 0.0
    height: float = 0.0

    def __post_init__(self) -> None:
        labels = [line.label for section in self.sections for line in section.lines if line.label is not None]
        column = max((measured(label) + FIELD for label in labels), default=0.0)
        y = right = 0.0
        for number, section in enumerate(self.sections):
            y += 3.0 if number else 0.0
            top, left = y, PAD + (BAR + 3.0 if section.bar != "none" else 0.0)
            for line in section.lines:
                start = left
                if line.label is not None:
                    self._set((line.label,), left, y)
                    start += column
                for row in wrapped(line.words, max(self.inner - (start - left), self.inner / 2)):
                    right = max(right, self._set(row, start, y))
                    y += LINE
            if section.bar != "none":
                self.bars.append((top + 0.8, y - 0.8, section.bar))
        # the caption last: it is as wide as what is below it
        caption = wrapped(self.caption, max(right - PAD, *(measured(word) for word in self.caption), CAPTION))
        down = PAD - 1 + LINE * len(caption)
        self.words = [(x, at + down, word) for x, at, word in self.words]
        self.bars = [(top + down, bottom + down, colour) for top, bottom, colour in self.bars]
        for number, row in enumerate(caption):
            right = max(right, self._set(row, PAD, PAD - 1 + LINE * number))
        self.width, self.height = right + PAD, max(y + down + PAD - 1, 2 * ARROW_AT)

    def _set(self, row: Sequence[Word], x: float, y: float) -> float:
        for word in row:
            self.words.append((x, y, word))
            x += measured(word) + SPACE
        return x - SPACE


@dataclass
class Panel:
    """A heading (a name, and entries that are kept together) above boxes that follow each other.

    Example:
        >>> panel = Panel("stem", [[Word("stride 2")], [Word("width 16")]], [Box("stem/0", [])])
        >>> [len(row) for row in panel.heading(50.0)], [len(row) for row in panel.heading(100.0)]
        ([1, 1], [2])
    """

    name: str
    entries: Sequence[Sequence[Word]]
    boxes: Sequence[Box]

    @property
    def title(self) -> Word:
        """The name, as it is written."""
        return Word(self.name, bold=True, size=TEXT + 1)

    @functools.cached_property
    def inner(self) -> float:
        """Width without padding when all boxes stand side by side."""
        boxes = sum(box.width for box in self.boxes) + GAP * (len(self.boxes) - 1)
        return max(boxes, measured(self.title), *(row_width(entry) for entry in self.entries))

    def heading(self, inner: float) -> list[list[Sequence[Word]]]:
        """The entries as rows of at most `inner`."""
        return flowed(self.entries, inner, row_width, APART)

    def lines(self, inner: float) -> list[list[Box]]:
        """The boxes as rows of at most `inner`."""
        return flowed(self.boxes, inner, lambda box: box.width, GAP)


class Frame(NamedTuple):
    """A panel in its place, and its boxes in theirs, line by line.

    Example:
        >>> arranged([Panel("stem", (), [Box("stem/0", [])])], 100.0)[0].x
        0.0
    """

    panel: Panel
    x: float
    y: float
    width: float
    height: float
    boxes: list[list[tuple[float, float, Box]]]


def measured(word: Word) -> float:
    """Width of a word with its chip.

    Example:
        >>> measured(Word("kernel")) < measured(Word("kernel", bold=True)) < measured(Word("kernels", bold=True))
        True
    """
    return _width(word.text, word.size, word.bold) + (2 * CHIP_PAD if word.chip is not None else 0.0)


@functools.lru_cache(maxsize=4096)
def _width(text: str, size: float, bold: bool) -> float:
    from matplotlib.backends.backend_agg import RendererAgg
    from matplotlib.font_manager import FontProperties

    # at a high resolution, where letters are not moved to whole pixels: pdf and svg place them so as well
    font = FontProperties(family="DejaVu Sans", size=size, weight="bold" if bold else "normal")
    return RendererAgg(10, 10, 720).get_text_width_height_descent(text, font, ismath=False)[0] / 10


def row_width(row: Sequence[Word]) -> float:
    """Width of words side by side.

    Example:
        >>> row_width([]), row_width([Word("a")]) == measured(Word("a"))
        (0.0, True)
    """
    return sum(measured(word) for word in row) + SPACE * (len(row) - 1) if row else 0.0


def wrapped(words: Sequence[Word], width: float) -> list[list[Word]]:
    """Words as rows of at most `width`, a word that is wider alone.

    Example:
        >>> [len(row) for row in wrapped([Word("kernel")] * 5, 2.5 * measured(Word("kernel")))]
        [2, 2, 1]
    """
    return flowed(words, width, measured, SPACE)


def broken(word: Word, width: float) -> list[Word]:
    """A word as rows of at most `width`, broken behind a mark where there is one.

    Example:
        >>> [row.text for row in broken(Word("tiny:1.0.2.0.1.1"), measured(Word("tiny:1.0.2.0.")))]
        ['tiny:1.0.2.', '0.1.1']
    """
    text, rows = word.text, []
    letters = max(int(0.97 * len(text) * width / measured(word)), 8)
    while len(text) > letters:
        end = max(text.rfind(mark, letters // 2, letters) for mark in "./_") + 1 or letters
        rows.append(text[:end])
        text = text[end:]
    return [word._replace(text=row) for row in (*rows, text)]


def flowed(items: Iterable[Any], width: float, size: Callable[[Any], float], gap: float) -> list[list[Any]]:
    """Items of some `size` as rows of at most `width`, with a gap between neighbours.

    Example:
        >>> flowed([2.0, 3.0, 4.0], 6.0, float, 1.0)
        [[2.0, 3.0], [4.0]]
    """
    rows: list[list[Any]] = []
    x = 0.0
    for item in items:
        if rows and x + gap + size(item) <= width + 1e-6:
            rows[-1].append(item)
            x += gap + size(item)
        else:
            rows.append([item])
            x = size(item)
    return rows


def arranged(panels: Sequence[Panel], width: float) -> list[Frame]:
    """Panels in rows of at most `width`, from the top left; one that is wider has its boxes on several lines.

    Example:
        >>> panels = [Panel(name, (), [Box(name, [Section([Line([Word("conv_norm")])])])]) for name in "abcd"]
        >>> [round(frame.y) > 0 for frame in arranged(panels, 2.5 * (panels[0].inner + 2 * FRAME + GAP))]
        [False, False, True, True]
    """
    frames, y = [], 0.0
    for row in flowed(panels, width, lambda panel: panel.inner + 2 * FRAME, GAP):
        inners = [min(panel.inner, width - 2 * FRAME) for panel in row]
        heading = max(len(panel.heading(inner)) for panel, inner in zip(row, inners, strict=True))
        top = y + FRAME - 2 + LINE * (1 + heading) + 4.0
        placed, x, bottom = [], 0.0, top
        for panel, inner in zip(row, inners, strict=True):
            lines, line_y = [], top
            for line in panel.lines(inner):
                box_x, boxes = x + FRAME, []
                for box in line:
                    boxes.append((box_x, line_y, box))
                    box_x += box.width + GAP
                lines.append(boxes)
                line_y += max(box.height for box in line) + GUTTER
            placed.append((panel, x, inner + 2 * FRAME, lines))
            bottom = max(bottom, line_y - GUTTER)
            x += inner + 2 * FRAME + GAP
        height = bottom + FRAME + 1 - y
        frames += [Frame(panel, x, y, wide, height, lines) for panel, x, wide, lines in placed]
        y += height + GUTTER
    return frames


def extent(frames: Sequence[Frame]) -> tuple[float, float]:
    """Width and height of panels in their places.

    Example:
        >>> extent(arranged([Panel("stem", (), [Box("stem/0", [])])], 100.0))[1]
        46.0
    """
    return max(frame.x + frame.width for frame in frames), max(frame.y + frame.height for frame in frames)


def paged(panels: Sequence[Panel]) -> list[Frame]:
    """Panels on a sheet of the width at which letters are largest on a page; of several such, a small and flat one.

    Example:
        >>> len(paged([Panel("stem", (), [Box("stem/0", [Section([Line([Word("conv_norm")])])])])]))
        1
    """

    def shrinks(frames: list[Frame]) -> tuple[float, float]:
        width, height = extent(frames)
        return max(1.0, width / PAGE[0], height / PAGE[1]), width * height * max(1.0, height / width)

    return min((arranged(panels, width) for width in range(NARROWEST, WIDEST, 6)), key=shrinks)

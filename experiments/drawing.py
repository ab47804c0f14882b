"""A picture of a search space, or of one network: every stage with its block positions and what is searched there."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from experiments import labels
from experiments.paint import Key, Paint, readable_on, tint
from experiments.plots import COLOURS, INK, styled
from experiments.sheet import (
    APART,
    GAP,
    GREY,
    GUTTER,
    INNER,
    LINE,
    MARGIN,
    NARROWEST,
    PALE,
    SMALL,
    Box,
    Line,
    Panel,
    Section,
    Word,
    broken,
    extent,
    flowed,
    measured,
    paged,
    row_width,
)
from search_spaces.choice import options
from search_spaces.slots import Case, Slot, Width
from search_spaces.space import SearchSpace
from search_spaces.texts import Resolved

LISTED = 8  # values of one field; of more only the ends are shown
LONG = 40  # blocks of a network that are shown one by one
NARROW = 84.0  # where boxes with fixed fields only wrap
EACH = "each chosen on its own"
FADED = "#DADADA"
SURROUNDINGS = "#5F6B76"  # kinds of block of stem and head, and decisions of a stage


@styled
def draw(found: Resolved) -> Any:
    """The stages from the input to the head, in reading order, as a matplotlib figure.

    A space shows the values of all decisions, and blocks of a stage that decide the same are one box. A network shows
    what is chosen among them; a published one has only its values. The figure is as large as it has to be: letters
    keep their size.

    Example:
        >>> from search_spaces.texts import resolve
        >>> figure = draw(resolve("tiny"))
        >>> [text.get_text() for text in figure.axes[0].texts][:2]
        ['tiny', '144 encodings, 6 decisions']
    """
    view = _View(found.space, None if found.genes is None else [int(gene) for gene in found.genes])
    panels = list(view.panels())
    frames = paged(panels)
    width, height = extent(frames)
    legend = view.legend(panels)
    width = max(width, NARROWEST, *(measured(row) for row in view.sentences), *(key.width for key in legend))
    title = view.title(found.name, width)
    keys = flowed(legend, width, lambda key: key.width, 2 * GAP)
    top = MARGIN + sum(room for _, room in title) + 4.0
    paint = Paint(width + 2 * MARGIN, top + height + GUTTER + len(keys) * (LINE + 3.0) + MARGIN - 3.0)
    y = MARGIN
    for row, room in title:
        paint.row(row, MARGIN, y)
        y += room
    paint.sheet(frames, MARGIN, top)
    y = top + height + GUTTER
    for row_of_keys in keys:
        x = MARGIN
        for key in row_of_keys:
            paint.key(key, x, y)
            x += key.width + 2 * GAP
        y += LINE + 3.0
    return paint.figure


class _Group(NamedTuple):
    """Block positions of a stage that are drawn as one box."""

    slots: list[Slot]
    note: str = ""
    like: str = ""


@dataclass
class _View:
    """A space, seen with or without genes `[D]`."""

    space: SearchSpace
    genes: list[int] | None

    @cached_property
    def sentences(self) -> list[Word]:
        """What a network costs, and how large the space is."""
        space, texts = self.space, []
        if self.one:
            network = space if self.genes is None else space.freeze(self.genes)
            texts.append(f"{network.params:,} parameters, {network.macs:,} multiply-accumulates per image")
        if not space.frozen:
            which = "" if self.genes is None else "one of "
            texts.append(
                f"{which}{labels.short(space.size)} encodings, {labels.counted(space.num_decisions, 'decision')}"
            )
        if self.genes is None and space.resolutions:
            texts.append("sizes of maps are those of the largest image")
        return [Word(text, size=7.5) for text in texts]

    def title(self, name: str, width: float) -> list[tuple[list[list[Word]], float]]:
        """Rows above the panels, and the room each takes."""
        space = self.space
        rows = [([[word]], 15.0) for word in broken(Word(space.name, size=11.0, bold=True), width)]
        rows += [([[sentence]], LINE + 1.0) for sentence in self.sentences]
        if name != space.name:
            rows += [([[word]], LINE - 1.0) for word in broken(Word(name, GREY, SMALL), width)]
        if space.widths is not None:
            rule = [[Word(f"width rule {space.widths.kind}")]]
            for number, decision in enumerate(space.decisions):
                place, _, field = decision.name.rpartition("/")
                if place == "widths":
                    rule.append([Word(field), *self.values(decision.values, self.picked(number))])
            rows += [(row, LINE + 1.0) for row in flowed(rule, width, row_width, APART)]
        return rows

    @property
    def one(self) -> bool:
        """Whether it is one network."""
        return self.genes is not None or self.space.frozen

    def picked(self, decision: int) -> int | None:
        """Index of the chosen value, None in a space."""
        return None if self.genes is None else self.genes[decision]

    def reached(self, slot: Slot) -> bool:
        """Whether the chosen depth has the slot; so in a space."""
        return self.genes is None or slot.depth is None or self.genes[slot.depth[0]] in slot.depth[1]

    @cached_property
    def slots(self) -> tuple[Slot, ...]:
        """The block positions, with sizes at the chosen resolution."""
        sizes = self.space.resolutions
        return sizes[self.genes[-1]].slots if sizes and self.genes is not None else self.space.slots

    @cached_property
    def colours(self) -> dict[str, str]:
        """Colour of every kind of block in the stages."""
        inside = [slot for slot in self.slots if slot.name.startswith("stages/")]
        kinds = dict.fromkeys(case.block.kind for slot in inside for case in slot.cases)
        return {kind: COLOURS[number % len(COLOURS)] for number, kind in enumerate(kinds)}

    def values(
        self,
        values: Sequence[Any],
        picked: int | None,
        colour: str = SURROUNDINGS,
        muted: bool = False,
        listed: int = LISTED,
    ) -> list[Word]:
        """Values of a decision as chips; in a network the chosen one is filled."""
        shown = set(range(len(values)))
        if len(values) > listed:
            shown = {0, 1, len(values) - 1} | ({picked} if picked is not None else set())
        words, before = [], -1
        for index in sorted(shown):
            if index > before + 1:
                words.append(Word("\N{HORIZONTAL ELLIPSIS}", PALE if muted or self.one else INK))
            text = labels.value_text(values[index])
            if muted or (self.one and index != picked):
                words.append(Word(text, PALE, chip="none"))
            elif self.one:
                words.append(Word(text, readable_on(colour), bold=True, chip=colour))
            else:
                words.append(Word(text, chip=tint(colour)))
            before = index
        if len(values) > listed:
            words.append(Word(f"({len(values)})", PALE if muted else GREY, SMALL))
        return words

    def panels(self) -> Iterator[Panel]:
        """Input, stem, stages and head."""
        space = self.space
        size = [Word(f"{space.image_hw}\N{MULTIPLICATION SIGN}{space.image_hw}")]
        if space.resolutions:
            size = [Word("size"), *self.values(options(space.input_hw), self.picked(space.num_decisions - 1))]
        channels = [Word(labels.counted(space.input_channels, "channel"))]
        yield Panel("input", (), [Box("input", [Section([Line(size), Line(channels)])])])
        stages: dict[str, list[Slot]] = {}
        for slot in self.slots:
            stages.setdefault(slot.name.rpartition("/")[0] or slot.name, []).append(slot)
        after = [slots[0] for slots in stages.values()][1:]
        for (path, slots), following in zip(stages.items(), [*after, None], strict=True):
            title = path.replace("stages/", "stage ")
            boxes = [self.box(group, slots) for group in self.groups(slots)]
            yield Panel(title, list(self.heading(slots, following)), boxes)

    def heading(self, slots: list[Slot], following: Slot | None) -> Iterator[list[Word]]:
        """Resolution, stride, width and depth of a stage."""
        first = slots[0]
        inside = f"{first.in_h}\N{MULTIPLICATION SIGN}{first.in_w}"
        if following is None:
            yield [Word(inside)]
            yield [Word(labels.counted(self.space.classes, "class", "classes"))]
            return
        outside = f"{following.in_h}\N{MULTIPLICATION SIGN}{following.in_w}"
        yield [Word(inside if inside == outside else f"{inside} \N{RIGHTWARDS ARROW} {outside}")]
        yield [Word(f"stride {first.stride}")]
        if len({slot.out for slot in slots}) == 1:
            yield self.width(slots)
        else:
            yield [Word(labels.span("width", self.widths_of(slots)))]
        depths = [slot.depth[0] for slot in slots if slot.depth is not None]
        if depths:
            yield [Word("depth"), *self.values(self.space.decisions[depths[0]].values, self.picked(depths[0]))]
        elif len(slots) > 1:
            yield [Word(f"depth {len(slots)}")]

    def widths_of(self, slots: Sequence[Slot]) -> list[int]:
        """Widths that the slots may have, or have in a network."""
        if self.genes is None:
            return sorted({value for slot in slots for value in slot.out.values})
        return sorted({slot.out.chosen(self.space.decisions, self.genes) for slot in slots})

    def width(self, slots: Sequence[Slot]) -> list[Word]:
        """The width that all of `slots` have."""
        out: Width = slots[0].out
        values = sorted(set(out.values))
        if len(values) == 1:
            return [Word(f"width {values[0]}")]
        picked = None if self.genes is None else values.index(out.chosen(self.space.decisions, self.genes))
        return [Word("width"), *self.values(values, picked)]

    def groups(self, slots: list[Slot]) -> Iterator[_Group]:
        """Slots of a stage as they are drawn: equal neighbours together, unless each of them is to be seen."""
        apart = self.one and len(self.slots) <= LONG
        before: list[Slot] = []
        for _, same in itertools.groupby(slots, key=lambda slot: slot.index if apart else self.look(slot)):
            group, note, like = list(same), "", ""
            searched = group[0].kind_decision is not None or any(case.decisions for case in group[0].cases)
            shared = searched and group[0].cases is group[-1].cases
            if len(group) > 1:
                equal = "equal" if len({slot.out for slot in group}) == 1 else "equal but for the width"
                note = equal if self.one or not searched else "one choice for all" if shared else EACH
            if before and not self.one and shared and group[0].cases is before[0].cases:
                note, like = "", labels.block_numbers(before)
            yield _Group(group, note, like)
            before = before or group

    def look(self, slot: Slot) -> Any:
        """Equal for slots that look the same but for their number and width."""
        kinds = tuple((case.name, case.block) for case in slot.cases)
        if self.genes is None:
            own = slot.out.values if self.space.widths is None else None
            return kinds, slot.depth is None, None if self.space.frozen else own
        case = slot.cases[0 if slot.kind_decision is None else self.genes[slot.kind_decision]]
        return kinds, slot.depth is None, self.reached(slot), case.chosen(self.space.decisions, self.genes)

    def box(self, group: _Group, stage: list[Slot]) -> Box:
        """The box of a group of the slots of a stage."""
        slots, slot = group.slots, group.slots[0]
        reached = self.reached(slot)
        ink, grey = (INK, GREY) if reached else (PALE, PALE)
        caption = []
        if len(slots) > 1:
            caption.append(Word(f"{len(slots)}\N{MULTIPLICATION SIGN}", ink, bold=True))
        if len(stage) > 1:
            caption.append(Word(labels.block_numbers(slots), ink, SMALL))
        if slot.depth is not None:
            values = self.space.decisions[slot.depth[0]].values
            least = sorted({min(values[index] for index in each.depth[1]) for each in slots if each.depth is not None})
            caption.append(Word(f"from depth {labels.ends(least)}" if reached else "left out", grey, SMALL))
        if group.note:
            caption.append(Word(group.note, grey, SMALL))
        sections = []
        if len({each.out for each in stage}) > 1 and len(slots) < len(stage):
            same = len({each.out for each in slots}) == 1
            width = self.width(slots) if same else [Word(labels.span("width", self.widths_of(slots)))]
            sections.append(Section([Line(width)]))
        if group.like:
            sections.append(Section([Line([Word(f"decided with {group.like}")])]))
        else:
            sections += self.kinds(slot)
        searched = any(case.decisions for case in slot.cases) or len(sections) > 1
        return Box(slot.name, sections, caption, ink, dashed=slot.depth is not None, crossed=not reached,
                   stacked=len(slots) > 1, inner=INNER if searched else NARROW)  # fmt: skip

    def kinds(self, slot: Slot) -> Iterator[Section]:
        """The kinds of block of a slot: variants of one kind that search nothing else are one section."""
        chosen = None if slot.kind_decision is None else self.picked(slot.kind_decision)
        reached = self.reached(slot)
        places = enumerate(slot.cases)
        for (kind, alone), run in itertools.groupby(places, key=lambda at: (at[1].block.kind, not at[1].decisions)):
            cases = list(run)
            parts = [cases] if alone else [[each] for each in cases]
            for part in parts:
                live = reached and (chosen is None or chosen in [place for place, _ in part])
                yield self.section(kind, dict(part), labels.told_apart(slot, kind), chosen, live)

    def section(self, kind: str, cases: dict[int, Case], apart: list[str], chosen: int | None, live: bool) -> Section:
        """One kind of block: its variants, its decisions and what is fixed; pale where it is not `live`."""
        colour, ink = (self.colours.get(kind, SURROUNDINGS), INK) if live else (FADED, PALE)
        lines = [Line([Word(kind, ink, bold=live)])]
        variants = [", ".join(labels.fields(case, apart)) for case in cases.values()]
        if len(cases) > 1:
            picked = list(cases).index(chosen) if chosen in cases else None
            lines += [Line([word]) for word in self.values(variants, picked, colour, not live, listed=len(variants))]
        elif variants[0]:
            lines.append(Line([Word(variants[0], ink)]))
        case = next(iter(cases.values()))
        for field, decision in case.decisions:
            values = self.values(self.space.decisions[decision].values, self.picked(decision), colour, not live)
            lines.append(Line(values, Word(field.replace("_", " "), ink)))
        grey = PALE if not live else INK if self.space.frozen else GREY
        fixed = [Word(text, grey, SMALL) for text in labels.fixed_fields(case, apart)]
        return Section([*lines, Line(fixed)] if fixed else lines, colour)

    def legend(self, panels: Sequence[Panel]) -> list[Key]:
        """What colours and frames mean, of those that occur."""
        boxes = [box for panel in panels for box in panel.boxes]
        keys = [Key(Word(" ", chip=colour), kind) for kind, colour in self.colours.items()]
        if not self.space.frozen:
            if self.one:
                keys.append(Key(Word("3", readable_on(SURROUNDINGS), bold=True, chip=SURROUNDINGS), "chosen"))
                keys.append(Key(Word("5", PALE, chip="none"), "possible, not chosen"))
            else:
                keys.append(Key(Word("3", chip=tint(SURROUNDINGS)), "searched: one value is chosen"))
                keys.append(Key(Word("kernel 3", GREY, SMALL), "fixed"))
        if any(len(slot.cases) > 1 for slot in self.slots) and not self.one:
            keys.append(Key("kinds", "several kinds of block: one is chosen"))
        if any(box.dashed and not box.crossed for box in boxes):
            keys.append(Key("dashed", "optional: left out at a smaller depth"))
        if any(box.crossed for box in boxes):
            keys.append(Key("crossed", "left out: the chosen depth does not reach it"))
        if any(box.stacked for box in boxes):
            keys.append(Key("stacked", "several blocks, drawn once"))
        return keys

"""Pictures of spaces and networks: what they say, and that nothing in them is cut or covers something else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.drawing import draw
from experiments.sheet import PAGE, PALE
from search_spaces.blocks.classifier import Classifier
from search_spaces.blocks.conv_norm import ConvNorm
from search_spaces.blocks.flynet import FlyNet
from search_spaces.blocks.inverted_residual import InvertedResidual
from search_spaces.choice import Choice
from search_spaces.space import SearchSpace, Stage
from search_spaces.texts import Resolved, resolve
from search_spaces.widths import ConstantRatio, Exponential

STEM, BLOCK = Stage(ConvNorm(3), 16, stride=2), InvertedResidual(Choice(3, 5), Choice(2, 4))


def made(*stages: Stage, **extra: Any) -> SearchSpace:
    fields = {"name": "made", "input_hw": 64, "input_channels": 3, "classes": 10} | extra
    return SearchSpace(stem=STEM, stages=stages, head=Classifier(features=64), **fields)


def named(space: SearchSpace) -> Resolved:
    return Resolved(space.name, space)


def network(space: SearchSpace, seed: int = 0) -> Resolved:
    genes = space.check(np.random.default_rng(seed).integers(0, space.cardinality))
    return Resolved(space.text(genes), space, genes)


def nine_kinds() -> SearchSpace:
    kinds = Choice(*(InvertedResidual(kernel, expand) for kernel in (3, 5, 7) for expand in (1, 3, 6)))
    rows = ((16, 1, 1), (24, 4, 2), (32, 4, 1), (64, 4, 2), (112, 4, 1), (184, 4, 2), (352, 1, 1))
    return made(*(Stage(kinds, *row) for row in rows))


def growing() -> SearchSpace:
    stages = []
    for number, (depth, stride) in enumerate(((6, 1), (12, 2), (64, 2), (48, 2))):
        stages.append(Stage(InvertedResidual(3, 1), tuple(range(64 + 8 * number, 9999, 8))[:depth], depth, stride))
    return made(*stages)


def resolutions() -> SearchSpace:
    return made(Stage(BLOCK, 24, 2, 2), input_hw=Choice(32, 48, 64))


def own_widths() -> SearchSpace:
    return made(Stage(BLOCK, (Choice(*range(8, 129, 8)), Choice(24, 32), 40), 3, 2))


def ruled() -> SearchSpace:
    return made(*[Stage(BLOCK, None, 3, 2)] * 2, widths=Exponential(Choice(8.0, 16.0), Choice(0.1, 0.2), 8.0))


def shared() -> SearchSpace:
    kinds = Choice(BLOCK, FlyNet(heads=Choice(1, 2, 3)))
    rule = ConstantRatio(Choice(16, 24), Choice(1.5, 2.0))
    return made(*[Stage(kinds, None, Choice(1, 2, 4), 2, shared=True)] * 2, widths=rule)


def long_names() -> Resolved:
    return Resolved("some/" * 60 + "folder", made(Stage(BLOCK, 24), name="long_" * 30 + "name"))


PICTURES: dict[str, Callable[[], Resolved]] = {
    "tiny": lambda: resolve("tiny"),
    "quickstart": lambda: resolve("quickstart"),
    "network of quickstart": lambda: network(resolve("quickstart").space, 1),
    "mobilenet_v2": lambda: resolve("mobilenet_v2"),
    "mobilenet_v3_small": lambda: resolve("mobilenet_v3_small"),
    "nine kinds": lambda: named(nine_kinds()),
    "network of nine kinds": lambda: network(nine_kinds()),
    "130 blocks": lambda: named(growing()),
    "resolutions": lambda: named(resolutions()),
    "own widths": lambda: named(own_widths()),
    "network of own widths": lambda: network(own_widths()),
    "rule": lambda: named(ruled()),
    "network of rule": lambda: network(ruled()),
    "shared": lambda: named(shared()),
    "network of shared": lambda: network(shared()),
    "long names": long_names,
}


class Picture:
    """A figure, with the extents `[N, 4]` (left, top, right, bottom, in points) of what is in it."""

    def __init__(self, found: Resolved):
        self.found, self.figure = found, draw(found)
        # as it is saved: letters are wider and narrower at other resolutions
        self.figure.dpi = 300
        (self.axes,) = self.figure.axes
        self.texts = [text for text in self.axes.texts if text.get_text().strip()]
        self.words = [text.get_text() for text in self.texts]
        self.boxes = {
            patch.get_gid(): patch for patch in self.axes.patches if (patch.get_gid() or "").startswith("block")
        }
        self.panels = {
            patch.get_gid(): patch for patch in self.axes.patches if (patch.get_gid() or "").startswith("panel")
        }

    def extents(self, artists: Any) -> np.ndarray:
        renderer = self.figure.canvas.get_renderer()
        renderer.dpi = 300
        inside = [artist.get_window_extent(renderer).extents * 72 / 300 for artist in artists]
        return np.asarray(inside).reshape(-1, 4)

    def within(self, patch: Any) -> list[Any]:
        """Texts inside a patch."""
        left, bottom, right, top = self.extents([patch])[0]
        places = self.extents(self.texts)
        inside = (places[:, 0] > left) & (places[:, 2] < right) & (places[:, 1] > bottom) & (places[:, 3] < top)
        return [text for text, is_inside in zip(self.texts, inside, strict=True) if is_inside]

    def bold(self, patch: Any) -> list[str]:
        """What is bold inside a patch."""
        return [text.get_text() for text in self.within(patch) if text.get_weight() == "bold"]


def overlapping(extents: np.ndarray, by: float) -> list[tuple[int, int]]:
    """Pairs that cover each other by more than `by` points in both directions."""
    shared = np.minimum(extents[:, None, 2:], extents[None, :, 2:]) - np.maximum(
        extents[:, None, :2], extents[None, :, :2]
    )
    pairs = np.argwhere((shared > by).all(axis=-1))
    return [(int(a), int(b)) for a, b in pairs if a < b]


@pytest.mark.parametrize("name", PICTURES)
def test_nothing_is_cut_and_nothing_overlaps(name: str) -> None:
    picture = Picture(PICTURES[name]())
    width, height = picture.figure.get_size_inches() * 72
    texts, boxes = picture.extents(picture.texts), picture.extents(picture.boxes.values())
    for extents in (texts, boxes, picture.extents(picture.panels.values())):
        assert (extents[:, :2] > 3).all() and (extents[:, 2] < width - 3).all() and (extents[:, 3] < height - 3).all()
    covered = [(picture.words[a], picture.words[b]) for a, b in overlapping(texts, 0.0)]
    assert not covered
    assert not overlapping(boxes, -2.0) and not overlapping(picture.extents(picture.panels.values()), -2.0)
    for text in texts:
        crossed = (text[0] < boxes[:, 2]) & (text[2] > boxes[:, 0]) & (text[1] < boxes[:, 3]) & (text[3] > boxes[:, 1])
        inside = (text[0] > boxes[:, 0]) & (text[2] < boxes[:, 2]) & (text[1] > boxes[:, 1]) & (text[3] < boxes[:, 3])
        assert (crossed == inside).all()


def test_a_space_names_its_stages_and_every_value() -> None:
    picture = Picture(resolve("quickstart"))
    space = picture.found.space
    assert {"quickstart", "input", "stem", "stage 0", "stage 1", "stage 2", "head"} <= set(picture.words)
    assert any(f"{space.num_decisions} decisions" in word for word in picture.words)
    first = [text.get_text() for text in picture.within(picture.boxes["block-stages-0-0"])]
    assert first == [
        *("inverted_residual", "kernel", "3", "5", "7", "expand", "2", "4", "attention", "none", "se", "eca"),
        *("flynet", "kernel", "3", "5", "7", "heads", "1", "2", "3", "attention", "none", "se", "eca", "expand 2"),
        "block 0",
    ]
    stage = [text.get_text() for text in picture.within(picture.panels["panel-stage-1"])]
    assert stage[:9] == ["stage 1", "14×14 → 7×7", "stride 2", "width", "40", "64", "depth", "1", "2"]
    assert "searched: one value is chosen" in picture.words and "chosen" not in picture.words


def test_optional_blocks_are_dashed_and_equal_neighbours_are_one_box() -> None:
    picture = Picture(resolve("quickstart"))
    dashed = {name for name, patch in picture.boxes.items() if patch.get_linestyle() not in ("-", "solid")}
    assert dashed == {"block-stages-0-1", "block-stages-1-1", "block-stages-2-1"}
    second = [text.get_text() for text in picture.within(picture.boxes["block-stages-1-1"])]
    assert second[-4:] == ["2×", "blocks 1–2", "from depth 2, 3", "each chosen on its own"]
    assert "optional: left out at a smaller depth" in picture.words


@pytest.mark.parametrize("name", ["network of quickstart", "network of nine kinds"])
def test_a_network_has_every_block_and_its_choices_in_bold(name: str) -> None:
    picture = Picture(PICTURES[name]())
    space, genes = picture.found.space, picture.found.genes
    chosen = space.decode(genes)
    assert len(picture.boxes) == len(space.slots) + 1  # and the input
    for slot in space.slots[1:-1]:
        bold = picture.bold(picture.boxes["-".join(["block", *slot.name.split("/")])])
        left_out = slot.depth is not None and int(genes[slot.depth[0]]) not in slot.depth[1]
        mine = {name.rpartition("/")[2]: value for name, value in chosen.items() if name.startswith(slot.name + "/")}
        kind = mine.pop("block").partition("[")[0] if not left_out else ""
        if not mine and kind:  # one of several variants of its kind
            case = slot.cases[int(genes[slot.kind_decision])].block
            mine = {"variant": f"kernel {case.kernel}, expand {case.expand}"}
        assert bold == [kind, *map(str, mine.values())] if kind else not bold, slot.name
    for stage in range(len(space.stages)):
        values = [chosen[name] for what in ("width", "depth") if (name := f"stages/{stage}/{what}") in chosen]
        assert picture.bold(picture.panels[f"panel-stage-{stage}"])[: len(values) + 1] == [
            f"stage {stage}", *map(str, values)
        ]  # fmt: skip


def test_blocks_that_a_depth_leaves_out_are_pale_and_said_to_be() -> None:
    space = resolve("tiny").space
    genes = space.check([0] * space.num_decisions)
    picture = Picture(Resolved(space.text(genes), space, genes))
    skipped = picture.boxes["block-stages-1-1"]
    assert {text.get_color() for text in picture.within(skipped)} == {PALE}
    assert "left out" in [text.get_text() for text in picture.within(skipped)]
    assert "left out: the chosen depth does not reach it" in picture.words
    frozen = space.freeze(genes)
    assert f"{frozen.params:,} parameters, {frozen.macs:,} multiply-accumulates per image" in picture.words
    assert "one of 144 encodings, 6 decisions" in picture.words and space.text(genes) in picture.words


def test_a_published_network_shows_its_values_only() -> None:
    picture = Picture(resolve("mobilenet_v3_small"))
    assert len(picture.boxes) == len(picture.found.space.slots) + 1
    assert "2,542,856 parameters, 56,510,400 multiply-accumulates per image" in picture.words
    words = [text.get_text() for text in picture.within(picture.boxes["block-stages-3-0"])]
    assert words == ["inverted_residual", "kernel 5", "attention se", "hidden 96"]
    assert not [text for text in picture.texts if text.get_color() == PALE]
    assert not {"chosen", "fixed"} & set(picture.words)


def test_large_spaces_and_long_networks_stay_small() -> None:
    wide = Picture(named(nine_kinds()))
    assert len(wide.boxes) == 10 and wide.words.count("4×") == 5 and wide.words.count("each chosen on its own") == 5
    long = Picture(named(growing()))
    assert len(long.boxes) == 7 and "64×" in long.words and "equal but for the width" in long.words
    for picture in (wide, long):
        assert (picture.figure.get_size_inches() * 72 < np.asarray(PAGE) + 120).all()


def test_widths_of_their_own_are_in_the_blocks_and_those_of_a_rule_in_the_title() -> None:
    picture = Picture(network(own_widths(), 1))
    space, genes = picture.found.space, picture.found.genes
    chosen = space.decode(genes)
    for position in (0, 1):
        assert picture.bold(picture.boxes[f"block-stages-0-{position}"])[0] == str(chosen[f"stages/0/{position}/width"])
    assert {"width 40", "(16)", "…"} <= set(picture.words)
    found = network(ruled(), 1)
    alone = found.space.freeze(found.genes)
    picture = Picture(found)
    assert "width rule exponential" in picture.words
    for slot in alone.slots[1:-1]:
        bold = picture.bold(picture.boxes["-".join(["block", *slot.name.split("/")])])
        assert bold[0] == str(slot.out.values[0])


def test_a_choice_for_a_whole_stage_is_drawn_once_and_sizes_follow_the_resolution() -> None:
    assert Picture(named(shared())).words.count("decided with block 0") == 2
    space = resolutions()
    genes = space.check([0] * (space.num_decisions - 1) + [1])
    picture = Picture(Resolved(space.text(genes), space, genes))
    assert picture.bold(picture.boxes["block-input"]) == ["48"] and "24×24 → 12×12" in picture.words
    whole = Picture(named(space))
    assert {"32×32 → 16×16", "sizes of maps are those of the largest image"} <= set(whole.words)


@pytest.mark.parametrize("suffix", [".png", ".pdf", ".svg"])
def test_the_command_writes_a_picture(call: Callable[..., Any], tmp_path: Path, suffix: str) -> None:
    out = tmp_path / "new" / f"net{suffix}"
    result = call("show", "tiny", "--out", str(out))
    assert result.exit_code == 0 and result.stdout == f"wrote {out}\n"
    starts = {".png": b"\x89PNG", ".pdf": b"%PDF", ".svg": b"<?xml"}
    assert out.read_bytes().startswith(starts[suffix])
    if suffix == ".svg":
        assert "inverted_residual" in out.read_text() and 'id="block-stages-0-0"' in out.read_text()


def test_a_name_of_both_is_the_network_unless_the_space_is_asked_for(call: Callable[..., Any], tmp_path: Path) -> None:
    sizes = []
    for extra in ((), ("--space",)):
        assert call("show", "mobilenet_v2", "--out", str(tmp_path / "net.svg"), *extra).exit_code == 0
        sizes.append("encodings" in (tmp_path / "net.svg").read_text())
    assert sizes == [False, True]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("quickstrt", "--out", "x.png"), "did you mean 'quickstart'"),
        (("tiny", "--out", "x.gif"), "end it in .png, .pdf, .svg"),
        (("tiny",), "--out"),
        (("tiny", "--out", f"{__file__}/x.png"), "give another --out"),
        (("tiny:1.2", "--out", "x.png"), "genes given"),
    ],
)
def test_mistakes_are_one_line(call: Callable[..., Any], words: tuple[str, ...], message: str) -> None:
    result = call("show", *words)
    assert result.exit_code == 2 and result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ") and message in line


def test_the_command_explains_itself(call: Callable[..., Any]) -> None:
    result = call("show", "--help")
    assert result.exit_code == 0 and "flynas show quickstart" in result.stdout.split("Example", 1)[1]


def test_it_is_listed_between_explain_and_plot(call: Callable[..., Any]) -> None:
    listed = call().stdout
    places = [listed.index(f" {command} ") for command in ("explain", "show", "plot")]
    assert places == sorted(places)

"""The page and the figure about ranking, from what `judge_ranking.py` has stored."""

from __future__ import annotations

import io
import json
import shlex
import textwrap
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import ranking_effects
from ranking_tasks import HEADLINE, PASSES, SEEDS, SPACES

from experiments.plots import COLOURS, INK, styled
from hw_models.errors import InputError
from nas import disk
from nas.ranking import LEAST, Ceiling, bootstrapped, ceiling, difference, kendall, within

GOAL, SHARE = 0.6, 0.85  # of tau, or of the noise ceiling: what issue 5 asks for
WIDTH = 120  # columns of the page
UNRANKABLE = "mobilenet_v3_fixed"
COUNTS = {"params": "parameters", "macs": "MACs"}
RESOLUTION = "input_hw"  # the decision


class Judged(NamedTuple):
    """What is stored about one space. `N` networks that were trained alone, in their order.

    Attributes:
        definition: the space itself, as `ranking_tasks` defines it today.
        genes: of the networks, `[N, D]`.
        errors: test errors after training alone, `[N, seeds]`.
        counts: what may rank networks without any training, the more the better, `[N]` each.
        supernets: by task, test and validation errors that the supernet gives to the `N` networks.
        images: how many test images.
    """

    name: str
    definition: Any
    settings: dict[str, Any]
    genes: np.ndarray
    errors: np.ndarray
    counts: dict[str, np.ndarray]
    supernets: dict[str, dict[str, Any]]
    images: int
    cpu_s: float

    @property
    def truth(self) -> np.ndarray:
        """Mean error over seeds `[N]`."""
        return self.errors.mean(1)

    @property
    def ceiling(self) -> Ceiling:
        """Of the ranking by `truth`."""
        return ceiling(self.errors[:, 0], self.errors[:, 1])

    @property
    def ordered(self) -> list[dict[str, Any]]:
        """Rows of supernets: the one that the goal is asked of, then others by the same rule, then other rules."""

        def place(item: tuple[str, dict[str, Any]]) -> tuple[bool, bool, int, bool]:
            task, row = item
            with_rate = task.count("/") > 2  # otherwise the evaluator's own
            return row["rule"] != HEADLINE, row["epochs"] != PASSES, row["epochs"], with_rate

        return [row for _, row in sorted(self.supernets.items(), key=place)]

    def by(self, passes: int) -> np.ndarray | None:
        """Test errors by the supernet of the rule `HEADLINE` with so many passes of all images; None without one.

        At the evaluator's own learning rate, which a task does not name.
        """
        row = self.supernets.get(f"shared/{HEADLINE}/{passes}")
        return None if row is None else row["test"]


def read_store(path: Path) -> dict[str, Any]:
    """What a store holds, by task, and its `settings`.

    Raises:
        InputError: it cannot be read, or is no store.
    """
    try:
        with disk.explained(path, "read"):
            found = json.loads(path.read_text())
    except ValueError as error:
        raise InputError(f"{path} is damaged ({error}): restore it, or remove it to start again") from error
    if not isinstance(found, dict) or not isinstance(found.get("settings"), dict):
        raise InputError(f"{path} is damaged (no settings): restore it, or remove it to start again")
    return found


def judged(name: str, stored: dict[str, Any]) -> Judged | None:
    """The rows of one store; None where too few networks are in it to be ranked.

    Example:
        >>> judged("flynet", {"settings": {"networks": 30}})
    """
    numbers = [n for n in range(stored["settings"]["networks"]) if f"alone/{n}" in stored]
    rows = [stored[f"alone/{n}"] for n in numbers]
    if len(rows) < LEAST:
        return None
    genes = np.asarray([row["genes"] for row in rows], np.int32)
    counts = {label: np.asarray([row[count] for row in rows]) for count, label in COUNTS.items()}
    definition = SPACES[name]()
    if RESOLUTION in definition.names:
        counts["resolution"] = genes[:, definition.names.index(RESOLUTION)]
    supernets = {
        task: {**row, **{part: np.asarray(row[part])[numbers] / row["of"][part] for part in ("test", "validation")}}
        for task, row in stored.items()
        if task.startswith("shared/")
    }
    return Judged(
        name,
        definition,
        stored["settings"],
        genes,
        np.asarray([np.asarray(row["test"]) / row["of"]["test"] for row in rows]),
        counts,
        supernets,
        rows[0]["of"]["test"],
        float(sum(row.get("cpu_s", 0) for task, row in stored.items() if task != "settings")),
    )


def verdict(tau: float, top: Ceiling) -> str:
    """Whether a tau is what was asked for.

    Example:
        >>> verdict(0.55, Ceiling(0.5, 0.6))
        'the goal is met: 0.55 is at least 85 % of the ceiling, 0.51'
    """
    share = SHARE * top.mean
    if tau >= GOAL:
        return f"the goal is met: {tau:.2f} is at least {GOAL}"
    if tau >= share:
        return f"the goal is met: {tau:.2f} is at least {SHARE:.0%} of the ceiling, {share:.2f}".replace("%", " %")
    return f"the goal is missed: {tau:.2f} is below {min(GOAL, share):.2f}"


def section(space: Judged) -> str:
    """Table and sentences about one space."""
    truth, counts = space.truth, space.counts
    columns = ["ranked by", "tau, test images", *(f"beyond {label}" for label in counts), "tau, validation images"]
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    for row in space.ordered:
        beyond = [difference(-row["test"], values, -truth).text(signed=True) for values in counts.values()]
        lines.append(
            f"| supernet, {described(row)} | {bootstrapped(row['test'], truth).text()} | "
            + " | ".join(beyond)
            + f" | {bootstrapped(row['validation'], truth).text()} |"
        )
    for label, values in counts.items():
        lines.append(
            f"| {label}, the more the better | {bootstrapped(-values, truth).text()} |" + " |" * (len(counts) + 1)
        )
    said = "\n\n".join(textwrap.fill(text, WIDTH) for text in sentences(space))
    judgements = {"trained alone": truth, **{f"supernet, {described(row)}": row["test"] for row in space.ordered}}
    effects = ranking_effects.table(space.definition, space.genes, judgements) if space.supernets else []
    return "\n".join(lines) + f"\n\n{said}" + ("\n\n" + EFFECTS + "\n" + "\n".join(effects) if effects else "")


def described(row: dict[str, Any]) -> str:
    """How a supernet was trained."""
    return f"`{row['rule']}`, {row['epochs']} epochs, learning rate {row['learning_rate']:g}"


def sentences(space: Judged) -> list[str]:
    """What the table does not say."""
    truth, top, wanted = space.truth, space.ceiling, space.settings["networks"]
    apart = np.abs(space.errors[:, 0] - space.errors[:, 1])
    said = [
        f"Noise: two trainings of the same networks rank them with tau {bootstrapped(*space.errors.T[:2]).text()}; "
        f"so a perfect judgement would reach about {top.mean:.2f} against their mean, the ceiling. Errors go from "
        f"{truth.min():.4f} to {truth.max():.4f} (deviation {truth.std(ddof=1):.4f}), those of two seeds are "
        f"{apart.mean():.4f} apart on average. The networks have {_span(space.counts['parameters'])} parameters and "
        f"{_span(space.counts['MACs'])} MACs."
    ]
    named = [row for row in space.ordered if row["rule"] == HEADLINE]
    said += [f"By the supernet {described(row)}, {verdict(kendall(row['test'], truth), top)}." for row in named]
    if (sizes := space.counts.get("resolution")) is not None:
        said.append(same_resolution(space, sizes))
    if not named and space.name == UNRANKABLE:
        said.append("No supernet was trained for it: there is no order to be seen that it could find.")
    elif not named:
        said.append(f"The supernet `{HEADLINE}` is not trained yet.")
    if len(truth) < wanted:
        said.append(f"**Not complete: {len(truth)} of {wanted} networks are in it.**")
    said.append(f"Processor time so far: {space.cpu_s / 3600:.1f} h, beside other work on the machine.")
    return said


def same_resolution(space: Judged, sizes: np.ndarray) -> str:
    """How well networks are ranked whose resolution says nothing."""
    pairs = int((np.equal.outer(sizes, sizes).sum() - len(sizes)) / 2)
    seeds = within(*space.errors.T[:2], sizes)
    taus = [f"{seeds.text()} between the two trainings"]
    for row in space.ordered:
        taus.append(f"{within(row['test'], space.truth, sizes).text()} with the supernet {described(row)}")
    taus.append(f"{within(-space.counts['MACs'], space.truth, sizes).text()} with MACs")
    said = f"Among networks of one resolution ({pairs} pairs) tau is {'; '.join(taus)}."
    if not seeds.low > 0:
        said += " The interval between the trainings holds 0: the order tested here is mostly that of resolutions."
    if kendall(-sizes, space.truth) > space.ceiling.mean:
        said += " Resolution is above the ceiling, which is estimated as if errors were normal and nothing tied."
    return said


def _span(values: np.ndarray) -> str:
    return f"{values.min():,} to {values.max():,}"


def check(space: Judged, first: Judged) -> None:
    """Whether the page, which speaks of one experiment, may show `space` beside the `first` one.

    Raises:
        InputError: it was judged with other settings, or its definition has changed since.
    """
    ours, others = ({**each.settings, "space": ""} for each in (space, first))
    if ours != others:
        raise InputError(f"{space.name} was judged with {ours}, {first.name} with {others}: give each a folder (--out)")
    if space.settings["space"] != space.definition.fingerprint:
        raise InputError(f"the results of {space.name} are of another space of that name: remove them, or use --out")


def commands(space: Judged) -> str:
    """What has to be run for the rows of a section."""
    trainings: dict[tuple[int, float], list[str]] = {} if space.supernets else {(PASSES, 0.0): []}
    for task in space.supernets:
        _, rule, passes, *rate = task.split("/")
        trainings.setdefault((int(passes), float(rate[0]) if rate else 0.0), []).append(rule)
    lines = []
    for (passes, rate), rules in sorted(trainings.items()):
        options = [] if passes == PASSES else ["--passes", str(passes)]
        options += ["--learning-rate", str(rate)] if rate else []
        named = sorted(rules, key=lambda rule: rule != HEADLINE)
        command = ["python", "scripts/judge_ranking.py", space.name, *options, "--rules", *named]
        lines.append("    " + shlex.join(command))
    return "\n".join(lines)


def page(spaces: list[Judged]) -> str:
    """The whole page."""
    some = spaces[0].settings
    text = PAGE.format(
        networks=some["networks"], epochs=some["epochs"], seeds=len(SEEDS), validation=some["validation"],
        data=some["data"], test=spaces[0].images, headline=HEADLINE, passes=PASSES, goal=GOAL, share=round(SHARE * 100),
    )  # fmt: skip
    sections = [f"## {space.name}\n\n{commands(space)}\n\n{section(space)}" for space in spaces]
    return "\n".join([text, "\n\n".join(sections), ""])


@styled
def figure(spaces: list[Judged]) -> Any:
    """Errors after training alone over those of supernets, over MACs and over parameters: a row for each space."""
    import matplotlib.pyplot as plt

    epochs = {row["epochs"] for space in spaces for row in space.supernets.values()}
    longer = {number for number in epochs - {PASSES} if any(space.by(number) is not None for space in spaces)}
    trainings = (PASSES, *sorted(longer))
    columns = len(trainings) + 2
    picture, axes = plt.subplots(
        len(spaces), columns, figsize=(3.3 * columns, 3.2 * len(spaces)), squeeze=False, sharey="row",
        layout="constrained",
    )  # fmt: skip
    for row, (space, colour) in enumerate(zip(spaces, COLOURS, strict=False)):
        shown: list[tuple[str, np.ndarray | None, bool]] = [
            *((f"supernet's test error, {HEADLINE}, {passes} epochs", space.by(passes), False) for passes in trainings),
            ("million MACs", space.counts["MACs"] / 1e6, True),
            ("thousand parameters", space.counts["parameters"] / 1e3, True),
        ]
        for axis, (label, score, more) in zip(axes[row], shown, strict=True):
            axis.set_xlabel(label)
            axis.locator_params(axis="x", nbins=5)
            if score is None:
                missing = "none" if space.name == UNRANKABLE else "not trained"
                axis.text(0.5, 0.5, missing, ha="center", transform=axis.transAxes, color=INK)
                axis.set_xticks([])
                continue
            tau = bootstrapped(-score if more else score, space.truth)
            off = np.abs(space.errors - space.truth[:, None]).max(1)  # both seeds lie on the ends of the bar
            axis.errorbar(score, space.truth, off, fmt="o", ms=4, lw=1, color=colour)
            axis.set_title(f"tau {tau.text()}", fontsize=9)
        axes[row][0].set_ylabel(f"{space.name}\ntest error, trained alone")
    return picture


def write(folder: Path) -> str:
    """Page and figure beside the stores in `folder`; the text, empty where there is too little to show."""
    stores = {name: folder / f"ranking_{name}.json" for name in SPACES}
    found = [judged(name, read_store(path)) for name, path in stores.items() if path.is_file()]
    spaces = [space for space in found if space is not None]
    for space in spaces:
        check(space, spaces[0])
    if not spaces:
        return ""
    import matplotlib.pyplot as plt

    text, picture = page(spaces), figure(spaces)
    drawn = io.BytesIO()
    picture.savefig(drawn, format="png", dpi=100)
    plt.close(picture)
    disk.replace(folder / "ranking.png", drawn.getvalue())
    disk.replace(folder / "ranking.md", text.encode())
    return text


PAGE = """\
# How well the supernet ranks networks

{networks} networks are drawn uniformly from a space and trained alone for {epochs} epochs on the training images of
`{data}` but {validation:,}, with {seeds} seeds (of weights and of the order of images). Their error on all {test:,}
test images, averaged over seeds, is the truth here. A supernet is trained on the same images and judges the same
networks: for each of them normalisation statistics are set from training images, then mistakes are counted on the test
images, and on the {validation:,} images that were left out, which is what a search would see. Where a supernet's
learning rate is not the evaluator's own, the command was given `--learning-rate`; everything else is the evaluator's.
All numbers are Kendall's tau-b, with 95 % intervals by bootstrap over networks; differences are paired. "Beyond" is how
much higher the supernet's tau is than that of the count: an interval that holds 0 is no gain.

The goal is a tau of at least {goal}, or {share} % of the noise ceiling. It is asked of the rule `{headline}` with
{passes} passes of all images, which was named before there were results. Longer trainings, where there are any, were
made after that one had missed the goal; other rules have as many passes of images through networks. To pick the best by
this table would be to choose by the test.

All spaces are those of the package (`mobilenet_v3[width=0.15]` and `flynet[width=0.25]`) for 28x28 pixels, with strides
moved to the front, so that networks are about as large as the quickstart's; some are smaller, as the numbers below say.

- `mobilenet_v3` has the published choices: kernel and expansion of each block, depth (here 1 to 3) of each stage, and
  the resolution.
- `flynet` has those of a FlyNet block (heads, attention, reduction, residual) and the widths that round to different
  multiples of 8, with one to as many blocks a stage as are published, and the same resolutions.
- `mobilenet_v3_wide` chooses one of three widths, one to three blocks, all alike, expansions of 1, 3 or 6 and kernels
  in each stage after the first. Shared weights undervalue its widths and overvalue its kernels, as the table of effects
  says. So does `sandwich`, which trains the widest network in every step; the cause is not known.
- `mobilenet_v3_fixed` is the first at one resolution, with 2 to 4 blocks and the last stage halved too. Two trainings
  of the same networks order them differently: none was found to be better than another.

The last two were defined by what networks trained alone showed, before any supernet was. Then a supernet missed the
goal in `mobilenet_v3_wide`, first with a learning rate of 0.1, which had trained another space better for some epochs,
and the first two were defined as they are now, with resolutions. The trainings are short: this is how networks rank
after {epochs} epochs, which need not be their order after thirty.

![Errors of networks trained alone, over what ranks them](ranking.png)

Points are means of the two seeds, which are the ends of the bars.
"""

EFFECTS = """\
What one step more of a decision, everywhere at once, does to the error, as a share of the mean error of that row (least
squares over the networks, ± one standard error; decisions without an order are left out):
"""

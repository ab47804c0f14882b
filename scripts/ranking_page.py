"""The page and the figure about ranking, from what `judge_ranking.py` has stored."""

from __future__ import annotations

import io
import json
import textwrap
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import ranking_effects
from ranking_tasks import HEADLINE, SEEDS, SPACES

from experiments.plots import COLOURS, INK, styled
from nas import disk
from nas.ranking import LEAST, Ceiling, bootstrapped, ceiling, difference, kendall

GOAL, SHARE = 0.6, 0.85  # of tau, or of the noise ceiling: what issue 5 asks for
WIDTH = 120  # columns of the page
UNRANKABLE = "mobilenet_v3_fixed"


class Judged(NamedTuple):
    """What is stored about one space. `N` networks that were trained alone, in their order.

    Attributes:
        genes: of the networks, `[N, D]`.
        errors: test errors after training alone, `[N, seeds]`.
        counts: `params` and `macs`, `[N]` each.
        supernets: by task, test and validation errors that the supernet gives to the `N` networks.
        images: how many test images.
    """

    name: str
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
        """Rows of supernets: the rule that was named before there were results first, then the longest training."""
        return sorted(self.supernets.values(), key=lambda row: (row["rule"] != HEADLINE, -row["epochs"]))

    @property
    def headline(self) -> dict[str, Any] | None:
        """The supernet that the goal is asked of."""
        return next((row for row in self.ordered if row["rule"] == HEADLINE), None)


def judged(name: str, stored: dict[str, Any]) -> Judged | None:
    """The rows of one store; None where too few networks are in it to be ranked.

    Example:
        >>> judged("flynet", {"settings": {"networks": 30}})
    """
    numbers = [n for n in range(stored["settings"]["networks"]) if f"alone/{n}" in stored]
    rows = [stored[f"alone/{n}"] for n in numbers]
    if len(rows) < LEAST:
        return None
    supernets = {
        task: {**row, **{part: np.asarray(row[part])[numbers] / row["of"][part] for part in ("test", "validation")}}
        for task, row in stored.items()
        if task.startswith("shared/")
    }
    return Judged(
        name,
        stored["settings"],
        np.asarray([row["genes"] for row in rows], np.int32),
        np.asarray([np.asarray(row["test"]) / row["of"]["test"] for row in rows]),
        {count: np.asarray([row[count] for row in rows]) for count in ("params", "macs")},
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
    truth = space.truth
    lines = [
        "| ranked by | tau, test images | beyond params | beyond MACs | tau, validation images |",
        "|---|" + "---|" * 4,
    ]
    against = {count: -values for count, values in space.counts.items()}  # the more, the better
    for row in space.ordered:
        beyond = [
            difference(-row["test"], values, -truth).text(signed=True)
            for values in (-against["params"], -against["macs"])
        ]
        lines.append(
            f"| supernet, {described(row)} | {bootstrapped(row['test'], truth).text()} | "
            + " | ".join(beyond)
            + f" | {bootstrapped(row['validation'], truth).text()} |"
        )
    for count, label in (("params", "parameters"), ("macs", "MACs")):
        lines.append(f"| {label}, the more the better | {bootstrapped(against[count], truth).text()} | | | |")
    said = "\n\n".join(textwrap.fill(text, WIDTH) for text in sentences(space))
    judgements = {"trained alone": truth, **{f"supernet, {described(row)}": row["test"] for row in space.ordered}}
    effects = ranking_effects.table(SPACES[space.name](), space.genes, judgements) if space.supernets else []
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
        f"{apart.mean():.4f} apart on average. The networks have {_span(space.counts['params'])} parameters and "
        f"{_span(space.counts['macs'])} MACs."
    ]
    if (row := space.headline) is not None:
        said.append(f"By the supernet {described(row)}, {verdict(kendall(row['test'], truth), top)}.")
    elif space.name == UNRANKABLE:
        said.append("No supernet was trained for it: there is no order that it could find.")
    else:
        said.append(f"The supernet `{HEADLINE}` is not trained yet.")
    if len(truth) < wanted:
        said.append(f"**Not complete: {len(truth)} of {wanted} networks are in it.**")
    said.append(f"Processor time so far: {space.cpu_s / 3600:.1f} h, beside other work on the machine.")
    return said


def _span(values: np.ndarray) -> str:
    return f"{values.min():,} to {values.max():,}"


def page(spaces: list[Judged]) -> str:
    """The whole page."""
    some = spaces[0].settings
    text = PAGE.format(
        networks=some["networks"], epochs=some["epochs"], seeds=len(SEEDS), validation=some["validation"],
        data=some["data"], test=spaces[0].images, headline=HEADLINE, goal=GOAL, share=round(SHARE * 100),
    )  # fmt: skip
    return text + "\n" + "\n\n".join(f"## {space.name}\n\n{section(space)}" for space in spaces) + "\n"


@styled
def figure(spaces: list[Judged]) -> Any:
    """Errors after training alone over those of the supernet, over MACs and over parameters: a row for each space."""
    import matplotlib.pyplot as plt

    picture, axes = plt.subplots(
        len(spaces), 3, figsize=(10, 3.2 * len(spaces)), squeeze=False, sharey="row", layout="constrained"
    )
    for row, (space, colour) in enumerate(zip(spaces, COLOURS, strict=False)):
        shown: list[tuple[str, np.ndarray | None, bool]] = [
            (f"supernet's test error, {HEADLINE}", None if space.headline is None else space.headline["test"], False),
            ("million MACs", space.counts["macs"] / 1e6, True),
            ("thousand parameters", space.counts["params"] / 1e3, True),
        ]
        for axis, (label, score, more) in zip(axes[row], shown, strict=True):
            axis.set_xlabel(label)
            axis.locator_params(axis="x", nbins=5)
            if score is None:
                missing = "none" if space.name == UNRANKABLE else "not trained yet"
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
    found = [judged(name, json.loads(path.read_text())) for name, path in stores.items() if path.is_file()]
    spaces = [space for space in found if space is not None]
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

    python scripts/judge_ranking.py mobilenet_v3
    python scripts/judge_ranking.py flynet

{networks} networks are drawn uniformly from a space and trained alone for {epochs} epochs on the training images of
`{data}` but {validation:,}, with {seeds} seeds (of weights and of the order of images). Their error on all {test:,}
test images, averaged over seeds, is the truth here. A supernet is trained on the same images and judges the same
networks: for each of them normalisation statistics are set from training images, then mistakes are counted on the test
images, and on the {validation:,} images that were left out, which is what a search would see. Where a supernet's
learning rate is not the evaluator's own, the command was given `--learning-rate`; everything else is the evaluator's.
All numbers are Kendall's tau-b, with 95 % intervals by bootstrap over networks; differences are paired. "Beyond" is how
much higher the supernet's tau is than that of the count: an interval that holds 0 is no gain.

The goal is a tau of at least {goal}, or {share} % of the noise ceiling. It is asked of the rule `{headline}`, the
evaluator's default, which was named before there were results, and of its longest training. Other rules stand beside
it, with as many passes of images through networks; to pick the best of them by this table would be to choose by the
test.

All spaces are the package's own (`mobilenet_v3[width=0.15]` and `flynet[width=0.25]`) for 28x28 pixels, halved early,
so that networks are about as large as the quickstart's; some are smaller, as the numbers below say.

- `mobilenet_v3` has the published choices: kernel and expansion of each block, depth (here 1 to 3) of each stage, and
  the resolution.
- `flynet` has those of a FlyNet block (heads, attention, reduction, residual) and the widths that round to different
  multiples of 8, with one to as many blocks a stage as are published, and the same resolutions.
- `mobilenet_v3_wide` chooses one of three widths, one to three blocks, all alike, expansions of 1, 3 or 6 and kernels
  in each stage after the first. Shared weights find that hard: channels that only wide networks use are trained least.
- `mobilenet_v3_fixed` is the first without its resolutions. Networks drawn uniformly from it are so much alike that
  two trainings of the same ones order them differently: there is nothing to rank.

What spaces hold was decided on networks trained alone. The resolutions came back after a supernet had missed the goal
in `mobilenet_v3_wide`, which is why that result stays here. The trainings are short: this is how networks rank after
{epochs} epochs, which need not be their order after thirty.

![Errors of networks trained alone, over what ranks them](ranking.png)

Points are means of the two seeds, which are the ends of the bars.
"""

EFFECTS = """\
What one step more of a decision, everywhere at once, does to the error, as a share of the mean error (least squares
over the networks, ± one standard error; decisions without an order are left out):
"""

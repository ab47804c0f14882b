"""The page and the figure about ranking, from what `judge_ranking.py` has stored."""

from __future__ import annotations

import io
import json
import textwrap
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ranking_tasks import HEADLINE, SEEDS, SPACES, SUPERNET_RATE

from experiments.plots import COLOURS, INK, styled
from nas import disk
from nas.ranking import LEAST, Ceiling, bootstrapped, ceiling, difference, kendall

GOAL, SHARE = 0.6, 0.85  # of tau, or of the noise ceiling: what issue 5 asks for
WIDTH = 120  # columns of the page
UNRANKABLE = "mobilenet_v3_fixed"


class Judged(NamedTuple):
    """What is stored about one space. `N` networks that were trained alone, in their order.

    Attributes:
        errors: test errors after training alone, `[N, seeds]`.
        counts: `params` and `macs`, `[N]` each.
        supernets: by task, test and validation errors that the supernet gives to the `N` networks.
        images: how many test images.
    """

    name: str
    settings: dict[str, Any]
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
    def headline(self) -> dict[str, Any] | None:
        """The supernet that was named before there were results."""
        return next((row for row in self.supernets.values() if row["rule"] == HEADLINE), None)


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
    for row in sorted(space.supernets.values(), key=lambda row: row["rule"] != HEADLINE):
        beyond = [
            difference(-row["test"], values, -truth).text(signed=True)
            for values in (-against["params"], -against["macs"])
        ]
        lines.append(
            f"| supernet, `{row['rule']}`, {row['epochs']} epochs | {bootstrapped(row['test'], truth).text()} | "
            + " | ".join(beyond)
            + f" | {bootstrapped(row['validation'], truth).text()} |"
        )
    for count, label in (("params", "parameters"), ("macs", "MACs")):
        lines.append(f"| {label}, the more the better | {bootstrapped(against[count], truth).text()} | | | |")
    return "\n".join(lines) + "\n\n" + "\n\n".join(textwrap.fill(text, WIDTH) for text in sentences(space))


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
        said.append(f"By the supernet `{row['rule']}`, {verdict(kendall(row['test'], truth), top)}.")
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
        rate=SUPERNET_RATE,
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
            if score is None:
                missing = "none" if space.name == UNRANKABLE else "not trained yet"
                axis.text(0.5, 0.5, missing, ha="center", transform=axis.transAxes, color=INK)
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
test images, averaged over seeds, is the truth here. A supernet is trained on the same images, with the evaluator's own
settings (but a learning rate of {rate}), and judges the same networks: for each of them normalisation statistics are
set from training images, then mistakes are counted on the test images, and on the {validation:,} images that were left
out, which is what a search would see. All numbers are Kendall's tau-b, with 95 % intervals by bootstrap over networks;
differences are paired.
"Beyond" is how much higher the supernet's tau is than that of the count: an interval that holds 0 is no gain.

The goal is a tau of at least {goal}, or {share} % of the noise ceiling. It is asked of the rule `{headline}`, the
evaluator's default, which was named before there were results. Other rules stand beside it, with the same number of
passes of images through networks; to pick the best of them by this table would be to choose by the test.

Both spaces are the package's own (`mobilenet_v3[width=0.15,resolutions=1]` and `flynet[width=0.25]`) at 28x28 with the
strides of 2 in the stem, the second and the last stage. After the first stage each chooses one of three widths, one to
three blocks, all alike, and expansions of 1, 3 or 6, beside kernels in `mobilenet_v3` and heads, attention, reduction
and residual in `flynet`. With the published choices alone, `mobilenet_v3_fixed`, networks drawn uniformly are so much
alike that two trainings of the same ones order them differently (below): there is nothing to rank. Larger widths for
blocks that choose for themselves were tried and given up, for many small decisions average out. All that was decided on
networks trained alone, before any supernet was. Some networks are smaller than the quickstart's, as the numbers below
say. The trainings are short: this is how networks rank after {epochs} epochs, which need not be their order after
thirty.

![Errors of networks trained alone, over what ranks them](ranking.png)

Points are means of the two seeds, which are the ends of the bars.
"""

"""Predicted against measured times: figures, an ablation, and draws of few networks to calibrate on."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from experiments.measured import Measured, Row, read_measured
from experiments.plots import COLOURS, FAINT, INK, blank, styled
from hw_models import Device, Workload, load_device
from hw_models.ablation import terms, without
from hw_models.accuracy import LEAST, Accuracy, accuracy, figures
from hw_models.calibrate import Fit, calibrate, held_out, predict, rows, same_network
from hw_models.errors import InputError
from hw_models.estimate import estimate
from hw_models.formats import parse_format
from hw_models.precision import apply_precision

FIGURES = Accuracy._fields[1:]
WORDS = {
    "spearman": "rank correlation (Spearman)",
    "kendall": "pairs in order (Kendall)",
    "within_5": "within 5 %",
    "within_10": "within 10 %",
    "mape": "mean error",
    "typical_error": "error of two thirds",
}
BATCHED = 512  # networks priced by one call: more only take memory


class Case(NamedTuple):
    """A device and the networks measured on it, `workload` `[N, L]` in the precision they ran in."""

    device: Device
    measured: Measured
    workload: Workload
    precision: str
    note: str


def prepare(
    device: str, path: Path, precision: str | None = None, watch: Callable[[list[Row]], Iterable[Row]] = iter
) -> Case:
    """The device by name or path and the networks of a CSV file.

    Raises:
        InputError: bad device or file; the file says another precision than asked for; threads of a device that is
            no CPU.
    """
    machine = load_device(device)
    measured = read_measured(path, watch)
    said = measured.settings.get("precision")
    if said is not None and precision not in (None, said) and parse_format(said) != parse_format(str(precision)):
        raise InputError(f"{path} was measured in {said}: leave out --precision {precision}")
    if "threads" in measured.settings:
        machine = _with_threads(machine, measured)
    try:
        work, chosen, note = apply_precision(machine, measured.workload, said if precision is None else precision)
    except InputError as error:
        if precision is not None:
            raise
        raise InputError(f"{path}, column 'precision': {error}") from error
    return Case(machine, measured, work, chosen, note)


def _with_threads(machine: Device, measured: Measured) -> Device:
    threads = measured.settings["threads"]
    if machine.kind != "cpu":
        raise InputError(
            f"{measured.path}: column 'threads' is for CPUs, and {machine.name} is of kind {machine.kind}: remove it, "
            "or give a CPU"
        )
    if not threads.isdecimal() or int(threads) < 1:
        raise InputError(f"{measured.path}: threads is {threads!r}: give a whole number of at least 1")
    return machine.with_numbers(compute__units=int(threads))


def predicted(device: Device, case: Case) -> np.ndarray:
    """Seconds per run that `device` says for each network of `case`, `[N]`."""
    return _in_parts(partial(predict, busy=case.measured.busy), device, case)


def too_large(case: Case) -> dict[str, float]:
    """Networks that the device, by its model, cannot hold, with how many times its scarcest resource they need."""
    share = _in_parts(_needed, case.device, case)
    return {case.measured.networks[i]: float(share[i]) for i in np.argsort(-share) if share[i] > 1}


@jax.jit
def _needed(device: Device, networks: Workload, batch: Array) -> Array:
    return jax.vmap(lambda work, images: estimate(device, work, images).resource_fraction)(networks, batch)


def _in_parts(price: Callable[[Device, Workload, Array], Array], device: Device, case: Case) -> np.ndarray:
    """A price of each network, `[N]`, by calls of one shape."""
    batch = np.asarray(case.measured.batch, np.float32)
    count = len(batch)
    length = min(count, BATCHED)
    found = np.empty(count)
    for start in range(0, count, length):
        index = np.minimum(np.arange(start, start + length), count - 1)  # one shape, one compilation
        part = price(device.unnamed(), rows(case.workload, index), jnp.asarray(batch[index]))
        found[start : start + length] = np.asarray(part)[: count - start]
    return found


def by_macs(case: Case) -> np.ndarray:
    """Multiply-accumulates of a run of each network, `[N]`: what a user without a model would rank by."""
    return np.asarray(case.workload.macs.sum(-1), float) * case.measured.batch


def judge(case: Case) -> Accuracy:
    """Agreement of the device as it is."""
    return accuracy(predicted(case.device, case), case.measured.seconds)


def ablation(case: Case) -> list[dict[str, Any]]:
    """Agreement of the device without each of its terms, all of them first; ranks, and errors after one common factor.

    The factor (the median ratio) is taken out because a model without a term is too fast throughout.
    """
    found = []
    switched = {"all terms": {}, **terms(case.device.kind)}
    for name, term in switched.items():
        found.append({"name": name, **_ranked(predicted(without(case.device, term), case), case.measured.seconds)})
    found.append({"name": "multiply-accumulates alone", **_ranked(by_macs(case), case.measured.seconds)})
    return found


def _ranked(guess: np.ndarray, seconds: np.ndarray) -> dict[str, float]:
    found = figures(guess * np.exp(np.median(np.log(seconds / guess))), seconds)
    # Equal guesses, which have no rank correlation, rank nothing.
    return {name: float(np.nan_to_num(found[name])) for name in ("spearman", "within_10", "mape")}


def draws(case: Case, networks: int, count: int, seed: int = 0) -> list[dict[str, float]]:
    """Fit on `networks` random ones and judge on those that none of them equals, `count` times.

    Raises:
        InputError: too few networks to fit, or none left to judge on.
    """
    total = len(case.measured.seconds)
    if networks < 1 or count < 1:
        raise InputError(f"{count} draws of {networks} networks are not possible: give numbers from 1")
    if networks > total - LEAST:
        raise InputError(f"--fit {networks} leaves {max(total - networks, 0)} of {total} networks to judge: give fewer")
    same = same_network(case.workload, case.measured.batch)
    random, found = np.random.default_rng(seed), []
    for _ in range(count):
        order = random.permutation(total)
        seen, unseen = np.sort(order[:networks]), order[networks:]
        unseen = unseen[~np.isin(same[unseen], same[seen])]
        if len(unseen) < LEAST:
            raise InputError(
                f"--fit {networks} leaves {len(unseen)} networks unlike those: measure others, or fit fewer"
            )
        fit = fitted(case, seen)
        guess, seconds = predicted(fit.device, case)[unseen], case.measured.seconds[unseen]
        found.append(figures(guess, seconds))
    return found


def fitted(case: Case, index: Any = slice(None)) -> Fit:
    """The device calibrated on some of the networks."""
    measured = case.measured
    batch, seconds = measured.batch[index], measured.seconds[index]
    return calibrate(case.device, rows(case.workload, index), batch, seconds, case.precision, measured.busy)


def judged_blind(case: Case, seed: int = 0) -> tuple[np.ndarray, Accuracy]:
    """Predictions of each network by fits that have not seen it, `[N]`, and their agreement."""
    measured = case.measured
    guess = held_out(case.device, case.workload, measured.batch, measured.seconds, case.precision, seed, measured.busy)
    return guess, accuracy(guess, measured.seconds)


@styled
def draw(guess: np.ndarray, seconds: np.ndarray, title: str, agreement: Accuracy) -> Any:
    """Predicted over measured milliseconds, with the lines of no and of 10 % error."""
    figure, axes = blank()
    figure.set_size_inches(3.4, 3.4)
    x, y = seconds * 1e3, np.asarray(guess) * 1e3
    low, high = 0.93 * min(x.min(), y.min()), 1.07 * max(x.max(), y.max())
    ends = np.asarray([low, high])
    axes.fill_between(ends, 0.9 * ends, 1.1 * ends, color=FAINT, alpha=0.35, linewidth=0, label="within 10 %")
    axes.plot(ends, ends, color=INK, linewidth=0.7)
    many = len(x) > 300
    axes.plot(
        x, y, ".", color=COLOURS[0], markersize=2.5 if many else 4.5, alpha=0.35 if many else 0.8, markeredgewidth=0
    )
    if high / low > 8:
        from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

        axes.set_xscale("log")
        axes.set_yscale("log")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            axis.set_major_formatter(StrMethodFormatter("{x:g}"))
            axis.set_minor_formatter(NullFormatter())
    axes.set(xlim=(low, high), ylim=(low, high), xlabel="measured (ms)", ylabel="predicted (ms)", aspect="equal")
    axes.set_title(title, loc="left", color=INK)
    sentence = (
        f"{agreement.networks:,} networks\nSpearman {agreement.spearman.value:.4f}\n"
        f"{agreement.within_10.value:.0%} within 10 %\nmean error {agreement.mape.value:.1%}"
    )
    axes.text(0.04, 0.96, sentence, transform=axes.transAxes, va="top", fontsize=7, color=INK)
    axes.legend(frameon=False, loc="lower right")
    return figure

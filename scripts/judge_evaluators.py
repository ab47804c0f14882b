"""How well surrogates and zero-cost proxies rank networks whose published accuracies are known.

    python scripts/judge_evaluators.py surrogate|proxies [--out FOLDER]

Adds to `FOLDER/surrogate.json` or `FOLDER/proxies.json` (docs/results) what is not in it yet, so that a run that was
stopped goes on, and writes the page of the same name from it. Kendall's tau, with intervals over seeds or networks.
"""

from __future__ import annotations

import argparse
import json
import textwrap
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from nas.ranking import kendall

SIZES, SEEDS, UNSEEN = (100, 200, 500), 5, 1500
NETWORKS, BATCH = 100, 32
PROXIES = ("params", "macs", "grad_norm", "snip", "grasp", "synflow", "fisher", "jacob_cov")


class Store:
    """Results by key, on the disk after each."""

    def __init__(self, path: Path):
        self.path = path
        self.rows: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}

    def get(self, key: str, make: Callable[[], Any]) -> Any:
        """What is stored under `key`, made first where it is missing."""
        if key not in self.rows:
            self.rows[key] = make()
            self.path.write_text(json.dumps(self.rows, indent=0, sort_keys=True) + "\n")
            print(key, flush=True)
        return self.rows[key]


def published(space: Any) -> tuple[np.ndarray, np.ndarray]:
    """Genes `[N, D]` and mean errors `[N]` of the networks of the table of `space`."""
    from nas.evaluators import tabular

    genes = tabular.networks(space)
    return genes, np.asarray(tabular.evaluator(space).evaluate(None, (), genes, None).error, np.float64)  # type: ignore[arg-type]


def models(space: Any) -> dict[str, Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]]:
    """Functions from genes, errors and other genes to predictions, by name."""
    from sklearn.ensemble import BaggingRegressor, ExtraTreesRegressor, GradientBoostingRegressor, RandomForestRegressor
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel
    from sklearn.linear_model import RidgeCV

    from nas.surrogate import ALPHAS, TREES, features, fit

    def of(make: Callable[[], Any]) -> Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]:
        def run(genes: np.ndarray, errors: np.ndarray, others: np.ndarray) -> np.ndarray:
            return np.exp(make().fit(features(space, genes), np.log(errors)).predict(features(space, others)))

        return run

    def gaussian() -> Any:
        kernel = ConstantKernel(1.0) * RBF(2.0) + WhiteKernel(1e-2)
        return GaussianProcessRegressor(kernel, normalize_y=True, random_state=0)

    trees = GradientBoostingRegressor(**TREES, random_state=0)
    return {
        "ours: ridge and boosted trees, bagged": lambda genes, errors, others: (
            fit(space, genes, errors).predict(others).error
        ),
        "boosted trees, bagged": of(lambda: BaggingRegressor(trees, 20, random_state=0)),
        "ridge regression": of(lambda: RidgeCV(ALPHAS)),
        "Gaussian process, RBF": of(gaussian),
        "random forest": of(lambda: RandomForestRegressor(200, random_state=0)),
        "extra trees": of(lambda: ExtraTreesRegressor(200, random_state=0)),
    }


def judge_surrogates(store: Store) -> str:
    """The page on surrogates."""
    import warnings

    from search_spaces.spaces import macro, mnasnet

    warnings.filterwarnings("ignore", module="sklearn")  # bounds of the kernel's parameters
    parts = []
    for title, space in (("NAS-Bench-Macro", macro.space()), ("Accel-NASBench", mnasnet.space())):
        genes, errors = published(space)
        lines = [f"| {title} | " + " | ".join(f"{size} networks" for size in SIZES) + " | fit and predict |",
                 "|---|" + "---|" * (len(SIZES) + 1)]  # fmt: skip
        for name, model in models(space).items():
            cells, seconds = [], []
            for size in SIZES:
                found = [
                    store.get(f"{title}/{name}/{size}/{seed}", partial(one, model, genes, errors, size, seed))
                    for seed in range(SEEDS)
                ]
                taus = [each["tau"] for each in found]
                cells.append(f"{np.mean(taus):.3f} +- {np.std(taus, ddof=1):.3f}")
                seconds += [each["seconds"] for each in found]
            lines.append(f"| {name} | " + " | ".join(cells) + f" | {np.mean(seconds):.1f} s |")
        parts.append("\n".join(lines))
        own = [
            store.get(f"{title}/out of bag/{size}/{seed}", partial(out_of_bag, space, genes, errors, size, seed))
            for size in SIZES
            for seed in range(SEEDS)
        ]
        off = np.mean([abs(each["tau"] - each["true_tau"]) for each in own])
        ratio = np.mean([each["rmse"] / each["true_rmse"] for each in own])
        within = np.mean([each["within"] for each in own])
        said = (
            f"Out of bag our ensemble states a tau that is {off:.3f} from the true one on average, and an rmse of "
            f"{ratio:.2f} times the true one; {within:.0%} of unseen networks are within one stated deviation (68 % "
            "should be)."
        )
        parts.append(textwrap.fill(said, 120))
    return SURROGATE.format(tables="\n\n".join(parts), seeds=SEEDS, unseen=UNSEEN)


def one(model: Any, genes: np.ndarray, errors: np.ndarray, size: int, seed: int) -> dict[str, float]:
    """Tau of one model on networks it has not seen, and what it took."""
    order = np.random.default_rng(seed).permutation(len(genes))
    seen, other = order[:size], order[size : size + UNSEEN]
    began = time.perf_counter()
    found = model(genes[seen], errors[seen], genes[other])
    return {"tau": kendall(found, errors[other]), "seconds": round(time.perf_counter() - began, 3)}


def out_of_bag(space: Any, genes: np.ndarray, errors: np.ndarray, size: int, seed: int) -> dict[str, float]:
    """What our ensemble says about itself, beside what is true."""
    from nas.surrogate import fit

    order = np.random.default_rng(seed).permutation(len(genes))
    seen, other = order[:size], order[size : size + UNSEEN]
    ensemble = fit(space, genes[seen], errors[seen])
    found = ensemble.predict(genes[other])
    off = np.abs(found.error - errors[other])
    return {
        "tau": ensemble.quality.kendall_tau,
        "rmse": ensemble.quality.rmse,
        "true_tau": kendall(found.error, errors[other]),
        "true_rmse": float(np.sqrt(np.mean(np.square(off)))),
        "within": float((off <= found.deviation).mean()),
    }


def judge_proxies(store: Store) -> str:
    """The page on proxies: scores on images of clothes against accuracies on CIFAR-10."""
    import jax

    from nas.evaluators import proxy
    from search_spaces.spaces import macro

    genes, errors = published(macro.space())
    rows = np.sort(np.random.default_rng(0).permutation(len(genes))[:NETWORKS])
    genes, errors = genes[rows], errors[rows]
    space = macro.space(input_hw=28, input_channels=1)
    scores: dict[str, np.ndarray] = {}
    seconds: dict[str, float] = {}
    for name in PROXIES:
        judge = proxy.evaluator(space, proxy=name, batch=BATCH)
        state = judge.init(jax.random.key(0))

        def score(row: int, judge: Any = judge, state: Any = state) -> dict[str, float]:
            began = time.perf_counter()
            error = judge.evaluate(None, state, genes[row : row + 1], [row]).error
            return {"error": float(error[0]), "seconds": round(time.perf_counter() - began, 3)}

        found = [store.get(f"{name}/{row}", lambda row=row: score(row)) for row in range(NETWORKS)]
        scores[name] = np.asarray([each["error"] for each in found])
        seconds[name] = float(np.median([each["seconds"] for each in found]))
    lines = [
        "| proxy | Kendall tau | 95 % interval | beyond params | beyond macs | s / network |",
        "|---|" + "---|" * 5,
    ]
    draws = [np.random.default_rng(b).integers(0, NETWORKS, NETWORKS) for b in range(1000)]
    each = {name: np.asarray([kendall(found[draw], errors[draw]) for draw in draws]) for name, found in scores.items()}
    for name, found in sorted(scores.items(), key=lambda item: -kendall(item[1], errors)):
        cells = [f"{kendall(found, errors):.3f}", between(each[name], "")]
        cells += ["" if name == base else between(each[name] - each[base], "+") for base in ("params", "macs")]
        lines.append(f"| `{name}` | " + " | ".join(cells) + f" | {seconds[name]:.2f} |")
    return PROXY.format(table="\n".join(lines), networks=NETWORKS, batch=BATCH)


def between(values: np.ndarray, sign: str) -> str:
    """The middle 95 % of bootstrapped values."""
    low, high = np.quantile(values, (0.025, 0.975))
    return f"{low:{sign}.2f} to {high:{sign}.2f}"


SURROGATE = """\
# Surrogates

    python scripts/judge_evaluators.py surrogate

Kendall's tau between predicted and published errors of {unseen:,} networks that the model has not seen; mean and
deviation over {seeds} draws of the networks it was fitted to. All models get the same features (one-hot options and
their places on a scale) and the logarithm of the error. Times are those of one core beside other work.

{tables}

Evaluator `surrogate` uses the first: with few networks the regression carries it, with many the trees, and unlike a
Gaussian process its predictions for a network are the same bits in any batch.
"""
PROXY = """\
# Zero-cost proxies

    python scripts/judge_evaluators.py proxies

Kendall's tau between scores and the published CIFAR-10 accuracies of {networks} networks of NAS-Bench-Macro, drawn from
its 3,969. The images are not those of the benchmark: {batch} images of clothes (28x28, grey), one draw of weights, and
the space at that size. So this says how the proxies rank architectures, not how well they could do with the images at
hand. Intervals by bootstrap over networks, also of the paired differences to the counts that a proxy has to beat: one
that holds 0 is no gain. Seconds are those of one core beside other work.

{table}

GraSP ranks them backwards here. Where weights are normalised its terms are the squared lengths of their gradients; in
the networks that were looked at layer by layer, the classifier, which is not, outweighed these with the other sign.
"""


def main() -> None:
    """Make what is missing, write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=("surrogate", "proxies"))
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent.parent / "docs" / "results")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    store = Store(arguments.out / f"{arguments.what}.json")
    pages: dict[str, Callable[[Store], str]] = {"surrogate": judge_surrogates, "proxies": judge_proxies}
    text = pages[arguments.what](store)
    (arguments.out / f"{arguments.what}.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()

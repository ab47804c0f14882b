"""What each quantizer costs a network that is trained with it, from few bits to 8, on Fashion-MNIST.

    python scripts/judge_quantizers.py [--seeds N] [--cases "symmetric affine w8a4;..."] [--epochs N] [--out FOLDER]

A network of three inverted residual blocks (the space of `judge_joint.py`, widest, kernels of 3, expansions of 4) is
trained from scratch with rounding, first and last layer at 8 bits. `--cases` names quantizers of weights and of
activations and the bits. Printed are errors on all test images in percent, means with half their 95 % intervals over
seeds, and how far they are above those of the same network in float32, seed by seed. Results go to
`FOLDER/quantizers.json` (docs/results) after every training, so that a run that was stopped goes on. A quarter of a
minute for a training, on one core.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import jax
import numpy as np
from judge_joint import DATA, Settings, spaces, trained
from kept_results import rows_of, run_main
from search_summary import cell

from experiments.progress_view import clock
from hw_models.errors import InputError, whole
from nas import disk
from nas.data import Splits, split
from nas.data_source import load
from search_spaces.precision import Scheme, with_bits
from search_spaces.space import SearchSpace

RESULTS = Path(__file__).resolve().parent.parent / "docs" / "results"
FLOAT = "float32"
CASES = (
    "symmetric affine w8a8",
    "symmetric gaussian w8a8",
    "symmetric affine w8a4",
    "symmetric gaussian w8a4",
    "symmetric lsq w8a4",
    "symmetric fixed_clip w8a4",
    "symmetric affine w4a8",
    "symmetric gaussian w4a4",
    "symmetric affine w2a8",
    "gaussian affine w2a8",
    "dorefa affine w2a8",
    "lsq affine w2a8",
)


def network(case: str) -> tuple[SearchSpace, np.ndarray]:
    """The space of a case and the genes of its network.

    Raises:
        InputError: a case of other than two quantizers and bits, of those that there are not, of bits left open.

    Example:
        >>> space, genes = network("symmetric gaussian w8a4")
        >>> space.scheme.activations, space.freeze(genes).params
        ('gaussian', 30586)
    """
    plain, _ = spaces()
    wide = [name.rpartition("/")[2] in ("width", "expand") for name in plain.names]
    genes = np.where(wide, np.asarray(plain.cardinality) - 1, 0).astype(np.int32)
    if case == FLOAT:
        return plain, genes
    parts = case.split()
    if len(parts) != 3:
        raise InputError(f"case {case!r} is not understood: give two quantizers and bits, such as {CASES[0]!r}")
    space = with_bits(plain, parts[2], scheme=Scheme(parts[0], parts[1]))
    if space.num_decisions != len(genes):
        raise InputError(f"case {case!r} leaves bits open: give one number for weights and one for activations")
    return space, genes


def errors(cases: list[str], seeds: int, settings: Settings, file: Path) -> dict[str, dict[str, float]]:
    """Errors in percent by case and seed; what the file has is not done again."""
    rows: dict[str, dict[str, float]] = rows_of(file, settings._asdict())
    began, by_seed = time.monotonic(), dict[int, Splits]()
    for seed in range(seeds):
        for case in cases:
            if str(seed) in rows.setdefault(case, {}):
                continue
            space, genes = network(case)
            if seed not in by_seed:
                by_seed[seed] = split(load(DATA), settings.validation, seed, settings.train)
            rows[case][str(seed)] = trained(space, genes, by_seed[seed], settings, jax.random.key(seed))
            file.parent.mkdir(parents=True, exist_ok=True)
            disk.replace(file, (json.dumps({"settings": settings._asdict(), "rows": rows}, indent=1) + "\n").encode())
            print(f"[{clock(time.monotonic() - began)}] seed {seed}, {case}: {rows[case][str(seed)]:.2f} %", flush=True)
    return {case: {seed: rows[case][seed] for seed in map(str, range(seeds))} for case in cases}


def table(rows: dict[str, dict[str, float]]) -> str:
    """Errors, and how far they are above float32, in Markdown.

    Example:
        >>> print(table({"float32": {"0": 10.0}, "symmetric affine w8a4": {"0": 12.5}}).splitlines()[-1])
        | symmetric | affine | w8a4 | 12.50 | 2.50 |
    """
    lines = ["| weights | activations | bits | error, % | above float32, points |", "|---|---|---|---|---|"]
    for case, row in rows.items():
        apart = [error - rows[FLOAT][seed] for seed, error in row.items()]
        names = [FLOAT, "", "32"] if case == FLOAT else case.split()
        lines.append(f"| {' | '.join(names)} | {cell(list(row.values()), 2)} | {cell(apart, 2) if names[1] else ''} |")
    return "\n".join(lines)


def main() -> None:
    """Train what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--cases", default=";".join(CASES), help="(%(default)s)")
    parser.add_argument("--epochs", type=int, default=Settings().final_epochs)
    parser.add_argument("--out", type=Path, default=RESULTS)
    asked = parser.parse_args()
    whole("seeds", asked.seeds, 1, 100)
    whole("epochs", asked.epochs, 1, 1000)
    cases = [FLOAT, *(case.strip() for case in asked.cases.split(";"))]
    for case in cases:
        network(case)
    settings = Settings(final_epochs=asked.epochs)
    print(table(errors(cases, asked.seeds, settings, asked.out / "quantizers.json")))


if __name__ == "__main__":
    run_main(main)

"""NAS-Bench-Macro by its published accuracies, for a Raspberry Pi 4: a search without training.

    flynas search macro_table --out runs/macro_table

CIFAR-10 errors of all 3,969 networks come from a table (mean of three runs; `--set run=0` for one), so 640 candidates
take a few seconds. Made to compare strategies.
"""

from experiments.config import Experiment, Use

config = Experiment(
    space=Use("macro"),
    device="raspberry_pi_4",
    strategy=Use("nsga2", population=32),
    evaluator=Use("tabular"),
    minimize=("error", "latency_s"),
    steps=20,
    seed=0,
)

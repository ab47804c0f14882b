"""Inverted residuals and FlyNet blocks on clothes, for a Raspberry Pi 4: the search to start with.

    flynas search quickstart --out runs/quickstart

The data set comes with the package. One supernet is trained, then NSGA-II evaluates at most 240 networks with its
shared weights, for low error, latency and size. About three minutes on two cores; `flynas export runs/quickstart
--pick best --out model` then trains the network in another two, to a test accuracy of about 0.89. What was measured,
and with the full data set: docs/results/quickstart.md.
"""

from experiments.config import Experiment, Use

config = Experiment(
    space=Use("quickstart"),
    device="raspberry_pi_4",
    strategy=Use("nsga2", population=24),
    evaluator=Use("supernet", data="fashion_mnist_10k", epochs=14),
    minimize=("error", "latency_s", "weight_bytes"),
    limits={"latency_s": 3e-3, "weight_bytes": 6e5},
    steps=10,
    seed=0,
    threads_per_evaluation="all",
    final={"epochs": 30, "batch": 64},
)

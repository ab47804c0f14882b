"""The 6,561 networks of NAS-Bench-Macro on clothes, for a Raspberry Pi 4.

    flynas search macro --out runs/macro

Small enough to be enumerated, and published with the accuracy of every network on CIFAR-10.
"""

from experiments.config import Experiment, Use

config = Experiment(
    space=Use("macro"),
    device="raspberry_pi_4",
    strategy=Use("nsga2", population=24),
    evaluator=Use("supernet", data="fashion_mnist_10k", train=5000, epochs=6),
    minimize=("error", "latency_s"),
    limits={"weight_bytes": 6.5e6},
    steps=10,
    seed=0,
    threads_per_evaluation="all",
    final={"epochs": 30, "batch": 64},
)

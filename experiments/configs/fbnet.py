"""FBNet: one of nine blocks at each of 22 layers, on clothes, for a Raspberry Pi 4.

    flynas search fbnet --out runs/fbnet

The published widths, with the strides of the version for CIFAR.
"""

from experiments.config import Experiment, Use

config = Experiment(
    space=Use("fbnet", features=512),
    device="raspberry_pi_4",
    strategy=Use("nsga2", population=24),
    evaluator=Use("supernet", data="fashion_mnist_10k", train=5000, epochs=6),
    minimize=("error", "latency_s"),
    limits={"latency_s": 3e-2},
    steps=10,
    seed=0,
    threads_per_evaluation="all",
    final={"epochs": 30, "batch": 64},
)

"""MobileNetV2 with its kernels, expansions, depths and widths, on clothes, for a Raspberry Pi 4.

    flynas search mobilenet_v2 --out runs/mobilenet_v2

At half the published width, because the images are small.
"""

from experiments.config import Experiment, Use

config = Experiment(
    space=Use("mobilenet_v2", width=0.5),
    device="raspberry_pi_4",
    strategy=Use("nsga2", population=24),
    evaluator=Use("supernet", data="fashion_mnist_10k", train=5000, epochs=6),
    minimize=("error", "latency_s"),
    limits={"latency_s": 1.2e-2},
    steps=10,
    seed=0,
    threads_per_evaluation="all",
    final={"epochs": 30, "batch": 64},
)

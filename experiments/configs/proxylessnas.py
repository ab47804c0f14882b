"""ProxylessNAS: kernel, expansion or nothing at each of 21 layers, on clothes, for a Raspberry Pi 4.

    flynas search proxylessnas --out runs/proxylessnas

At half the published width, because the images are small.
"""

from experiments.config import Experiment, Use

config = Experiment(
    space=Use("proxylessnas", width=0.5),
    device="raspberry_pi_4",
    strategy=Use("nsga2", population=24),
    evaluator=Use("supernet", data="fashion_mnist_10k", train=5000, epochs=6),
    minimize=("error", "latency_s"),
    limits={"latency_s": 2.5e-2},
    steps=10,
    seed=0,
    threads_per_evaluation="all",
    final={"epochs": 30, "batch": 64},
)

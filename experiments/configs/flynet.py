"""FlyNet blocks: heads, attention, reductions, residuals and widths, on clothes, for a Raspberry Pi 4.

    flynas search flynet --out runs/flynet

Parameters are what FlyNet saves, so the weights are an objective beside the error and the latency.
"""

from experiments.config import Experiment, Use

config = Experiment(
    space=Use("flynet", width=0.4),
    device="raspberry_pi_4",
    strategy=Use("nsga2", population=24),
    evaluator=Use("supernet", data="fashion_mnist_10k", train=5000, epochs=6),
    minimize=("error", "latency_s", "weight_bytes"),
    limits={"weight_bytes": 1e6},
    steps=10,
    seed=0,
    threads_per_evaluation="all",
    final={"epochs": 30, "batch": 64},
)

"""Residual, sigmoidal, dense and inception blocks whose widths grow exponentially, on clothes, for a GPU.

    flynas search resnet --out runs/resnet

At a quarter of the width, because the images are small and the supernet computes the largest widths for every network.
Three decisions set all widths: `a * exp(n * b) + c` for block n. Other rules: `--set space.widths=free` (every
stage its own) or `constant_ratio`; `--set space.residual_additions=false` leaves out blocks that add.
"""

from experiments.config import Experiment, Use

config = Experiment(
    space=Use("resnet", widths="exponential", width=0.25),
    device="a100",
    strategy=Use("nsga2", population=24),
    evaluator=Use("supernet", data="fashion_mnist_10k", train=2000, epochs=4),
    minimize=("error", "latency_s"),
    limits={"weight_bytes": 2e5},
    steps=10,
    seed=0,
    threads_per_evaluation="all",
    final={"epochs": 30, "batch": 64},
)

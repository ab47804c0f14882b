"""Networks for a microcontroller that leaves them 60 KB of SRAM and 60 KB of flash, on clothes.

    flynas search tinyml --out runs/tinyml

Weights and activations have 8 bits. The SRAM must hold the input and output of the largest layer, and what waits beside
them: half of the space needs more than 56 KB. A quarter of it has weights for more than 60 KB of flash.
"""

from experiments.config import Experiment, Use

config = Experiment(
    space=Use("tinyml"),
    device="raspberry_pi_4",
    strategy=Use("nsga2", population=24),
    evaluator=Use("supernet", data="fashion_mnist_10k", train=5000, epochs=6),
    minimize=("error", "macs", "peak_memory_bytes"),
    limits={"peak_memory_bytes": 6e4, "weight_bytes": 6e4},
    steps=10,
    precision="int8",
    seed=0,
    threads_per_evaluation="all",
    final={"epochs": 30, "batch": 64},
)

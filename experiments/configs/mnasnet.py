"""The factorised space of MnasNet: every stage decides once for its layers; on clothes, for an FPGA.

    flynas search mnasnet --out runs/mnasnet

With ReLU, which the accelerator computes for nothing.
"""

from experiments.config import Experiment, Use

config = Experiment(
    space=Use("mnasnet", activation="relu"),
    device="zcu102",
    strategy=Use("nsga2", population=24),
    evaluator=Use("supernet", data="fashion_mnist_10k", train=5000, epochs=6),
    minimize=("error", "latency_s"),
    limits={"latency_s": 2e-3},
    steps=10,
    seed=0,
    threads_per_evaluation="all",
    final={"epochs": 30, "batch": 64},
)

"""The once-for-all space of MobileNetV3 on clothes, with two resolutions, for a Raspberry Pi 4.

    flynas search mobilenet_v3 --out runs/mobilenet_v3

At half the published width and with the two largest of its four resolutions: each has its own part of the program.
"""

from experiments.config import Experiment, Use

config = Experiment(
    space=Use("mobilenet_v3", width=0.5, resolutions=2),
    device="raspberry_pi_4",
    strategy=Use("nsga2", population=24),
    evaluator=Use("supernet", data="fashion_mnist_10k", train=5000, epochs=6),
    minimize=("error", "latency_s"),
    limits={"latency_s": 4.5e-2},
    steps=10,
    seed=0,
    threads_per_evaluation="all",
    final={"epochs": 30, "batch": 64},
)

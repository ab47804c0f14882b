"""The space of MnasNet on ImageNet, by a surrogate of the published accuracies of Accel-NASBench; for an FPGA.

    flynas search mnasnet_surrogate --out runs/mnasnet_surrogate

An ensemble is fitted to all 2,567 networks whose accuracy is known and predicts the others of 10^11. Errors are those
of Accel-NASBench's short training. Half a minute on one core, without a single image.
"""

from experiments.config import Experiment, Use

config = Experiment(
    space=Use("mnasnet", activation="relu"),
    device="zcu102",
    strategy=Use("nsga2", population=48),
    evaluator=Use("surrogate", base="tabular", samples=2567, rounds=1),
    minimize=("error", "latency_s"),
    steps=20,
    seed=0,
)

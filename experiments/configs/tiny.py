"""The smallest search there is: 144 encodings on 8x8 digits, to see every part work.

    flynas search tiny --out runs/tiny

The data set comes with scikit-learn. Half a minute on one core, most of it compilation.
"""

from experiments.config import Experiment, Use

config = Experiment(
    space=Use("tiny"),
    device="raspberry_pi_4",
    strategy=Use("nsga2", population=8),
    evaluator=Use("supernet", data="digits", validation=200, epochs=20, batch=64, calibration=100, flip=False),
    minimize=("error", "latency_s"),
    limits={"weight_bytes": 3e4},
    steps=5,
    seed=0,
    final={"epochs": 10, "batch": 64, "shift": 0, "flip": False},
)

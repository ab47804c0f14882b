"""Optuna: its NSGA-II sampler, which also takes one objective, or TPE. See `conversation.py`.

Further settings of a question: {"sampler": "nsga2" or "tpe", "population"}.
"""

import optuna
from conversation import serve

optuna.logging.set_verbosity(optuna.logging.ERROR)


def search(question, seed, judge):
    """One trial after the other, as both samplers are meant to be used."""
    if question["sampler"] == "nsga2":
        sampler = optuna.samplers.NSGAIISampler(population_size=question["population"], seed=seed)
    else:
        sampler = optuna.samplers.TPESampler(seed=seed)
    study = optuna.create_study(directions=["minimize"] * question["objectives"], sampler=sampler)
    options = list(enumerate(question["cardinality"]))
    while True:
        trial = study.ask()
        points, violation = judge([[trial.suggest_int(f"gene{d}", 0, count - 1) for d, count in options]])
        if question["limited"]:
            trial.set_constraint("limits", violation[0])
        study.tell(trial, points[0].tolist())


serve(search)

"""Syne Tune: multi-objective regularized evolution, or regularized evolution for one objective. See `conversation.py`.

Further settings of a question: {"population"}. It has no constraints: networks that exceed a limit are told as worse
than all others, the more so the more they exceed it.
"""

import random

import numpy as np
from conversation import serve
from syne_tune.config_space import randint
from syne_tune.optimizer.schedulers.multiobjective.multi_objective_regularized_evolution import (
    MultiObjectiveRegularizedEvolution,
)
from syne_tune.optimizer.schedulers.searchers.regularized_evolution import RegularizedEvolution


def search(question, seed, judge):
    """Suggest, judge, report, until the judge has had enough."""
    random.seed(seed)
    np.random.seed(seed)  # first networks are drawn from the global generator, whatever the searcher's seed
    names = [f"gene{d}" for d in range(len(question["cardinality"]))]
    space = {name: randint(0, count - 1) for name, count in zip(names, question["cardinality"], strict=True)}
    several = question["objectives"] > 1
    searcher = (MultiObjectiveRegularizedEvolution if several else RegularizedEvolution)(
        space, population_size=question["population"], random_seed=seed
    )
    trial = 0
    while True:
        config = searcher.suggest()
        points = judge([[config[name] for name in names]])[0][0].tolist()
        searcher.on_trial_complete(trial, config, points if several else points[0])
        trial += 1


serve(search)

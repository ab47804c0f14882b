"""pymoo: NSGA-II or NSGA-III, or its genetic algorithm where there is one objective. See `conversation.py`.

Further settings of a question: {"population", "limited": whether networks can exceed a limit, "algorithm": "nsga3" or
absent}. Operators are those of its guide for whole numbers, with uniform crossover; networks that repeat the population
are replaced by others.
"""

import functools
import math

import numpy as np
from conversation import serve
from pymoo.algorithms.moo.nsga2 import NSGA2
from pymoo.algorithms.moo.nsga3 import NSGA3
from pymoo.algorithms.soo.nonconvex.ga import GA
from pymoo.core.problem import Problem
from pymoo.operators.crossover.ux import UX
from pymoo.operators.mutation.pm import PM
from pymoo.operators.repair.rounding import RoundingRepair
from pymoo.operators.sampling.rnd import IntegerRandomSampling
from pymoo.optimize import minimize
from pymoo.util.ref_dirs import get_reference_directions


class Asked(Problem):
    """Networks judged by the other side."""

    def __init__(self, question, judge):
        limits = {"n_ieq_constr": 1} if question["limited"] else {}
        last = np.asarray(question["cardinality"]) - 1
        super().__init__(n_var=len(last), n_obj=question["objectives"], xl=0 * last, xu=last, vtype=int, **limits)
        self.judge, self.limited = judge, question["limited"]

    def _evaluate(self, genes, out, *args, **kwargs):
        out["F"], violation = self.judge(genes)
        if self.limited:
            out["G"] = violation[:, None]


def directions(objectives, most):
    """The largest grid of Das and Dennis that has at most `most` directions: pymoo wants no more than networks."""
    divisions = 1
    while objectives > 1 and math.comb(divisions + objectives, objectives - 1) <= most:
        divisions += 1
    return get_reference_directions("das-dennis", objectives, n_partitions=divisions)


def algorithm_of(question):
    """What makes the algorithm from the operators."""
    if question.get("algorithm") == "nsga3":
        return functools.partial(NSGA3, directions(question["objectives"], question["population"]))
    return NSGA2 if question["objectives"] > 1 else GA


def search(question, seed, judge):
    """Generations until the judge has had enough."""
    algorithm = algorithm_of(question)(
        pop_size=question["population"],
        sampling=IntegerRandomSampling(),
        crossover=UX(prob=1.0),
        mutation=PM(prob=1.0, eta=3.0, vtype=float, repair=RoundingRepair()),
        eliminate_duplicates=True,
    )
    minimize(Asked(question, judge), algorithm, ("n_gen", 10**9), seed=seed, copy_algorithm=False)


serve(search)

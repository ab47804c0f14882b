"""pymoo: NSGA-II, or its genetic algorithm where there is one objective. See `conversation.py`.

Further settings of a question: {"population", "limited": whether networks can exceed a limit}. Operators are those of
its guide for whole numbers, with uniform crossover; networks that repeat the population are replaced by others.
"""

import numpy as np
from conversation import serve
from pymoo.algorithms.moo.nsga2 import NSGA2
from pymoo.algorithms.soo.nonconvex.ga import GA
from pymoo.core.problem import Problem
from pymoo.operators.crossover.ux import UX
from pymoo.operators.mutation.pm import PM
from pymoo.operators.repair.rounding import RoundingRepair
from pymoo.operators.sampling.rnd import IntegerRandomSampling
from pymoo.optimize import minimize


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


def search(question, seed, judge):
    """Generations until the judge has had enough."""
    algorithm = (NSGA2 if question["objectives"] > 1 else GA)(
        pop_size=question["population"],
        sampling=IntegerRandomSampling(),
        crossover=UX(prob=1.0),
        mutation=PM(prob=1.0, eta=3.0, vtype=float, repair=RoundingRepair()),
        eliminate_duplicates=True,
    )
    minimize(Asked(question, judge), algorithm, ("n_gen", 10**9), seed=seed, copy_algorithm=False)


serve(search)

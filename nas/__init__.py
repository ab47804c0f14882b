"""How to search: objectives, strategies, evaluators, the loop that joins them, and the export of what it finds.

    run = search(space, nsga2.strategy(space), evaluator, Objective(space, device), steps=100, key=key, out="runs/demo")
    export(run.pick("knee"), "model/")

One file each: strategies in `nas.strategies`, evaluators in `nas.evaluators`, data sets in `nas.datasets`.
"""

from nas.export import export as export
from nas.loop import search as search
from nas.objectives import Objective as Objective
from nas.store import load as load

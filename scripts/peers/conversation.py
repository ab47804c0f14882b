"""How the scripts of search packages get their searches and have networks judged, in environments of their own.

A question is one line of JSON on standard input:

    {"problem": "genes45" or null, "cardinality": [D], "objectives": M, "evaluations": N, "searches": [{"seed"}, ...]}

With `genes45` the script evaluates by itself. With no problem it asks: it prints `{"search": place, "ask": [[D], ...]}`
and reads `{"objectives": [[M], ...], "violation": [...]}` or `{"enough": true}`. A violation above 0 says that limits
are exceeded; such networks have no objectives of their own, and get those of `PENALTY` plus the violation. The last
line printed is `{"searches": [{"seed", "cpu_s", "points"}, ...]}`, points only where the script evaluated.
"""

import contextlib
import json
import os
import sys
import time

import numpy as np

PENALTY = 10.0  # above every objective that is told: they come divided by the largest there are
SILENT = os.dup(1)  # what a package prints goes to standard error, and never between the lines of a conversation
os.dup2(2, 1)
_out = os.fdopen(SILENT, "w")


class Enough(Exception):
    """The search has evaluated what it may."""


class Judge:
    """Objectives `[P, M]` and violations `[P]` of networks `[P, D]`, until `evaluations` are spent."""

    def __init__(self, question, place):
        self.question, self.place, self.left, self.points = question, place, question["evaluations"], []

    def __call__(self, genes):
        """Judge rows of whole numbers.

        Raises:
            Enough: nothing is left, or the other side has seen enough.
        """
        if self.left <= 0:
            raise Enough
        genes = np.asarray(genes, int)
        self.left -= len(genes)
        if self.question["problem"] == "genes45":
            import search_problems

            points = search_problems.evaluate(genes)
            self.points.append(points)
            return points, np.zeros(len(genes))
        say({"search": self.place, "ask": genes.tolist()})
        heard = json.loads(sys.stdin.readline())
        if heard.get("enough"):
            raise Enough
        violation = np.asarray(heard["violation"], float)
        points = np.asarray([[PENALTY if v is None else v for v in row] for row in heard["objectives"]], float)
        return points + violation[:, None], violation


def say(value):
    """One line to the other side."""
    _out.write(json.dumps(value) + "\n")
    _out.flush()


def serve(search):
    """Read the question, let `search(question, seed, judge)` run once for every seed, print the answer."""
    question, found = json.loads(sys.stdin.readline()), []
    for place, one in enumerate(question["searches"]):
        judge = Judge(question, place)
        began = time.process_time()
        with contextlib.suppress(Enough):
            search(question, one["seed"], judge)
        cpu_s = time.process_time() - began
        points = np.concatenate(judge.points)[: question["evaluations"]].round(6).tolist() if judge.points else []
        found.append({"seed": one["seed"], "cpu_s": cpu_s, "points": points})
    say({"searches": found})

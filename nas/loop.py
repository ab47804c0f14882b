"""`search`: the one loop. Train what is shared, then ask, price, screen, evaluate, tell, and keep everything.

Random keys are `fold_in(fold_in(root, stage), t)`, with `t` the training round or the step, and an evaluator folds in
the index of each candidate. So a result depends on neither the number of workers nor the order of completion, and a
search that was killed continues to the very result it would have had.

Shape letters: `P` candidates of a step, `D` decisions, `C` options.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hw_models.errors import InputError
from hw_models.programs import for_few_runs, for_hundreds_of_runs
from nas.batch import Batch, Judged, judged_as
from nas.objectives import Objective, Priced
from nas.plain import tree_from
from nas.preparation import check_parts, check_warm_start, identity
from nas.progress import Executor, InProcess, Outcome, Progress, Silent
from nas.run import Record, Run, front_of
from nas.run_files import FIX
from nas.screen import check_targets, evenly_compressed, first_networks
from nas.store import Folder, open_run
from nas.types import Evaluator, Feedback, Key, Proposal, State, Strategy, bound
from nas.warm_start import promising

TRAIN, ASK, EVALUATE, INIT, FOLLOW = range(5)  # stages of the key; changing the numbers changes every result


def stage_key(root: Key, stage: int, t: int) -> Key:
    """The key of a stage at round or step `t`.

    Example:
        >>> bool(stage_key(jax.random.key(0), ASK, 1) == stage_key(jax.random.key(0), ASK, 1))
        True
    """
    return jax.random.fold_in(jax.random.fold_in(root, stage), t)


def search(
    space: Any,
    strategy: Strategy,
    evaluator: Evaluator,
    objective: Objective,
    *,
    steps: int,
    key: Key,
    out: str | Path | None = None,
    config: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
    executor: Executor | None = None,
    snapshot_s: float = 30.0,
    warm_start: Evaluator | None = None,
) -> Run:
    """Search `space` for `steps` steps and return the run.

    The same call on the folder of an interrupted run continues it; on a finished one it returns at once; with more
    steps it goes on. A candidate that exceeds a limit on costs is recorded and not evaluated; one that the run knows
    already is not evaluated again; one whose error is not finite has failed.

    Relaxed candidates (gates) are evaluated whatever they cost: limits are penalties in the gradient that the strategy
    is told. They get records of status `relaxed`, with expected costs. The networks that stand for them follow as
    ordinary candidates with an index of P more, where the strategy wants them judged and at the last step.

    Args:
        space: the search space.
        strategy: proposes candidates, such as `nas.strategies.nsga2.strategy(space)`.
        evaluator: judges them.
        objective: prices and limits them.
        steps: how often the strategy is asked, at least 1.
        key: typed random key, `jax.random.key(seed)`.
        out: the run folder, or None to keep the run in memory.
        config: settings to keep with the run, plain values.
        progress: is told what happens.
        executor: carries evaluations out; in this process unless given.
        snapshot_s: least seconds between two snapshots; what lies between is repeated after a kill, evaluations apart.
        warm_start: an evaluator that trains nothing, such as `nas.evaluators.proxy`, by which the first networks are
            chosen among many (`nas.warm_start`); for strategies that take first networks.

    Raises:
        InputError: bad arguments, a limit that nothing meets, a folder that cannot be used.

    Example:
        >>> from nas.strategies import random_search
        >>> from nas.toy import ToySpace, toy_evaluator, toy_objective
        >>> space = ToySpace()
        >>> run = search(space, random_search.strategy(space, population=8), toy_evaluator(space),
        ...              toy_objective(space), steps=2, key=jax.random.key(0))
        >>> len(run.records)
        16
    """
    check_parts(space, strategy, evaluator, steps, key, snapshot_s)
    strategy = bound(strategy, objective)
    check_warm_start(strategy, warm_start)
    watcher: Progress = Silent() if progress is None else progress
    meta = identity(space, strategy, evaluator, objective, key, config, warm_start)
    with open_run(out, meta, steps) as folder:
        try:
            for text in folder.messages:
                watcher.message(text)
            if folder.snapshot is not None and folder.snapshot.step >= steps:
                folder.messages.append(f"{folder.path} is finished: its {folder.snapshot.step} steps were done before")
                watcher.message(folder.messages[-1])
                return folder.run()
            search = _Search(space, strategy, evaluator, objective, key, folder, watcher, executor or InProcess())
            search.go(steps, snapshot_s, warm_start)
            return folder.run()
        finally:
            watcher.close()


class _Now(NamedTuple):
    """How far the search is: training rounds and steps done, the states of evaluator and strategy after them.

    One value, so that an interrupt never parts what belongs together.
    """

    round: int
    judge: State
    step: int
    plan: State


class _Search:
    """One call of `search`: the states and what is known of every network. Not for use from outside."""

    def __init__(
        self,
        space: Any,
        strategy: Strategy,
        evaluator: Evaluator,
        objective: Objective,
        root: Key,
        folder: Folder,
        progress: Progress,
        executor: Executor,
    ):
        self.space, self.strategy, self.evaluator, self.objective = space, strategy, evaluator, objective
        self.root, self.folder, self.progress, self.executor = root, folder, progress, executor
        self.ask, self.tell = for_hundreds_of_runs(strategy.ask), for_hundreds_of_runs(strategy.tell)
        self.known: dict[Judged, float] = {}  # error of evaluated networks, from finished steps only
        self.front: list[Record] = []
        self.shortened: dict[float, Evaluator] = {}
        judge, plan = evaluator.init(stage_key(root, INIT, 0)), for_few_runs(strategy.init)(stage_key(root, INIT, 1))
        self.now = _Now(0, judge, 0, plan)
        self.saved = time.monotonic()

    def go(self, steps: int, snapshot_s: float, warm_start: Evaluator | None = None) -> None:
        stored = self.folder.snapshot
        if stored is not None:
            judge, plan = tree_from(self.now.judge, stored.evaluator), tree_from(self.now.plan, stored.strategy)
            self.now = _Now(stored.round, judge, stored.step, plan)
        else:
            # before the training: a limit that nothing meets should not cost an hour
            count = int(jax.eval_shape(self.strategy.ask, self.root, self.now.plan)[1].genes.shape[0])
            check_targets(self.space, self.objective, stage_key(self.root, INIT, 3))
            key = stage_key(self.root, INIT, 2)
            if warm_start is None:
                genes = first_networks(self.space, self.objective, count, key)
            else:
                genes = promising(self.space, self.objective, warm_start, count, key, self.progress.message)
            if self.strategy.start is not None:
                if warm_start is None and not self.strategy.fair_start:
                    genes = evenly_compressed(self.space, self.objective, genes, stage_key(self.root, INIT, 4))
                plan = for_few_runs(self.strategy.start)(self.now.plan, jnp.asarray(genes))
                self.now = self.now._replace(plan=plan)
        try:
            self._train(snapshot_s)
            # where the weights follow the gates, every step has a version of its own
            version = None if self._follows else self.evaluator.version(self.now.judge)
            self._remember(version)
            self.progress.start_search(steps)
            while self.now.step < steps:
                self._one_step(version, last=self.now.step == steps - 1)
                if time.monotonic() - self.saved >= snapshot_s:
                    self._save()
        except BaseException as error:
            # an interruption, or a mistake in an evaluator: finished rounds and steps are kept, the one that was
            # broken off is done again
            try:
                self._save()
            except Exception as failure:
                error.add_note(str(failure))
            raise
        self._save()

    def _save(self) -> None:
        now = self.now
        if now.round or now.step:  # before that there is nothing that the next start does not find again
            self.folder.save(now.round, now.step, now.judge, now.plan)
        self.saved = time.monotonic()

    def _train(self, snapshot_s: float) -> None:
        rounds = self.evaluator.rounds
        if self.now.round >= rounds:
            return
        self.progress.start_training(rounds)
        while self.now.round < rounds:
            done = self.now.round
            try:
                state, metrics = self.evaluator.train(stage_key(self.root, TRAIN, done), self.now.judge)
            except InputError as error:
                if done and self.folder.path is not None:  # before the first round nothing is kept
                    error.add_note(
                        f"{self.folder.path} holds this search up to round {done}, and other settings are another "
                        f"search: {FIX}"
                    )
                raise
            self.now = self.now._replace(round=done + 1, judge=state)
            self.progress.training(done, metrics)
            if time.monotonic() - self.saved >= snapshot_s or self.now.round == rounds:
                self._save()

    @property
    def _follows(self) -> bool:
        return self.strategy.needs_gradients and self.evaluator.follow is not None

    def _remember(self, version: str | None) -> None:
        for record in self.folder.run().records:
            if version is not None and record["evaluator_version"] != version:
                raise InputError(
                    f"{self.folder.path}: records were made by evaluator version {record['evaluator_version']}, "
                    f"this is {version}: give another folder (--out), or remove this one"
                )
            if record["step"] < self.now.step:
                self._learn(record)
        done = [record for record in self.folder.records.values() if record["step"] < self.now.step]
        self.front = front_of(done, self.objective.minimize)

    def _learn(self, record: Record) -> None:
        error = record["objectives"]["error"]
        if not self._follows and record["status"] in ("ok", "infeasible", "partial") and error is not None:
            judged = judged_as(tuple(record["genes"]), record.get("training_share", 1.0))
            self.known.setdefault(judged, error)

    def _one_step(self, version: str | None, last: bool) -> None:
        step = self.now.step
        plan, proposal = self.ask(stage_key(self.root, ASK, step), self.now.plan)
        if proposal.gates is None:
            judge, genes = self.now.judge, np.asarray(proposal.genes)
            priced = self.objective.price(proposal.genes)
            share = None if proposal.share is None else np.asarray(proposal.share)
            batch = self._judged(genes, priced, judge, version or self.evaluator.version(judge), share=share)
            feedback = self.objective.feedback(batch.error, priced, batch.evaluated)
        else:
            judge, feedback = self._relaxed(proposal, version, last)
        self.now = self.now._replace(judge=judge, step=step + 1, plan=self.tell(plan, proposal, feedback))
        places = ((step, i) for i in range(2 * len(proposal.genes)))
        records = [self.folder.records[place] for place in places if place in self.folder.records]
        for record in records:
            self._learn(record)
        self.front = front_of(self.front + records, self.objective.minimize)
        self.progress.front(self.front)

    def _judged(
        self,
        genes: np.ndarray,
        priced: Priced,
        judge: State,
        version: str,
        first: int = 0,
        rows: Any = None,
        share: np.ndarray | None = None,
    ) -> Batch:
        """The batch of this step's networks `[P, D]`, evaluated where needed; `rows` as `Batch.sort_out` takes them."""
        batch = Batch(
            self.space,
            self.objective,
            self.folder,
            self.progress,
            self.now.step,
            genes,
            priced,
            version,
            first,
            share=share,
        )
        waiting = batch.sort_out(self.known, rows)
        shares = batch.share[waiting]
        for part in np.unique(shares):
            some = waiting[shares == part]
            for outcome in self._outcomes(judge, genes, some, first, float(part)):
                batch.take(outcome, some)
        batch.finish()
        return batch

    def _relaxed(self, proposal: Proposal, version: str | None, last: bool) -> tuple[State, Feedback]:
        """The evaluator's state after a step of relaxed candidates, and what the strategy is told of them.

        First the gates are evaluated, which the feedback is about; then the networks that stand for them, so that a
        search has a front of real networks at any time, and the gap between the two is on record.
        """
        step, gates, genes = self.now.step, np.asarray(proposal.gates), np.asarray(proposal.genes)
        judge = self.now.judge
        if self._follows:
            assert self.evaluator.follow is not None
            judge, _ = self.evaluator.follow(stage_key(self.root, FOLLOW, step), judge, proposal.gates)
        priced = self.objective.price_gates(proposal.gates)
        of_weights = version or f"followed gates for {step + 1} steps"  # a hash of all weights would cost more
        batch = Batch(
            self.space, self.objective, self.folder, self.progress, step, genes, priced, of_weights, relaxed=True
        )
        grads = np.full(gates.shape, np.nan, np.float32)  # stays so where a row fails: to be ignored
        waiting = batch.sort_out({})
        for outcome in self._outcomes(judge, gates, waiting, 0):
            batch.take(outcome, waiting)
            if outcome.error_grads is not None:
                grads[waiting[outcome.rows]] = outcome.error_grads
            elif np.isfinite(outcome.error).any():
                raise ValueError(f"evaluator {self.evaluator.name} returned no gradients for gates")
        grads[~np.isfinite(batch.error)] = np.nan
        gate_grads = self.objective.gate_grads(np.nan_to_num(batch.error), grads, proposal.gates)
        feedback = self.objective.feedback(batch.error, priced, batch.evaluated, gate_grads=gate_grads)
        rows = np.arange(len(genes)) if last or proposal.judge is None else np.flatnonzero(np.asarray(proposal.judge))
        if len(rows):
            exact = self.objective.price(proposal.genes)
            self._judged(genes, exact, judge, version or self.evaluator.version(judge), len(genes), rows)
        return judge, feedback

    def _outcomes(
        self, judge: State, asked: np.ndarray, waiting: np.ndarray, first: int, share: float = 1.0
    ) -> Iterator[Outcome]:
        """Outcomes of the rows `waiting` of `asked`, genes `[P, D]` or gates `[P, D, C]`; each has an index of its own
        among all candidates of the step."""
        if not len(waiting):
            return iter(())
        key = stage_key(self.root, EVALUATE, self.now.step)
        index = waiting + np.int32(first)
        return self.executor.map_chunks(self._by(share), key, judge, asked[waiting], index)

    def _by(self, share: float) -> Evaluator:
        """The evaluator that gives candidates this share of their training."""
        if share == 1.0:
            return self.evaluator
        if share not in self.shortened:
            assert self.evaluator.shortened is not None
            self.shortened[share] = self.evaluator.shortened(share)
        return self.shortened[share]

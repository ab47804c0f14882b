"""`search`: the one loop. Train what is shared, then ask, price, screen, evaluate, tell, and keep everything.

Random keys are `fold_in(fold_in(root, stage), t)`, with `t` the training round or the step, and an evaluator folds in
the index of each candidate. So a result depends on neither the number of workers nor the order of completion, and a
search that was killed continues to the very result it would have had.

Shape letters: `P` candidates of a step, `D` decisions, `C` options.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hw_models.errors import InputError
from nas.batch import Batch
from nas.objectives import Objective
from nas.plain import tree_from
from nas.progress import Executor, InProcess, Progress, Silent
from nas.run import Record, Run, front_of
from nas.run_files import FIX
from nas.screen import first_networks
from nas.store import Folder, check_steps, open_run
from nas.types import Evaluator, Key, State, Strategy, bound

TRAIN, ASK, EVALUATE, INIT = range(4)  # stages of the key; changing the numbers changes every result


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
) -> Run:
    """Search `space` for `steps` steps and return the run.

    The same call on the folder of an interrupted run continues it; on a finished one it returns at once; with more
    steps it goes on. A candidate that exceeds a limit on costs is recorded and not evaluated; one that the run knows
    already is not evaluated again; one whose error is not finite has failed.

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
    _check(space, strategy, evaluator, steps, key, snapshot_s)
    strategy = bound(strategy, objective)
    watcher: Progress = Silent() if progress is None else progress
    with open_run(out, _meta(space, strategy, evaluator, objective, key, config), steps) as folder:
        try:
            for text in folder.messages:
                watcher.message(text)
            if folder.snapshot is not None and folder.snapshot.step >= steps:
                folder.messages.append(f"{folder.path} is finished: its {folder.snapshot.step} steps were done before")
                watcher.message(folder.messages[-1])
                return folder.run()
            search = _Search(space, strategy, evaluator, objective, key, folder, watcher, executor or InProcess())
            search.go(steps, snapshot_s)
            return folder.run()
        finally:
            watcher.close()


def _check(space: Any, strategy: Strategy, evaluator: Evaluator, steps: Any, key: Any, snapshot_s: float) -> None:
    check_steps(steps)
    typed = isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key) and key.shape == ()
    if not typed:
        raise InputError(f"key={key!r} is no random key: give jax.random.key(seed)")
    if not space.num_decisions:
        raise InputError(
            f"space {space.name} has no decisions left, there is nothing to search: price or train it instead"
        )
    if not isinstance(evaluator.chunk, int) or evaluator.chunk < 1:
        raise InputError(f"evaluator {evaluator.name} has chunk {evaluator.chunk!r}: give a whole number from 1")
    if not snapshot_s >= 0:
        raise InputError(f"snapshot_s={snapshot_s!r} is not allowed: give a number from 0")
    if strategy.needs_gradients and not evaluator.gives_gradients:
        raise InputError(
            f"strategy {strategy.name} needs gradients and evaluator {evaluator.name} gives none: "
            "pair it with an evaluator that does"
        )


def _meta(
    space: Any, strategy: Strategy, evaluator: Evaluator, objective: Objective, key: Key, config: Any
) -> dict[str, Any]:
    text = space.text(np.zeros(space.num_decisions, np.int32)).rsplit(":", 1)[0]
    tree = {"name": space.name, "text": text, "fingerprint": space.fingerprint, "tree": space.to_json()}
    return {
        "space": tree,
        "devices": {device.name: device.to_json() for device in objective.devices},
        "objective": objective.describe(),
        "strategy": {"name": strategy.name, **strategy.describe},
        "evaluator": {"name": evaluator.name, "rounds": evaluator.rounds, **evaluator.describe},
        "seed": {"kind": str(jax.random.key_impl(key)), "words": np.asarray(jax.random.key_data(key)).tolist()},
        "config": None if config is None else dict(config),
    }


class _Judge(NamedTuple):
    """The evaluator's state after so many training rounds; one value, so that an interrupt never parts the two."""

    round: int
    state: State


class _Plan(NamedTuple):
    """The strategy's state after so many steps; one value, for the same reason."""

    step: int
    state: State


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
        self.ask, self.tell = jax.jit(strategy.ask), jax.jit(strategy.tell)
        self.known: dict[tuple[int, ...], float] = {}  # error of evaluated networks, from finished steps only
        self.front: list[Record] = []
        self.judge = _Judge(0, evaluator.init(stage_key(root, INIT, 0)))
        self.plan = _Plan(0, jax.jit(strategy.init)(stage_key(root, INIT, 1)))
        self.saved = time.monotonic()

    def go(self, steps: int, snapshot_s: float) -> None:
        stored = self.folder.snapshot
        if stored is not None:
            self.judge = _Judge(stored.round, tree_from(self.judge.state, stored.evaluator))
            self.plan = _Plan(stored.step, tree_from(self.plan.state, stored.strategy))
        if self.plan.step == 0:
            # before the training: a limit that nothing meets should not cost an hour
            count = int(jax.eval_shape(self.strategy.ask, self.root, self.plan.state)[1].genes.shape[0])
            genes = first_networks(self.space, self.objective, count, stage_key(self.root, INIT, 2))
            if self.strategy.start is not None:
                self.plan = _Plan(0, jax.jit(self.strategy.start)(self.plan.state, jnp.asarray(genes)))
        try:
            self._train(snapshot_s)
            version = self.evaluator.version(self.judge.state)
            self._remember(version)
            self.progress.start_search(steps)
            while self.plan.step < steps:
                self._one_step(version)
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
        judge, plan = self.judge, self.plan
        if judge.round or plan.step:  # before that there is nothing that the next start does not find again
            self.folder.save(judge.round, plan.step, judge.state, plan.state)
        self.saved = time.monotonic()

    def _train(self, snapshot_s: float) -> None:
        rounds = self.evaluator.rounds
        if self.judge.round >= rounds:
            return
        self.progress.start_training(rounds)
        while self.judge.round < rounds:
            done = self.judge.round
            try:
                state, metrics = self.evaluator.train(stage_key(self.root, TRAIN, done), self.judge.state)
            except InputError as error:
                if done and self.folder.path is not None:  # before the first round nothing is kept
                    error.add_note(
                        f"{self.folder.path} holds this search up to round {done}, and other settings are another "
                        f"search: {FIX}"
                    )
                raise
            self.judge = _Judge(done + 1, state)
            self.progress.training(done, metrics)
            if time.monotonic() - self.saved >= snapshot_s or self.judge.round == rounds:
                self._save()

    def _remember(self, version: str) -> None:
        for record in self.folder.run().records:
            if record["evaluator_version"] != version:
                raise InputError(
                    f"{self.folder.path}: records were made by evaluator version {record['evaluator_version']}, "
                    f"this is {version}: give another folder (--out), or remove this one"
                )
            if record["step"] < self.plan.step:
                self._learn(record)
        done = [record for record in self.folder.records.values() if record["step"] < self.plan.step]
        self.front = front_of(done, self.objective.minimize)

    def _learn(self, record: Record) -> None:
        error = record["objectives"]["error"]
        if record["status"] in ("ok", "infeasible") and error is not None:
            self.known.setdefault(tuple(record["genes"]), error)

    def _one_step(self, version: str) -> None:
        step = self.plan.step
        state, proposal = self.ask(stage_key(self.root, ASK, step), self.plan.state)
        genes = np.asarray(proposal.genes)
        priced = self.objective.price(proposal.genes)
        batch = Batch(self.space, self.objective, self.folder, self.progress, step, genes, priced, version)
        waiting = batch.sort_out(self.known, reuse=proposal.gates is None)
        asked = genes if proposal.gates is None else np.asarray(proposal.gates)
        grads = None if proposal.gates is None else np.zeros(asked.shape, np.float32)
        if len(waiting):
            step_key = stage_key(self.root, EVALUATE, step)
            outcomes = self.executor.map_chunks(self.evaluator, step_key, self.judge.state, asked[waiting], waiting)
            for outcome in outcomes:
                batch.take(outcome, waiting)
                if grads is not None and outcome.error_grads is not None:
                    grads[waiting[outcome.rows]] = outcome.error_grads
        batch.finish()
        gate_grads = None
        if grads is not None:
            gate_grads = self.objective.gate_grads(np.nan_to_num(batch.error), grads, proposal.gates)
        feedback = self.objective.feedback(batch.error, priced, batch.evaluated, gate_grads=gate_grads)
        self.plan = _Plan(step + 1, self.tell(state, proposal, feedback))
        records = [self.folder.records[step, i] for i in range(len(genes))]
        for record in records:
            self._learn(record)
        self.front = front_of(self.front + records, self.objective.minimize)
        self.progress.front(self.front)

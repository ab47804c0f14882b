"""One set of shared weights for every network of a space, executed at each network's own size.

At every slot a `lax.switch` picks the branch (kind, kernel, expand, or skip) and runs the frozen block on weights cut
out of the shared ones; widths, heads and attention are traced operands inside the branch. The whole space is one
compiled program, and a sub-network costs about what it would cost alone.

`lax.switch` under automatic differentiation keeps the residuals of every branch, which is slower than computing the
largest network. So each slot has its own derivative rule: the backward pass is a second switch that recomputes the
chosen branch and differentiates it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from search_spaces.block import Block, BlockIO, Selection, shared_shapes
from search_spaces.initial import fill
from search_spaces.slots import Case, Slot
from search_spaces.space import SearchSpace


class _Pick(NamedTuple):
    """Traced operands of one slot: branch, pair of widths, and the value of each elastic field of each case.

    Indices in sampled execution, probabilities in relaxed execution. `progress` is the share of training that is done.
    """

    branch: Array
    width: Array
    fields: dict[str, dict[str, Array]]
    progress: Array | None


class Supernet:
    """The shared weights of `space` and the programs that run any of its networks.

    Variables are `{slot name: {kind: {"params": ..., "batch_stats": ...}}}`, sized for the largest values.

    Example:
        >>> from search_spaces.spaces import tiny
        >>> space = tiny.space()
        >>> net = Supernet(space)
        >>> variables = net.init(jax.random.key(0))
        >>> net.apply(variables, jnp.zeros((2, 8, 8, 1)), space.sample(jax.random.key(1))).shape
        (2, 10)
    """

    def __init__(self, space: SearchSpace, depthwise: str = "auto"):
        self.space = space
        self.depthwise = depthwise
        self._sizes = [Supernet(each, depthwise) for each in space.resolutions]
        self._programs = [_SlotProgram(slot, depthwise) for slot in space.slots]

    def init(self, key: Array) -> Any:
        """Fresh shared variables; the key is consumed."""
        return fill(key, self.shapes())

    def shapes(self) -> Any:
        """Shapes of the shared variables."""
        return {program.slot.name: program.shapes() for program in self._programs}

    def apply(
        self, variables: Any, x: Array, genes: Array, mode: str = "train", progress: Array | None = None
    ) -> Array:
        """Logits `[N, classes]` of the network of `genes [D]` on `x [N, H, W, C]`.

        Modes: `train` normalises with the batch, `eval` with the stored statistics. Differentiable in `variables` and
        `x` in mode `train`. `progress` is the share of the training that is done, for what is annealed (None: all).
        Genes that are known while tracing (not an argument of the compiled function) compile that one network only.
        """
        if self._sizes:
            return self._resized(variables, x, genes, mode, progress)
        for program in self._programs:
            x = program.run(variables[program.slot.name], x, program.pick(genes, progress), mode)
        return x

    def relaxed(
        self, variables: Any, x: Array, gates: Array, mode: str = "train", progress: Array | None = None
    ) -> Array:
        """Logits `[N, classes]` under `gates [D, C]`: every branch runs, and their results are mixed.

        Differentiable in `gates` as well. Under one-hot gates it equals `apply`. Branches are mixed by their results,
        widths by masks after normalisation, head counts, attention and reductions inside a branch.
        """
        if self._sizes:
            results = [net.relaxed(variables, net.fitted(x), gates[:-1], mode, progress) for net in self._sizes]
            return sum(gates[-1, place] * result for place, result in enumerate(results))  # type: ignore[return-value]
        for program in self._programs:
            x = program.relaxed(variables[program.slot.name], x, program.mix(gates, progress), mode)
        return x

    def calibrate(self, variables: Any, x: Array, genes: Array) -> Any:
        """Batch statistics of the network of `genes` on `x`, shaped like the statistics in `variables`."""
        if self._sizes:
            branches = [lambda v, x, genes, net=net: net.calibrate(v, net.fitted(x), genes) for net in self._sizes]
            return lax.switch(genes[-1], branches, variables, x, genes[:-1])
        statistics = {}
        for program in self._programs:
            name = program.slot.name
            x, statistics[name] = program.calibrate(variables[name], x, program.pick(genes))
        return statistics

    def fitted(self, x: Array) -> Array:
        """Images scaled to the resolution of this space."""
        size = self.space.image_hw
        return x if x.shape[1] == size else jax.image.resize(x, (x.shape[0], size, size, x.shape[3]), "linear")

    def _resized(self, variables: Any, x: Array, genes: Array, mode: str, progress: Array | None) -> Array:
        """The network at the resolution that the last gene selects; the backward pass recomputes it, as slots do."""

        def at(net: Supernet) -> Callable[..., Array]:
            return lambda variables, x, genes, progress: net.apply(variables, net.fitted(x), genes, mode, progress)

        functions = [at(net) for net in self._sizes]
        operands = (genes[:-1], progress)
        if mode != "train":
            return lax.switch(genes[-1], functions, variables, x, *operands)
        params = {
            slot: {kind: {"params": part["params"]} for kind, part in kinds.items()}
            for slot, kinds in variables.items()
        }

        @jax.custom_vjp
        def call(params: Any, x: Array, size: Array, operands: Any) -> Array:
            return lax.switch(size, functions, params, x, *operands)

        def forward(params: Any, x: Array, size: Array, operands: Any) -> tuple[Array, Any]:
            return call(params, x, size, operands), (params, x, size, operands)

        def backward(saved: Any, gradient: Array) -> tuple[Any, Array, None, None]:
            params, x, size, operands = saved
            pulls = [_pullback(lambda p, x, o, function=function: function(p, x, *o)) for function in functions]
            return (*lax.switch(size, pulls, params, x, operands, gradient), None, None)

        call.defvjp(forward, backward)
        return call(params, x, genes[-1], operands)


def with_statistics(variables: Any, statistics: Any) -> Any:
    """`variables` with their batch statistics replaced by those of `Supernet.calibrate`."""
    return {
        slot: {kind: {**part, "batch_stats": statistics[slot][kind]} for kind, part in kinds.items()}
        for slot, kinds in variables.items()
    }


class _SlotProgram:
    """The branches of one slot."""

    def __init__(self, slot: Slot, depthwise: str):
        self.slot = slot
        self.io = slot.elastic_io(depthwise)
        self.branches: list[tuple[Case, Block] | None] = []
        for case in slot.cases:
            self.branches += [(case, block) for block in case.branches()]
        if slot.depth is not None:
            self.branches.append(None)

    def shapes(self) -> Any:
        """Shapes of the shared variables of every kind."""
        return {case.name: shared_shapes(case.block, self.io) for case in self.slot.cases}

    @cached_property
    def _strides(self) -> list[list[tuple[int, int]]]:
        """Per case: `(decision, stride)` of its branch fields."""
        strides = []
        for case in self.slot.cases:
            step, row = 1, []
            decisions = dict(case.decisions)
            for field in reversed(case.branch_fields):
                row.append((decisions[field], step))
                step *= len(getattr(case.block, field).values)
            strides.append(row)
        return strides

    def pick(self, genes: Array, progress: Array | None = None) -> _Pick:
        """The operands that `genes [D]` select; known ones where the genes are known while tracing."""
        if not isinstance(genes, jax.core.Tracer):
            with jax.ensure_compile_time_eval():
                return self._pick(jnp.asarray(genes), progress)
        return self._pick(genes, progress)

    def _pick(self, genes: Array, progress: Array | None) -> _Pick:
        slot = self.slot
        starts = np.cumsum([0] + [len(case.branches()) for case in slot.cases])
        per_case = [
            sum((genes[decision] * step for decision, step in row), jnp.int32(start))
            for start, row in zip(starts[:-1], self._strides, strict=True)
        ]
        branch = per_case[0] if slot.kind_decision is None else jnp.stack(per_case)[genes[slot.kind_decision]]
        if slot.depth is not None:
            decision, reaching = slot.depth
            live = jnp.isin(genes[decision], jnp.asarray(sorted(reaching)))
            branch = jnp.where(live, branch, len(self.branches) - 1)
        width = jnp.int32(0)
        for decision, count in zip(slot.widths.decisions, slot.widths.cardinality, strict=True):
            width = width * count + genes[decision]
        return _Pick(branch.astype(jnp.int32), width, self._fields(lambda d: genes[d]), progress)

    def mix(self, gates: Array, progress: Array | None = None) -> _Pick:
        """The probabilities under `gates [D, C]`: of every branch `[B]`, every pair of widths `[V]`, every field."""
        slot, one = self.slot, jnp.ones((1,), gates.dtype)
        reached = jnp.asarray(1.0, gates.dtype)
        if slot.depth is not None:
            decision, reaching = slot.depth
            reached = gates[decision][jnp.asarray(sorted(reaching))].sum()
        parts = []
        for position, case in enumerate(slot.cases):
            chance = one * reached
            if slot.kind_decision is not None:
                chance = chance * gates[slot.kind_decision, position]
            for field, decision in case.decisions:
                if field in case.branch_fields:
                    count = len(getattr(case.block, field).values)
                    chance = (chance[:, None] * gates[decision, :count]).ravel()
            parts.append(chance)
        if slot.depth is not None:
            parts.append(one * (1 - reached))
        width = one
        for decision, count in zip(slot.widths.decisions, slot.widths.cardinality, strict=True):
            width = (width[:, None] * gates[decision, :count]).ravel()

        def field_gates(decision: int) -> Array:
            return gates[decision, : self._counts[decision]]

        return _Pick(jnp.concatenate(parts), width, self._fields(field_gates), progress)

    @cached_property
    def _counts(self) -> dict[int, int]:
        return {
            decision: len(getattr(case.block, field).values)
            for case in self.slot.cases
            for field, decision in case.decisions
        }

    def _fields(self, value: Callable[[int], Array]) -> dict[str, dict[str, Array]]:
        return {
            case.name: {name: value(d) for name, d in case.decisions if name in case.elastic_fields}
            for case in self.slot.cases
        }

    def _switch(self, pick: _Pick, functions: list[Callable[..., Any]], *operands: Any) -> Any:
        if len(functions) == 1 or not isinstance(pick.branch, jax.core.Tracer):
            return functions[int(pick.branch) if len(functions) > 1 else 0](*operands)
        return lax.switch(pick.branch, functions, *operands)

    def run(self, variables: Any, x: Array, pick: _Pick, mode: str) -> Array:
        """The slot's output; in mode `train` with the custom derivative."""
        functions = [_forward(branch, self.io, mode) for branch in self.branches]
        if mode != "train" or not isinstance(pick.branch, jax.core.Tracer):
            return self._switch(pick, functions, variables, x, pick)
        params = {kind: {"params": part["params"]} for kind, part in variables.items()}

        @jax.custom_vjp
        def call(params: Any, x: Array, pick: _Pick) -> Array:
            return self._switch(pick, functions, params, x, pick)

        def forward(params: Any, x: Array, pick: _Pick) -> tuple[Array, Any]:
            return call(params, x, pick), (params, x, pick)

        def backward(saved: Any, gradient: Array) -> tuple[Any, Array, None]:
            params, x, pick = saved
            parts = self._switch(pick, [_pullback(function) for function in functions], params, x, pick, gradient)
            return (*parts, None)

        call.defvjp(forward, backward)
        return call(params, x, pick)

    def relaxed(self, variables: Any, x: Array, pick: _Pick, mode: str) -> Array:
        """The results of all branches, mixed by their probabilities."""
        results = [_forward(branch, self.io, mode)(variables, x, pick) for branch in self.branches]
        return sum(pick.branch[position] * result for position, result in enumerate(results))  # type: ignore[return-value]

    def calibrate(self, variables: Any, x: Array, pick: _Pick) -> tuple[Array, Any]:
        """The slot's output on batch statistics, and those statistics at the shared size."""
        empty = {kind: jax.tree.map(jnp.zeros_like, part["batch_stats"]) for kind, part in variables.items()}
        functions = [_calibration(branch, self.io, empty) for branch in self.branches]
        return self._switch(pick, functions, variables, x, pick)


def _selection(case: Case, pick: _Pick) -> Selection:
    return Selection(pick.width, pick.fields[case.name], pick.progress)


def _forward(branch: tuple[Case, Block] | None, io: BlockIO, mode: str) -> Callable[..., Array]:
    def skip(variables: Any, x: Array, pick: _Pick) -> Array:
        return x

    if branch is None:
        return skip
    case, block = branch

    def run(variables: Any, x: Array, pick: _Pick) -> Array:
        part = block.cut(variables[case.name], io)
        # Statistics are mutable only so that training needs none; the compiler drops what nobody reads.
        y, _ = block.net(io).apply(part, x, _selection(case, pick), mode, mutable=["batch_stats"])
        return y

    return run


def _pullback(function: Callable[..., Array]) -> Callable[..., Any]:
    def run(params: Any, x: Array, pick: _Pick, gradient: Array) -> Any:
        _, pull = jax.vjp(lambda params, x: function(params, x, pick), params, x)
        return pull(gradient)

    return run


def _calibration(branch: tuple[Case, Block] | None, io: BlockIO, empty: Any) -> Callable[..., Any]:
    def skip(variables: Any, x: Array, pick: _Pick) -> Any:
        return x, empty

    if branch is None:
        return skip
    case, block = branch

    def run(variables: Any, x: Array, pick: _Pick) -> Any:
        shared = variables[case.name]
        part = block.cut(shared, io)
        y, updated = block.net(io).apply(part, x, _selection(case, pick), "calibrate", mutable=["batch_stats"])
        if not shared["batch_stats"]:
            return y, empty
        paste = jax.linear_transpose(
            lambda tree: block.cut({"batch_stats": tree}, io)["batch_stats"], shared["batch_stats"]
        )
        (pasted,) = paste(updated["batch_stats"])
        return y, {**empty, case.name: pasted}

    return run

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

from search_spaces.block import Block, BlockIO, Selection, variable_shapes
from search_spaces.initial import fill
from search_spaces.slots import Case, Slot
from search_spaces.space import SearchSpace


class _Pick(NamedTuple):
    """Traced operands of one slot: branch, width indices, and the index of each elastic field of each case."""

    branch: Array
    inp: Array
    out: Array
    fields: dict[str, dict[str, Array]]


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
        self._programs = [_SlotProgram(slot, depthwise) for slot in space.slots]

    def init(self, key: Array) -> Any:
        """Fresh shared variables; the key is consumed."""
        return fill(key, self.shapes())

    def shapes(self) -> Any:
        """Shapes of the shared variables."""
        return {program.slot.name: program.shapes() for program in self._programs}

    def apply(self, variables: Any, x: Array, genes: Array, mode: str = "train") -> Array:
        """Logits `[N, classes]` of the network of `genes [D]` on `x [N, H, W, C]`.

        Modes: `train` normalises with the batch, `eval` with the stored statistics. Differentiable in `variables` and
        `x` in mode `train`.
        """
        for program in self._programs:
            x = program.run(variables[program.slot.name], x, program.pick(genes), mode)
        return x

    def calibrate(self, variables: Any, x: Array, genes: Array) -> Any:
        """Batch statistics of the network of `genes` on `x`, shaped like the statistics in `variables`."""
        statistics = {}
        for program in self._programs:
            name = program.slot.name
            x, statistics[name] = program.calibrate(variables[name], x, program.pick(genes))
        return statistics


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
        return {case.name: variable_shapes(case.block.largest(), self.io) for case in self.slot.cases}

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

    def pick(self, genes: Array) -> _Pick:
        """The traced operands that `genes [D]` select."""
        slot, zero = self.slot, jnp.int32(0)
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
        fields = {
            case.name: {name: genes[d] for name, d in case.decisions if name in case.elastic_fields}
            for case in slot.cases
        }
        inp = zero if slot.inp.decision is None else genes[slot.inp.decision]
        out = zero if slot.out.decision is None else genes[slot.out.decision]
        return _Pick(branch.astype(jnp.int32), inp, out, fields)

    def _switch(self, pick: _Pick, functions: list[Callable[..., Any]], *operands: Any) -> Any:
        return functions[0](*operands) if len(functions) == 1 else lax.switch(pick.branch, functions, *operands)

    def run(self, variables: Any, x: Array, pick: _Pick, mode: str) -> Array:
        """The slot's output; in mode `train` with the custom derivative."""
        functions = [_forward(branch, self.io, mode) for branch in self.branches]
        if mode != "train":
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

    def calibrate(self, variables: Any, x: Array, pick: _Pick) -> tuple[Array, Any]:
        """The slot's output on batch statistics, and those statistics at the shared size."""
        empty = {kind: jax.tree.map(jnp.zeros_like, part["batch_stats"]) for kind, part in variables.items()}
        functions = [_calibration(branch, self.io, empty) for branch in self.branches]
        return self._switch(pick, functions, variables, x, pick)


def _selection(case: Case, pick: _Pick) -> Selection:
    return Selection(pick.inp, pick.out, pick.fields[case.name])


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

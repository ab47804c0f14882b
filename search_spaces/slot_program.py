"""The branches of one slot of a supernet: sampled, relaxed and calibrated execution."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from hw_models.errors import InputError
from search_spaces.block import Block, BlockIO, Selection, shared_shapes, variable_shapes
from search_spaces.kernels.depthwise import fuses
from search_spaces.rounded_block import applied
from search_spaces.slots import Case, Slot
from search_spaces.switch import switch


class Pick(NamedTuple):
    """Traced operands of one slot: branch, pair of widths, and of each case the values of what is decided inside it.

    Indices in sampled execution, probabilities in relaxed execution. `progress` is the share of training that is done.
    """

    branch: Array
    width: Array
    fields: dict[str, dict[str, Array]]
    progress: Array | None


class SlotProgram:
    """The branches of one slot."""

    def __init__(self, slot: Slot, depthwise: str):
        self.slot = slot
        self.io = slot.elastic_io(depthwise)
        self.branches: list[tuple[Case, Block] | None] = []
        for case in slot.cases:
            self.branches += [(case, block) for block in case.branches(self._traced(case))]
        if slot.depth is not None:
            self.branches.append(None)

    def _traced(self, case: Case) -> tuple[str, ...]:
        """Branch fields of `case` that are operands inside its branches all the same."""
        return case.block.traced() if fuses(self.io.depthwise) else ()

    @cached_property
    def mixed(self) -> list[tuple[Case, Block] | None]:
        """What relaxed execution runs: the branches, but those of masked fields in one, at the largest size.

        The gates of a masked field mix filters (kernel) or say how much of a channel there is (expand).
        """
        found: list[tuple[Case, Block] | None] = [
            (case, form) for case in self.slot.cases for form in case.block.forms()
        ]
        return [*found, None] if self.slot.depth is not None else found

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
            for field in reversed(case.branch_fields(self._traced(case))):
                row.append((decisions[field], step))
                step *= len(getattr(case.block, field).values)
            strides.append(row)
        return strides

    def pick(self, genes: Array, progress: Array | None = None) -> Pick:
        """The operands that `genes [D]` select; known ones where the genes are known while tracing."""
        if not isinstance(genes, jax.core.Tracer):
            with jax.ensure_compile_time_eval():
                return self._pick(jnp.asarray(genes), progress)
        return self._pick(genes, progress)

    def _pick(self, genes: Array, progress: Array | None) -> Pick:
        slot = self.slot
        starts = np.cumsum([0] + [len(case.branches(self._traced(case))) for case in slot.cases])
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
        inside = {case.name: case.elastic_fields(self._traced(case)) for case in slot.cases}
        return Pick(branch.astype(jnp.int32), width, self._fields(lambda d: genes[d], inside), progress)

    def mix(self, gates: Array, progress: Array | None = None) -> Pick:
        """The probabilities under `gates [D, C]`: of each of `mixed`, of every pair of widths `[V]`, of every field.

        Those of branches come as `branch`.
        """
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
                if field in case.branch_fields(case.block.masked()):
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

        inside = {case.name: case.elastic_fields(case.block.masked()) for case in slot.cases}
        return Pick(jnp.concatenate(parts), width, self._fields(field_gates, inside), progress)

    @cached_property
    def _counts(self) -> dict[int, int]:
        return {
            decision: len(getattr(case.block, field).values)
            for case in self.slot.cases
            for field, decision in case.decisions
        }

    def _fields(self, value: Callable[[int], Array], inside: dict[str, tuple[str, ...]]) -> dict[str, dict[str, Array]]:
        return {
            case.name: {name: value(d) for name, d in case.decisions if name in inside[case.name]}
            for case in self.slot.cases
        }

    def _switch(self, pick: Pick, functions: list[Callable[..., Any]], *operands: Any) -> Any:
        if len(functions) == 1 or not isinstance(pick.branch, jax.core.Tracer):
            return functions[int(pick.branch) if len(functions) > 1 else 0](*operands)
        return lax.switch(pick.branch, functions, *operands)

    def run(self, variables: Any, x: Array, pick: Pick, mode: str) -> Array:
        """The slot's output, with the custom derivative; mode `train` reads no statistics."""
        functions = [_forward(branch, self.io, mode) for branch in self.branches]
        if len(functions) == 1 or not isinstance(pick.branch, jax.core.Tracer):
            return self._switch(pick, functions, variables, x, pick)
        params = variables
        if mode == "train":
            params = {kind: {"params": part["params"]} for kind, part in variables.items()}

        read = [None if branch is None else branch[0].name for branch in self.branches]
        return switch(pick.branch, functions, params, x, pick, read)

    def relaxed(self, variables: Any, x: Array, pick: Pick, mode: str) -> Array:
        """The results of all of `mixed`, by their probabilities."""
        results = [_forward(form, self.io, mode)(variables, x, pick) for form in self.mixed]
        return sum(pick.branch[position] * result for position, result in enumerate(results))  # type: ignore[return-value]

    def calibrate(self, variables: Any, x: Array, pick: Pick) -> tuple[Array, Any]:
        """The slot's output on batch statistics, and those statistics at the shared size."""
        empty = {kind: jax.tree.map(jnp.zeros_like, part["batch_stats"]) for kind, part in variables.items()}
        functions = [_calibration(branch, self.io, empty) for branch in self.branches]
        return self._switch(pick, functions, variables, x, pick)


def _selection(case: Case, pick: Pick) -> Selection:
    return Selection(pick.width, pick.fields[case.name], pick.progress)


def _forward(branch: tuple[Case, Block] | None, io: BlockIO, mode: str) -> Callable[..., Array]:
    def skip(variables: Any, x: Array, pick: Pick) -> Array:
        return x

    if branch is None:
        return skip
    case, block = branch

    def run(variables: Any, x: Array, pick: Pick) -> Array:
        return applied(block, io, block.cut(variables[case.name], io), x, _selection(case, pick), mode)[0]

    return run


def _calibration(branch: tuple[Case, Block] | None, io: BlockIO, empty: Any) -> Callable[..., Any]:
    def skip(variables: Any, x: Array, pick: Pick) -> Any:
        return x, empty

    if branch is None:
        return skip
    case, block = branch

    def run(variables: Any, x: Array, pick: Pick) -> Any:
        shared = variables[case.name]
        part = block.cut(shared, io)
        y, updated = applied(block, io, part, x, _selection(case, pick), "calibrate")
        if not shared["batch_stats"]:
            return y, empty
        _, paste = jax.vjp(lambda tree: block.cut({"batch_stats": tree}, io)["batch_stats"], shared["batch_stats"])
        (pasted,) = paste(updated["batch_stats"])
        return y, {**empty, case.name: pasted}

    return run


def check_form(form: Block, io: BlockIO) -> None:
    """Raise InputError unless the masked form has the variables of its branches, at their largest."""
    own, branches = variable_shapes(form, io), shared_shapes(form, io)
    if own != branches:
        raise InputError(
            f"block {form.kind}: masked over {', '.join(form.masked())} its variables are not those of its branches: "
            "correct its net, or take the field out of MASKED"
        )

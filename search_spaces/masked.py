"""The other execution of a supernet's slot: every network at the largest size, with masks, in one straight program.

What a `lax.switch` chooses between becomes operands: kernels are the centre of the largest one's taps, channels past
the active ones are zero, and kinds of block, depth and what has no masked form are computed side by side and selected.
No branch depends on the genes, so that `vmap` over genes `[P, D]` adds a batch dimension and nothing else: a 1x1
convolution stays one product with shared weights, `[P * N * H * W, C] @ [C, K]`. Under `vmap` a switch would compute
all of its branches. One network costs as much as the largest, so that on CPUs the switch is faster.

Filters of which candidates use different taps differ between them; `vmap` then makes one convolution with a group of
channels for each candidate. The alternative, one convolution with shared filters for every kernel size and a selection,
would store a map for each size.
"""

from __future__ import annotations

import itertools
from functools import cached_property
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from hw_models.discover import unknown
from search_spaces.block import Block, BlockIO, Selection, cut_to, shared_shapes, variable_shapes
from search_spaces.choice import Choice, options
from search_spaces.rounded_block import applied
from search_spaces.slot_program import Pick, SlotProgram, check_form
from search_spaces.slots import Case

EXECUTIONS = ("switch", "masks")


def chosen_execution(execution: str = "auto") -> str:
    """The execution that `execution` names on this machine: `auto` is `switch` on CPUs and `masks` elsewhere.

    Raises:
        InputError: an unknown name.

    Example:
        >>> chosen_execution("masks")
        'masks'
    """
    if execution == "auto":
        return "switch" if jax.default_backend() == "cpu" else "masks"
    if execution not in EXECUTIONS:
        raise unknown("execution", str(execution), ("auto", *EXECUTIONS))
    return execution


class Form(NamedTuple):
    """One of the programs of a slot that run side by side.

    `chosen` says of every branch of the slot, bool `[B]`, whether it is one of this form; `fields` which value of each
    masked field a branch has, int32 `[B]` by name; `kept` which entries of the shared statistics it has, a tree of
    bool `[B, ...]`.
    """

    case: Case
    block: Block
    chosen: np.ndarray
    fields: dict[str, np.ndarray]
    kept: Any


class MaskedProgram(SlotProgram):
    """The branches of one slot, of which all run. Where genes are known while tracing only theirs does.

    What runs raises InputError for a block whose masked form has other variables than its branches.
    """

    def _traced(self, case: Case) -> tuple[str, ...]:
        # the numbers of branches are what says which forms run
        return ()

    @cached_property
    def forms(self) -> list[Form]:
        """What runs side by side: every kind of block, and of it one form for each combination that is not masked."""
        forms: list[Form] = []
        start = 0
        for case in self.slot.cases:
            forms += _forms(case, self.io, start, len(self.branches))
            start += len(case.branches())
        return forms

    def run(self, variables: Any, x: Array, pick: Pick, mode: str) -> Array:
        """The slot's output; mode `train` reads no statistics. Every derivative is the automatic one."""
        if not isinstance(pick.branch, jax.core.Tracer):
            return super().run(variables, x, pick, mode)
        return self._selected(x, pick, [self._applied(form, variables, x, pick, mode)[0] for form in self.forms])

    def calibrate(self, variables: Any, x: Array, pick: Pick) -> tuple[Array, Any]:
        """The slot's output on batch statistics, and those statistics at the shared size: zero where not in use."""
        if not isinstance(pick.branch, jax.core.Tracer):
            return super().calibrate(variables, x, pick)
        found = {kind: jax.tree.map(jnp.zeros_like, part["batch_stats"]) for kind, part in variables.items()}
        results = []
        for form in self.forms:
            y, made = self._applied(form, variables, x, pick, "calibrate")
            results.append(y)
            shared = found[form.case.name]
            if not shared:
                continue
            paste = jax.linear_transpose(lambda tree, like=made: cut_to(tree, like), shared)
            (pasted,) = paste(made)

            def joined(old: Array, new: Array, kept: np.ndarray) -> Array:
                return jnp.where(jnp.asarray(kept)[pick.branch], new, old)

            found[form.case.name] = jax.tree.map(joined, shared, pasted, form.kept)
        return self._selected(x, pick, results), found

    def _applied(self, form: Form, variables: Any, x: Array, pick: Pick, mode: str) -> tuple[Array, Any]:
        """The output of one form and the statistics it made."""
        masked = {name: jnp.asarray(values)[pick.branch] for name, values in form.fields.items()}
        selection = Selection(pick.width, {**pick.fields[form.case.name], **masked}, pick.progress)
        part = form.block.cut(variables[form.case.name], self.io)
        y, made = applied(form.block, self.io, part, x, selection, mode)
        return y, made.get("batch_stats", {})

    def _selected(self, x: Array, pick: Pick, results: list[Array]) -> Array:
        """The result of the form of the branch in use; `x` where depth leaves the slot out."""
        if len(results) == 1 and self.slot.depth is None:
            return results[0]
        y = x if self.slot.depth is not None else results[0]
        for form, result in zip(self.forms, results, strict=True):
            y = jnp.where(jnp.asarray(form.chosen)[pick.branch], result, y)
        return y


def _forms(case: Case, io: BlockIO, start: int, total: int) -> list[Form]:
    """The forms of one kind of block, whose first branch is number `start` of `total`."""
    block, masked = case.block, case.block.masked()
    searched = [name for name in block.BRANCHES if isinstance(getattr(block, name), Choice)]
    kept = [name for name in searched if name not in masked]
    branches = block.branches()
    places = list(itertools.product(*(range(len(options(getattr(block, name)))) for name in searched)))
    every = itertools.product(*(range(len(options(getattr(block, name)))) for name in kept))
    shared = shared_shapes(block, io)["batch_stats"]
    forms = []
    for form, own in zip(block.forms(), every, strict=True):
        check_form(form, io)
        chosen = np.zeros(total, bool)
        fields = {name: np.zeros(total, np.int32) for name in masked}
        # tuples are leaves here: of every branch, which leading or central part of the shared leaf it has
        in_use = jax.tree.map(lambda leaf: np.zeros((total, *leaf.shape), bool), shared)
        for number, (branch, place) in enumerate(zip(branches, places, strict=True), start):
            at = dict(zip(searched, place, strict=True))
            if tuple(at[name] for name in kept) != own:
                continue
            chosen[number] = True
            for name in masked:
                fields[name][number] = at[name]
            _mark(in_use, number, variable_shapes(branch, io)["batch_stats"])
        forms.append(Form(case, form, chosen, fields, in_use))
    return forms


def _mark(in_use: Any, number: int, shapes: Any) -> None:
    """Set row `number` of the leaves `[B, C]` where a leaf of `shapes` has an entry."""
    for name, shape in shapes.items():
        if isinstance(shape, dict):
            _mark(in_use[name], number, shape)
        else:
            in_use[name][number, : shape.shape[0]] = True

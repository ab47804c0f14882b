"""What a training keeps to besides its data: a teacher, a form of the weights in use, a penalty.

    constrain   parameters to those that the network runs with, inside the loss: masked, multiplied by gates, folded.
                Parameters may hold more than the network has, such as gates, which are then trained beside the weights;
                what is not a vector decays. Returned are the parameters themselves.
    penalty     parameters, and the share of the training that is done, to a number `[]` that is added to the loss.
    renew       called before every epoch with the share of the training that is done and the parameters; its result is
                `constrain` for that epoch, such as other masks. Called once more at the end, with 1, for the network
                that is left.

A `jax.tree_util.Partial` of a function of a module and arrays does not make the step compile anew when the arrays
change; of a lambda every new one does.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
from jax import Array
from jax.tree_util import Partial

from nas.training.checkpoints import hash_of


class Guides(NamedTuple):
    """The three, each a `Partial` or None, as an argument of a compiled step."""

    teacher: Any = None
    constrain: Any = None
    penalty: Any = None

    @classmethod
    def of(cls, *given: Any) -> Guides:
        """What is given as the functions that a compiled step takes.

        Example:
            >>> Guides.of(None, None, None)
            Guides(teacher=None, constrain=None, penalty=None)
        """
        return cls(*(each if each is None or isinstance(each, Partial) else Partial(each) for each in given))

    def used(self, variables: Any) -> Any:
        """`variables` with the parameters that the network runs with.

        Example:
            >>> Guides.of(None, lambda params: params["w"] * 2, None).used({"params": {"w": 1.5}})
            {'params': 3.0}
        """
        if self.constrain is None:
            return variables
        return {**variables, "params": self.constrain(variables["params"])}

    def penalised(self, loss: Array, params: Any, progress: Array) -> Array:
        """The loss `[]` with the penalty.

        Example:
            >>> Guides().penalised(0.5, {}, 0.0)
            0.5
        """
        return loss if self.penalty is None else loss + self.penalty(params, progress)


def said_of(*given: Any) -> str:
    """What tells a training with these functions from another one, for its checkpoint; nothing without them.

    Functions are told apart by their names and the arrays that they hold, dataclasses by their settings; what a
    closure holds besides is not seen.

    Example:
        >>> said_of(None, None), said_of(print)[:13]
        ('', ', constrained')
    """
    if all(each is None for each in given):
        return ""
    leaves = jax.tree.leaves([[each.func, each.args, each.keywords] if isinstance(each, Partial) else each
                              for each in given])  # fmt: skip
    arrays = [leaf for leaf in leaves if hasattr(leaf, "dtype") or isinstance(leaf, int | float)]
    words = [_named(leaf) for leaf in leaves if not any(leaf is array for array in arrays)]
    return f", constrained by {' '.join(words)} (hash {hash_of(arrays)})"


def _named(each: Any) -> str:
    """The name of a function, or the settings of what can be called."""
    if dataclasses.is_dataclass(each):
        return repr(each)
    return f"{getattr(each, '__module__', '')}.{getattr(each, '__qualname__', type(each).__qualname__)}"

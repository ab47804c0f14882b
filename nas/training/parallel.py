"""Data-parallel training: batches spread over all devices, weights on each of them.

The program is that of one device; the compiler adds what devices must tell each other (GSPMD). So normalisation sees
the whole batch, and losses agree with those of one device up to the order of additions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax import Array, lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from hw_models.errors import InputError
from nas.training.recipe import Recipe

AXIS = "batch"


@dataclass(frozen=True)
class Spread:
    """Where batches and weights lie; `mesh` is None on one device, where nothing needs to be said.

    Example:
        >>> Spread(None).rows(np.ones(3)).sum()
        np.float64(3.0)
    """

    mesh: Mesh | None

    def sharding(self, axis: int | None) -> Any:
        """Axis `axis` spread over the devices, or with None everything on each of them; None on one device."""
        if self.mesh is None:
            return None
        return NamedSharding(self.mesh, PartitionSpec() if axis is None else PartitionSpec(*[None] * axis, AXIS))

    def rows(self, x: Array, axis: int = 0) -> Array:
        """Inside jit: `x` with axis `axis` spread over the devices."""
        return x if self.mesh is None else lax.with_sharding_constraint(x, self.sharding(axis))

    def copied(self, tree: Any) -> Any:
        """The arrays of `tree` on every device, in memory of their own, which a step may overwrite."""
        return jax.device_put(tree, self.sharding(None), may_alias=False)

    def placed(self, tree: Any) -> Any:
        """The arrays of `tree` on every device."""
        return jax.device_put(tree, self.sharding(None))


def spread(recipe: Recipe, devices: int | None = None) -> Spread:
    """Over all devices of this process, or the first `devices` of them.

    Raises:
        InputError: the batch, or a part of it where gradients are accumulated, is not divisible by the devices; more
            devices than there are.

    Example:
        >>> spread(Recipe(), devices=1).mesh is None
        True
    """
    found = jax.local_devices()
    if devices is not None and not 1 <= devices <= len(found):
        raise InputError(f"devices={devices} is out of range: give 1 to {len(found)}, what this process sees")
    count = len(found) if devices is None else devices
    part = recipe.batch // recipe.accumulate
    if part % count:
        of = f"batch={recipe.batch}" + (f", in {recipe.accumulate} parts of {part}," if recipe.accumulate > 1 else "")
        step = count * recipe.accumulate
        raise InputError(
            f"{of} cannot be shared equally by {count} devices: give a multiple of {step}, such as "
            f"batch={max(1, round(recipe.batch / step)) * step}"
        )
    return Spread(None if count == 1 else Mesh(np.asarray(found[:count]), (AXIS,)))

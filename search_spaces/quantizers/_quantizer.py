"""The `Quantizer` interface: what a file in `search_spaces/quantizers/` defines.

A quantizer rounds an array as the arithmetic of a device would and gives it back in floating point ("fake
quantization"), with a straight-through gradient. Bits are traced, so that changing them never compiles anew. Integers
themselves are made by `search_spaces/quantizers/_uniform.py`.

Shapes: `x [...]`; `axes` are the axes that share a scale, so that scales have the shape of `x` with those axes of
length 1; `where` is bool, broadcastable to `x`, and says which entries count (all, when None). The others have no part
in any scale and come back as they are, so that padding of zeros stays zero under quantizers that have no 0.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from functools import cached_property, lru_cache
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from hw_models.errors import InputError
from search_spaces.options import check

WEIGHTS, ACTIVATIONS = "weights", "activations"
EXACT_BITS = 32  # from here on numbers stay as they are
SAMPLES, SAMPLE_LENGTHS = 8, (3, 24)  # of `beside_zeros`
ORDER = 1e-5  # what the order of a sum changes at most, of the largest entry


@dataclass(frozen=True)
class Quantizer(ABC):
    """Base of all quantizers. Subclasses are final, frozen dataclasses whose fields are their options.

    Class attributes:
        kind: the name of the file and of the quantizer.
        SERVES: what it can round, of `weights` and `activations`.
        BITS: the least and the most bits it can be asked for, besides 32, which leaves numbers as they are.
    """

    kind: ClassVar[str]
    SERVES: ClassVar[tuple[str, ...]] = (WEIGHTS, ACTIVATIONS)
    BITS: ClassVar[tuple[int, int]] = (2, 16)

    def __post_init__(self) -> None:
        for field in fields(self):
            check(f"{self.kind}.{field.name}", getattr(self, field.name), str(field.type))

    def init(self, x: Array, bits: Any, axes: tuple[int, ...], where: Array | None = None) -> dict[str, Array]:
        """Initial values of what is learned besides `x` (steps, scales, clipping points), from a sample of it.

        They are those of one number of bits: where several are trained, each has its own.
        """
        return {}

    @cached_property
    def learns(self) -> bool:
        """Whether there is something that is learned besides the weights."""
        one = jax.ShapeDtypeStruct((1,), jnp.float32)
        return bool(jax.eval_shape(lambda x: self.init(x, jnp.float32(self.BITS[0]), (0,)), one))

    @cached_property
    def observes(self) -> bool:
        """Whether `observed` finds anything."""
        return bool(jax.eval_shape(lambda x: self.observed(x, (0,)), jax.ShapeDtypeStruct((1,), jnp.float32)))

    @cached_property
    def keeps_zeros(self) -> bool:
        """Whether zeros stay zeros and do not move the levels of others, as channels that are not in use must not."""
        return all(all(beside_zeros(self, bits)) for bits in self.BITS)

    def observed(self, x: Array, axes: tuple[int, ...]) -> dict[str, Array]:
        """Statistics of a batch that evaluation stores and `rounded` finds in `learned` (ranges of activations)."""
        return {}

    @abstractmethod
    def rounded(
        self, x: Array, bits: Array, learned: dict[str, Array], axes: tuple[int, ...], where: Array | None = None
    ) -> Array:
        """`x`, float32 at least, on the levels of `bits` (traced, within `BITS`); gradients pass through."""

    def __call__(
        self, x: Array, bits: Any, learned: dict[str, Array], axes: tuple[int, ...], where: Array | None = None
    ) -> Array:
        """`rounded` in the type of `x`, computed in float32 at least, and `x` itself where `bits` are 32.

        Raises:
            InputError: `bits` is an int that this quantizer does not know; traced ones are clipped to `BITS`.
        """
        if isinstance(bits, int):
            self.check_bits(bits)
            if bits >= EXACT_BITS:
                return x
        wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        rounded = self.rounded(wide, self.inside(bits), learned, axes, where).astype(x.dtype)
        exact = jnp.asarray(bits, jnp.float32) >= EXACT_BITS
        return jnp.where(exact if where is None else exact | ~where, x, rounded)

    def inside(self, bits: Any) -> Array:
        """`bits` within `BITS`, a float32 scalar: the branch that is not taken must stay finite."""
        return jnp.clip(jnp.asarray(bits, jnp.float32), *self.BITS)

    def check_bits(self, bits: int) -> None:
        """Raise InputError unless this quantizer knows `bits`; the nearest that it knows is named."""
        least, most = self.BITS
        if isinstance(bits, bool) or not isinstance(bits, int) or not (least <= bits <= most or bits == EXACT_BITS):
            nearest = least if not isinstance(bits, int | float) or bits < least else most
            known = str(least) if least == most else f"{least} to {most}"
            raise InputError(f"bits={bits!r} are not known to quantizer {self.kind}: give {known}, or {EXACT_BITS} for "
                             f"none (nearest: {nearest})")  # fmt: skip


@lru_cache(maxsize=128)
def beside_zeros(quantizer: Quantizer, bits: int) -> tuple[bool, bool]:
    """Whether zeros leave the rounding of other entries as it is, and whether they stay zeros.

    Tried on arrays of two lengths, of either sign and of both: zeros move means and thresholds in some, and extremes
    only where all entries are on one side. What is learned is that of the array without zeros, and stays.

    Example:
        >>> from search_spaces.quantizers.bwn import Bwn
        >>> from search_spaces.quantizers.symmetric import Symmetric
        >>> beside_zeros(Symmetric(), 4), beside_zeros(Bwn(), 1)
        ((True, True), (False, False))
    """
    rng, same, zero, width = np.random.default_rng(0), True, True, jnp.float32(bits)
    for length in SAMPLE_LENGTHS:
        drawn = rng.normal(size=(SAMPLES, length)).astype(np.float32)
        x = np.concatenate([drawn, np.abs(drawn), -np.abs(drawn)])
        learned = quantizer.init(jnp.asarray(x), width, (1,))
        wide = jnp.asarray(np.pad(x, ((0, 0), (0, length))))
        alone, beside = (np.asarray(quantizer(each, width, learned, (1,))) for each in (jnp.asarray(x), wide))
        # arrays of two shapes may be added up in another order
        same &= bool(np.abs(beside[:, :length] - alone).max() <= ORDER * np.abs(x).max())
        zero &= not beside[:, length:].any()
    return same, zero


def straight_through(x: Array, rounded: Array, slope: Any = 1.0) -> Array:
    """`rounded`, to the last bit, with `slope` times the gradient of `x`.

    Source: Bengio et al. 2013, https://arxiv.org/abs/1308.3432.

    Example:
        >>> jax.grad(lambda x: straight_through(x, jnp.round(x)))(0.4).item()
        1.0
    """
    return _rounded(x, rounded, jnp.asarray(slope))


@jax.custom_jvp
def _rounded(x: Array, rounded: Array, slope: Array) -> Array:
    return rounded


@_rounded.defjvp
def _slope(values: tuple[Array, Array, Array], changes: tuple[Array, Array, Array]) -> tuple[Array, Array]:
    # a rule of its own, where `x - stop_gradient(x)` would leave XLA more to compile and to compute
    x, rounded, slope = values
    return rounded, slope.astype(x.dtype) * changes[0]


def passed(x: Array, slope: Any = 1.0) -> Array:
    """Zeros whose gradient in `x` is `slope`, which counts as constant; `x` has to be finite.

    Example:
        >>> import jax
        >>> jax.value_and_grad(passed)(0.4, 0.5)[1].item()
        0.5
    """
    return lax.stop_gradient(slope) * (x - lax.stop_gradient(x))

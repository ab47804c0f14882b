"""Density as a field of every block: the share of a layer's weights that are kept, or of a block's hidden channels.

A space has one pattern of zeros (`Sparsity`), its blocks have densities: None (dense), a share, or a `Choice`. With the
pattern `channel` a block is built with so many of its hidden channels, in true shapes. All other patterns are masks of
weights: of convolutions, and of linear layers of the head. Depthwise convolutions, convolutions of one input channel
per group and attention stay dense, since they hold few weights and no device skips their zeros.

    n:m           `n` at most of every `m` neighbouring input channels, at every tap and output channel
    unstructured  any weights
    column        one tap of one input channel, the same for all output channels
    kernel        all taps from one input to one output channel; not of 1x1 convolutions, where that is one weight
    block         4 input and 4 output channels at one tap

`n:m` needs input channels (of a group) in multiples of `m`, `block` input and output channels in multiples of 4; other
layers stay dense. So structures of one layer have the same size, and the density of a layer is exact: that of the gene
rounded up to whole structures.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from hw_models.discover import unknown
from hw_models.errors import InputError
from hw_models.workload import Layer, Op, Pattern
from search_spaces.choice import options

CHANNEL = "channel"
PATTERNS = {
    "unstructured": Pattern.UNSTRUCTURED,
    "column": Pattern.COLUMN,
    "kernel": Pattern.KERNEL,
    "block": Pattern.BLOCK,
}
BLOCK = 4  # channels of a block, along inputs and outputs
LARGEST_M = 32
ROUNDING = 1e-9  # a share such as 0.1 of 30 structures must not keep one more


@dataclass(frozen=True)
class Sparsity:
    """Where the zeros of a space lie: `channel`, `n:m` such as `2:4`, `unstructured`, `column`, `kernel` or `block`.

    Raises:
        InputError: an unknown pattern, or numbers that are none of `n:m`.

    Example:
        >>> Sparsity("2:4").n_m, Sparsity("column").n_m
        ((2, 4), None)
        >>> Sparsity("colum")
        Traceback (most recent call last):
        ...
        hw_models.errors.InputError: unknown sparsity 'colum': did you mean 'column'? (known: 2:4, block, channel, \
column, kernel, unstructured)
    """

    pattern: str = CHANNEL

    def __post_init__(self) -> None:
        if not isinstance(self.pattern, str) or (self.pattern not in (CHANNEL, *PATTERNS) and self.n_m is None):
            raise unknown("sparsity", str(self.pattern), sorted((CHANNEL, "2:4", *PATTERNS)))
        if self.n_m is not None and not 1 <= self.n_m[0] < self.n_m[1] <= LARGEST_M:
            raise InputError(
                f"sparsity={self.pattern} is not allowed: give n:m with 1 <= n < m <= {LARGEST_M}, such as 2:4"
            )

    @property
    def n_m(self) -> tuple[int, int] | None:
        """`n` and `m`; None of other patterns."""
        match = re.fullmatch(r"([1-9][0-9]{0,2}):([1-9][0-9]{0,2})", self.pattern)
        return (int(match[1]), int(match[2])) if match else None

    @property
    def channels(self) -> bool:
        """Whether densities are widths of hidden channels rather than masks of weights."""
        return self.pattern == CHANNEL

    @property
    def hardware(self) -> Pattern:
        """How cost models know the zeros: `n_m` is what kernels for 2 of 4 take, `1:2` too; others lie anywhere."""
        if self.n_m is None:
            return PATTERNS[self.pattern]
        return Pattern.N_M if 4 % self.n_m[1] == 0 else Pattern.UNSTRUCTURED

    def check(self, where: str, density: Any) -> None:
        """Raise InputError unless layers can have that `density`; the nearest that they can have is named.

        Example:
            >>> Sparsity("2:4").check("density", 0.4)
            Traceback (most recent call last):
            ...
            hw_models.errors.InputError: density=0.4 is not allowed with 2:4: give 0.25, 0.5 or 1 (nearest: 0.5)
        """
        check_density(where, density)
        if density is None or self.n_m is None:
            return
        n, m = self.n_m
        allowed = [count / m for count in range(1, n + 1)] + [1.0]
        if not any(math.isclose(density, value) for value in allowed):
            nearest = min(allowed, key=lambda value: abs(value - density))
            listed = ", ".join(f"{value:g}" for value in allowed[:-1])
            raise InputError(
                f"{where}={density} is not allowed with {self.pattern}: give {listed} or 1 (nearest: {nearest:g})"
            )

    def units(self, taps: int, inputs: int, outputs: int) -> int:
        """Structures of a layer of `inputs` channels per group, of which a share is kept; 0 where it stays dense.

        Of `n:m` those of one group of `m` channels.

        Example:
            >>> [Sparsity(pattern).units(9, 8, 6) for pattern in ("2:4", "unstructured", "column", "kernel", "block")]
            [4, 432, 72, 48, 0]
        """
        if inputs <= 1 or self.channels:
            return 0
        if self.n_m is not None:
            return 0 if inputs % self.n_m[1] else self.n_m[1]
        if self.pattern == "block":
            return 0 if inputs % BLOCK or outputs % BLOCK else taps * inputs * outputs // BLOCK**2
        if self.pattern == "kernel" and taps == 1:
            return 0
        return {"unstructured": taps * inputs * outputs, "column": taps * inputs, "kernel": inputs * outputs}[
            self.pattern
        ]


def check_density(where: str, density: Any) -> None:
    """Raise InputError unless `density` is None, or above 0 and at most 1.

    Example:
        >>> check_density("density", 50)
        Traceback (most recent call last):
        ...
        hw_models.errors.InputError: density=50 is out of range: give a share above 0 and at most 1 (nearest: 1)
    """
    if density is None:
        return
    if isinstance(density, bool) or not isinstance(density, int | float) or not 0 < density <= 1:
        nearest = " (nearest: 1)" if isinstance(density, int | float) and density > 1 else ""
        raise InputError(f"{where}={density!r} is out of range: give a share above 0 and at most 1{nearest}")


def kept(units: int, density: float | None) -> int:
    """How many of `units` structures a density keeps, rounded up; all of them without one.

    Example:
        >>> kept(30, 0.1), kept(7, 0.5), kept(4, None)
        (3, 4, 4)
    """
    return units if density is None else min(units, max(1, math.ceil(units * density * (1 - ROUNDING))))


def sparse(density: Any) -> bool:
    """Whether one of `density`, a share, None or a `Choice`, leaves anything out.

    Example:
        >>> sparse(0.5), sparse(1), sparse(None)
        (True, False, False)
    """
    return any(value is not None and value < 1 for value in options(density))


def share(layer: Layer, density: float | None, sparsity: Sparsity | None, head: bool = False) -> float:
    """The share of its weights that `layer` keeps, 1 where it stays dense; `head` says that it is one of the head.

    Example:
        >>> share(Layer(Op.CONV, 8, 8, 8, 8, 6, 16), 0.3, Sparsity("column"))
        0.3333333333333333
    """
    if (
        density is None
        or density >= 1
        or sparsity is None
        or not (layer.op == Op.CONV or (head and layer.op == Op.LINEAR))
    ):
        return 1.0
    units = sparsity.units(layer.kernel_h * layer.kernel_w, layer.in_channels // layer.groups, layer.out_channels)
    return kept(units, density) / units if units else 1.0


def in_pattern(
    layers: Iterable[Layer], density: float | None, sparsity: Sparsity | None, head: bool = False
) -> list[Layer]:
    """`layers` with the density and pattern that their weights get; as they are where nothing is left out.

    Example:
        >>> pruned = in_pattern([Layer(Op.CONV, 8, 8, 8, 8, 8, 16)], 0.5, Sparsity("2:4"))[0]
        >>> pruned.density, pruned.pattern.name
        (0.5, 'N_M')
    """
    found = []
    for layer in layers:
        left = share(layer, density, sparsity, head)
        if left < 1:
            assert sparsity is not None
            layer = layer._replace(density=left, pattern=sparsity.hardware)
        found.append(layer)
    return found


def check_layers(layers: Iterable[Layer], density: float | None, sparsity: Sparsity, head: bool = False) -> None:
    """Raise InputError where `density` leaves less than one structure of a layer.

    Example:
        >>> check_layers([Layer(Op.CONV, 8, 8, 8, 8, 8, 16)], 0.1, Sparsity("column"))
        Traceback (most recent call last):
        ...
        hw_models.errors.InputError: density=0.1 leaves less than one of the 8 structures (column) of a layer from 8 \
to 16 channels: give at least 0.125
    """
    for layer in layers:
        if density is None or not (layer.op == Op.CONV or (head and layer.op == Op.LINEAR)):
            continue
        units = sparsity.units(layer.kernel_h * layer.kernel_w, layer.in_channels // layer.groups, layer.out_channels)
        if units and units * density < 1 - ROUNDING:
            least = math.ceil(1e6 / units) / 1e6
            raise InputError(
                f"density={density} leaves less than one of the {units} structures ({sparsity.pattern}) of a layer "
                f"from {layer.in_channels} to {layer.out_channels} channels: give at least {least:g}"
            )

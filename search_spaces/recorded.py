"""Which options a space was made with, kept in the space; and the options that every space has."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any

from hw_models.errors import InputError
from search_spaces.options import annotation_of, check
from search_spaces.precision import Scheme, with_bits
from search_spaces.space import SearchSpace
from search_spaces.sparse_space import with_sparsity

# options that say nothing without another
NEEDS = {
    **dict.fromkeys(("first_last_bits", "weight_quantizer", "act_quantizer", "granularity"), "bits"),
    **dict.fromkeys(("densities", "prune_ends"), "sparsity"),
}


def everywhere(
    *,
    bits: str = "none",
    first_last_bits: int | None = 8,
    weight_quantizer: str = "symmetric",
    act_quantizer: str = "affine",
    granularity: str = "channel",
    sparsity: str = "none",
    densities: str | None = None,
    prune_ends: bool = False,
) -> None:
    """Only the options that every space and every published network has besides its own.

    Args:
        bits: of weights and activations, see `search_spaces.precision.parse_bits`: `none`, `8`, `4/8`, `w4a8`, `mixed`.
        first_last_bits: of the first and the last layer; None for those of all others.
        weight_quantizer, act_quantizer, granularity: see `search_spaces.precision.Scheme`.
        sparsity: where zeros lie, see `search_spaces.density`: `none`, `channel` (fewer hidden channels), `2:4`, `4:8`,
            `unstructured`, `column`, `kernel`, `block`.
        densities: what may be kept, such as `0.25/0.5/1`; see `search_spaces.sparse_space.parse_sparsity`.
        prune_ends: whether the first and the last layer have a density as well.

    Example:
        >>> from search_spaces.spaces import tiny
        >>> tiny.space(bits="2/8").decode([1] * 12)["stages/0/0/weight_bits"]
        8
    """


def recorded(factory: Callable[..., SearchSpace]) -> Callable[..., SearchSpace]:
    """Decorator of `space(...)` and `network(...)` functions: keeps the options that are not defaults in the space.

    They become part of its network texts (`quickstart[classes=5]:...`), so that a text names the same space again. The
    options of `everywhere` are added to those of the function.

    Example:
        >>> from search_spaces.spaces import tiny
        >>> tiny.space(classes=5).options, tiny.space(classes=10).options
        ((('classes', 5),), ())
    """
    own = inspect.signature(factory)
    added = dict(inspect.signature(everywhere).parameters)
    signature = own.replace(parameters=[*own.parameters.values(), *added.values()])

    @functools.wraps(factory)
    def build(*args: Any, **kwargs: Any) -> SearchSpace:
        given = signature.bind(*args, **kwargs).arguments
        for name, value in given.items():
            annotation = annotation_of(signature.parameters[name])
            check(name, value, annotation)
            if annotation == "float":
                given[name] = float(value)  # 2 and 2.0 are one space, with one text
            elif isinstance(value, list):
                given[name] = tuple(value)
        changed = {name: value for name, value in given.items() if value != signature.parameters[name].default}
        space = factory(**{name: value for name, value in given.items() if name not in added})
        asked = {name: given.get(name, entry.default) for name, entry in added.items()}
        for master, does in (("bits", "rounds"), ("sparsity", "prunes")):
            needless = [name for name in changed if NEEDS.get(name) == master]
            if needless and asked[master] == "none":
                raise InputError(
                    f"{needless[0]}={changed[needless[0]]} {does} nothing without {master}: give {master} as well"
                )
        space = with_sparsity(space, asked["sparsity"], asked["densities"], asked["prune_ends"])
        scheme = Scheme(asked["weight_quantizer"], asked["act_quantizer"], asked["granularity"])
        space = with_bits(space, asked["bits"], asked["first_last_bits"], scheme)
        return dataclasses.replace(space, options=tuple(sorted(changed.items())))

    build.__signature__ = signature  # type: ignore[attr-defined]
    return build

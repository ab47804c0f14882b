"""Error and costs joined into one number to minimise, for strategies that rank by one.

    mnasnet_soft[exponent=-0.07]      accuracy * product of (cost / target)^exponent
    mnasnet_hard[exponent=-1]         the same, only where a cost exceeds its target
    absolute[weight=2]                accuracy - weight * sum of |cost / target - 1|: lands on the targets
    product[latency_s=-0.07,...]      accuracy * product of cost^exponent
    fbnet[alpha=0.2,beta=0.6,unit_s=1e-6]  error * alpha * log(1 + latency / unit)^beta

Rewards are maximised in the papers; here their negatives are minimised, as everything is.

References: Tan et al. 2019, "MnasNet", https://arxiv.org/abs/1807.11626, equations 2 and 3. Bender et al. 2020,
"TuNAS", https://arxiv.org/abs/2008.06120, section 4 (absolute reward). Tan and Le 2021, "EfficientNetV2",
https://arxiv.org/abs/2104.00298, section 3.3 (product; its S is the time of a training step, where this takes the
latency of inference). Wu et al. 2019, "FBNet", https://arxiv.org/abs/1812.03443, equation 3.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import jax.numpy as jnp
from jax import Array

from hw_models.discover import unknown
from hw_models.errors import InputError
from search_spaces.options import bracketed

Values = Mapping[str, Array]  # error and costs of one candidate by name, each `[]`
Join = Callable[[Values], Array]

# every reward and its options; those of `product` are names of costs
DEFAULTS: dict[str, dict[str, float]] = {
    "mnasnet_soft": {"exponent": -0.07},
    "mnasnet_hard": {"exponent": -1.0},
    "absolute": {"weight": 2.0},
    "product": {"latency_s": -0.07, "params": -0.05},
    "fbnet": {"alpha": 0.2, "beta": 0.6, "unit_s": 1e-6},
}
_LANDING = ("mnasnet_soft", "mnasnet_hard", "absolute")


def reward(text: str, costs: Sequence[str], targets: Mapping[str, float]) -> Join:
    """The function that joins error and `costs` by the reward that `text` names, to be minimised; differentiable.

    Raises:
        InputError: an unknown reward, option or cost, a number that is not finite, a reward that goes by targets
            without any, targets with one that does not.

    Example:
        >>> join = reward("mnasnet_soft", ["latency_s"], {"latency_s": 0.01})
        >>> round(float(join({"error": jnp.float32(0.2), "latency_s": jnp.float32(0.02)})), 4)
        -0.7621
        >>> reward("absolute", ["latency_s"], {})
        Traceback (most recent call last):
        ...
        hw_models.errors.InputError: scalar absolute goes by targets and there is none: give targets.latency_s=...
    """
    name, given = bracketed(text, "scalar")
    if name not in DEFAULTS:
        raise unknown("scalar", name, DEFAULTS)
    options = _options(name, given, costs)
    if name in _LANDING and not targets:
        raise InputError(f"scalar {name} goes by targets and there is none: give targets.{costs[0]}=...")
    if name not in _LANDING and targets:
        raise InputError(
            f"scalar {name} has no use for targets ({', '.join(targets)}): drop them, or take one of "
            f"{', '.join(_LANDING)}"
        )
    aims = dict(targets)
    if name == "absolute":
        return lambda values: (
            values["error"]
            - 1.0
            + options["weight"]
            * sum((jnp.abs(values[cost] / aim - 1.0) for cost, aim in aims.items()), jnp.float32(0.0))
        )
    if name == "fbnet":
        latencies = _of_field("latency_s", costs)
        return lambda values: (
            values["error"]
            * options["alpha"]
            * math.prod(
                (jnp.log1p(values[cost] / options["unit_s"]) ** options["beta"] for cost in latencies),
                start=jnp.float32(1.0),
            )
        )
    if name == "product":
        powers = {cost: power for field, power in options.items() for cost in _of_field(field, costs)}
        return lambda values: (
            (values["error"] - 1.0)
            * math.prod((values[cost] ** power for cost, power in powers.items()), start=jnp.float32(1.0))
        )
    hard, power = name == "mnasnet_hard", options["exponent"]

    def factor(ratio: Array) -> Array:
        return jnp.maximum(ratio, 1.0) ** power if hard else ratio**power

    return lambda values: (
        (values["error"] - 1.0)
        * math.prod((factor(values[cost] / aim) for cost, aim in aims.items()), start=jnp.float32(1.0))
    )


def _of_field(field: str, costs: Sequence[str]) -> list[str]:
    """The cost of that name, or that of every device where there are several."""
    return [cost for cost in costs if cost == field or cost.partition("@")[0] == field]


def _options(name: str, given: Mapping[str, str], costs: Sequence[str]) -> dict[str, float]:
    fields = {cost.partition("@")[0] for cost in costs} | set(costs)
    known = fields if name == "product" else set(DEFAULTS[name])
    numbers = {}
    for option, text in given.items():
        if option not in known:
            raise unknown(f"option of scalar {name}", option, sorted(known))
        try:
            numbers[option] = float(text)
        except ValueError:
            numbers[option] = math.nan
        positive = name == "fbnet" or option == "weight"
        right = numbers[option] > 0 if positive else numbers[option] < 0  # above 0 an exponent rewards what is slow
        if not math.isfinite(numbers[option]) or not right:
            allowed = f"a number {'above' if positive else 'below'} 0"
            raise InputError(f"scalar {name}: {option}={text} is not allowed: give {allowed}")
    return numbers if name == "product" and numbers else {**DEFAULTS[name], **numbers}

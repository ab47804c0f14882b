"""Every strategy in the folder passes the shipped checks; a new file is tested without being listed here."""

from functools import cache, partial

import pytest

from hw_models import discover
from nas.testing import (
    STRATEGY_CHECKS,
    check_beats_random,
    check_large_population,
    check_nan_never_wins,
    check_no_recompilation,
    check_other_key,
)

STRATEGIES = discover.names("nas.strategies")


@cache
def _make(name):
    # one strategy object per size, because each is compiled anew
    return cache(discover.load("nas.strategies", name, "strategy"))


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize("check", STRATEGY_CHECKS, ids=lambda check: check.__name__)
def test_strategy_passes(name, check):
    if name == "exhaustive" and check is check_other_key:
        pytest.skip("the order of all networks is no matter of chance")
    if check is check_large_population:
        check = partial(check, population=1024)  # 4,096 take half a minute: below
    check(_make(name))


@pytest.mark.slow
@pytest.mark.parametrize("name", STRATEGIES)
def test_a_population_of_4096_works(name):
    check_large_population(_make(name))


# the baseline itself, the one that needs the whole space (16 million networks here), and the one that saves training,
# which the toy problem has none of
NOT_BETTER = ("random_search", "exhaustive", "successive_halving")


@pytest.mark.parametrize("name", [name for name in STRATEGIES if name not in NOT_BETTER])
def test_strategy_beats_random_search(name):
    check_beats_random(_make(name))


def test_random_search_does_not_beat_itself():
    with pytest.raises(AssertionError, match="hypervolume"):
        check_beats_random(_make("random_search"), seeds=(0, 1))


def _with(name, **changes):
    """A strategy factory with some of its functions replaced by `change(original)`."""

    def make(space, **options):
        plan = _make(name)(space, **options)
        return plan._replace(bind=None, **{field: change(plan) for field, change in changes.items()})

    return make


def test_the_recompilation_check_sees_a_weakly_typed_state():
    import jax.numpy as jnp

    def grown(plan):
        return lambda state, proposal, feedback: (jnp.float32(state[0] + 1), plan.tell(state[1], proposal, feedback))

    def asked(plan):
        def ask(key, state):
            inner, proposal = plan.ask(key, state[1])
            return (state[0], inner), proposal

        return ask

    make = _with("random_search", init=lambda p: lambda key: (jnp.inf, p.init(key)), ask=asked, tell=grown)
    with pytest.raises(AssertionError, match="traced again"):
        check_no_recompilation(make)


def test_the_nan_check_sees_a_strategy_that_trusts_everything():
    import jax.numpy as jnp

    def trusting(plan):
        def tell(state, proposal, feedback):
            clean = jnp.nan_to_num(feedback.objectives, nan=-1.0, posinf=-1.0)
            fake = feedback._replace(objectives=clean, valid=jnp.ones_like(feedback.valid))
            return plan.tell(state, proposal, fake)

        return tell

    with pytest.raises(AssertionError, match="failed candidate"):
        check_nan_never_wins(_with("nsga2", tell=trusting))


def test_options_reach_the_description():
    from nas.toy import ToySpace

    for name in STRATEGIES:
        plan = partial(_make(name), ToySpace())(population=5)
        assert plan.name == name and plan.describe["population"] == 5

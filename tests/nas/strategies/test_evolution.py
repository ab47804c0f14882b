"""What each way of evolving promises beyond the contract: who dies, who has children, who stays."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hw_models.errors import InputError
from nas import pareto
from nas.strategies import nsga2, nsga3, random_search, regularized_evolution, tournament_evolution
from nas.strategies.nsga3 import directions, nearest_to_directions
from nas.toy import ToySpace, toy_error, toy_objective
from nas.types import bound

SPACE = ToySpace()
BOTH, ALONE = toy_objective(SPACE), toy_objective(SPACE, ("error",))
KEY = jax.random.key(0)


def _told(plan, goal, state, key):
    state, proposal = plan.ask(key, state)
    error = jax.vmap(toy_error)(proposal.genes)
    return plan.tell(state, proposal, goal.feedback(error, goal.price(proposal.genes), jnp.ones(len(error), bool)))


@pytest.mark.parametrize("module", [nsga2, nsga3], ids=["nsga2", "nsga3"])
def test_a_front_needs_two_objectives(module):
    plan = module.strategy(SPACE, population=4)
    with pytest.raises(InputError, match="names error only: name a cost as well, such as .*regularized_evolution"):
        bound(plan, ALONE)
    assert bound(plan, BOTH).name == plan.name


@pytest.mark.parametrize(
    ("module", "options", "message"),
    [
        (nsga2, {"population": 0}, "population 0 is not allowed: give a whole number from 1 to 4096"),
        (nsga2, {"crossover_rate": 1.5}, "crossover_rate 1.5"),
        (nsga3, {"mutation_rate": 0}, "mutation_rate 0 is not allowed: give a number above 0 to 1"),
        (regularized_evolution, {"population": 4, "batch": 5}, "batch 5 is more than the population of 4"),
        (regularized_evolution, {"sample": 0}, "sample 0 is not allowed"),
        (tournament_evolution, {"crossover_rate": -1}, "crossover_rate -1"),
        (random_search, {"population": 4097}, "population 4097"),
    ],
)
def test_options_out_of_range_are_named(module, options, message):
    with pytest.raises(InputError, match=message):
        module.strategy(SPACE, **options)


def test_the_oldest_die_however_good():
    plan = bound(regularized_evolution.strategy(SPACE, population=8, batch=4, sample=3), ALONE)
    state = plan.init(KEY)
    for t in range(2):  # the first eight are judged
        state = _told(plan, ALONE, state, jax.random.key(t))
    best = int(jnp.argmin(state.living.objectives[:, 0]))
    first = np.asarray(state.living.genes[best])
    for t in range(2, 4):
        state = _told(plan, ALONE, state, jax.random.key(t))
    assert not (np.asarray(state.living.genes) == first).all(1).any(), "the best of the first generation is still alive"
    known = np.asarray(jax.vmap(SPACE.canonical)(first[None]))[0]
    remembered = np.asarray(plan.final(state))
    better = float(jnp.sort(state.best.objectives[:, 0])[-1])
    assert (remembered == known).all(1).any() or better < float(toy_error(jnp.asarray(first))), "the answer forgot it"


def test_the_worse_of_two_makes_room():
    plan = bound(tournament_evolution.strategy(SPACE, population=8), ALONE)
    state = plan.init(KEY)
    for t in range(2):
        state = _told(plan, ALONE, state, jax.random.key(t))
    before = np.asarray(state.living.objectives[:, 0])
    _, proposal = plan.ask(jax.random.key(9), state)
    places = np.asarray(proposal.aux.places)
    assert len(set(places.tolist())) == 4
    best = int(before.argmin())
    assert best not in places and int(before.argmax()) in places


def test_directions_are_a_regular_grid():
    for objectives, most in ((2, 12), (3, 91), (5, 70)):
        grid = directions(objectives, most)
        assert len(grid) <= most and len(np.unique(grid, axis=0)) == len(grid)
        np.testing.assert_allclose(grid.sum(1), 1)
    assert len(directions(3, 91)) == 91  # 12 divisions, the number in the paper's table 1


def _niching(points, rank, count):
    """Rows that the paper keeps (algorithms 3 and 4, the nearest of a direction), all directions and distances."""
    grid = directions(points.shape[1], count)
    front = points[rank == 0]
    low, high = points.min(0), front.max(0)
    scaled = (points - low) / np.where(high > low, high - low, 1)
    lines = (grid + 1e-6) / np.linalg.norm(grid + 1e-6, axis=1, keepdims=True)
    far = np.linalg.norm(scaled[:, None] - (scaled @ lines.T)[..., None] * lines[None], axis=2)
    niche, distance = far.argmin(1), far.min(1)
    last = np.sort(rank)[count - 1]
    kept = list(np.flatnonzero(rank < last))
    held = np.bincount(niche[kept], minlength=len(grid))
    left = set(np.flatnonzero(rank == last))
    while len(kept) < count:
        direction = min({int(niche[row]) for row in left}, key=lambda d: held[d])
        row = min((row for row in left if niche[row] == direction), key=lambda row: distance[row])
        left.remove(row)
        kept.append(row)
        held[direction] += 1
    return kept, niche, distance


def test_directions_are_served_as_in_the_paper():
    rng = np.random.default_rng(0)
    for _ in range(5):
        points = rng.random((40, 3)).astype(np.float32)
        rank = np.asarray(pareto.ranks(points, np.zeros(40)))
        kept, niche, far = _niching(points.astype(np.float64), rank, 15)
        rows, _, _ = nearest_to_directions(jnp.asarray(points), jnp.zeros(40), jnp.ones(40, bool), 15)
        ours = np.asarray(rows)
        assert len(set(ours.tolist())) == 15 and (np.sort(rank[ours]) == np.sort(rank[kept])).all()
        # where several directions are equally poor, which of them is served last is open, but not how many there are
        held = [np.sort(np.bincount(niche[side], minlength=15)).tolist() for side in (ours, kept)]
        assert held[0] == held[1]
        for direction in set(niche[ours].tolist()):
            last = [row for row in np.flatnonzero(niche == direction) if rank[row] == rank[kept].max()]
            taken = {int(row) for row in ours if row in last}
            assert taken == set(sorted(last, key=lambda row: far[row])[: len(taken)]), "not the nearest"


def test_random_search_stays_within_a_tight_limit():
    goal = toy_objective(SPACE, limits={"params": 4.0})
    plan = bound(random_search.strategy(SPACE, population=64), goal)
    _, proposal = plan.ask(jax.random.key(1), plan.init(KEY))
    within = np.asarray(goal.price(proposal.genes).violation) == 0
    free = np.asarray(goal.price(jax.vmap(SPACE.sample)(jax.random.split(KEY, 512))).violation) == 0
    assert within.mean() > 0.95 > 0.2 > free.mean()

"""Ranks, crowding, fronts and the knee against brute force, moocore and hand-computed cases."""

import jax
import jax.numpy as jnp
import moocore
import numpy as np
import pytest

from hw_models.errors import InputError
from nas import pareto

# as a search runs them: one program each, for every shape
ranks, crowding = jax.jit(pareto.ranks), jax.jit(pareto.crowding)
best_of = jax.jit(pareto.best_of, static_argnums=3)


def _dominates(a, b, va, vb):
    if va != vb:
        return va < vb
    return va == 0 and bool((a <= b).all() and (a < b).any())


def _brute_ranks(objectives, violation):
    left, rank, found = set(range(len(objectives))), 0, {}
    while left:
        front = [
            i
            for i in left
            if not any(_dominates(objectives[j], objectives[i], violation[j], violation[i]) for j in left)
        ]
        for i in front:
            found[i] = rank
        left -= set(front)
        rank += 1
    return [found[i] for i in range(len(objectives))]


def _table(seed, rows, columns, levels):
    rng = np.random.default_rng(seed)
    return rng.integers(0, levels, (rows, columns)).astype(np.float32)


@pytest.mark.parametrize("rows", [1, 2, 31, 33, 70])
@pytest.mark.parametrize("columns", [1, 2, 3])
def test_ranks_equal_brute_force_with_limits_and_ties(rows, columns):
    objectives = _table(rows, rows, columns, 6)
    violation = np.maximum(_table(rows + 1, rows, 1, 6)[:, 0] - 3, 0)
    assert ranks(objectives, violation).tolist() == _brute_ranks(objectives, violation)


def test_ranks_equal_moocore_without_limits():
    objectives = np.random.default_rng(0).random((500, 3)).astype(np.float32)
    expected = moocore.pareto_rank(objectives)
    assert np.array_equal(ranks(objectives, jnp.zeros(500)), expected)


def test_feasible_before_infeasible_before_failed_before_nothing():
    objectives = jnp.asarray([[9.0, 9.0], [0.0, 0.0], [0.0, 0.0], [jnp.inf, jnp.inf], [jnp.nan, 0.0], [1.0, 1.0]])
    violation = jnp.asarray([0.0, 0.1, 2.0, jnp.inf, 0.0, jnp.nan])
    assert ranks(objectives, violation).tolist() == [0, 1, 2, 3, 3, 3]


def test_only_infeasible_rows_still_rank_from_zero():
    assert ranks(jnp.full((3, 2), jnp.inf), jnp.asarray([2.0, 1.0, 2.0])).tolist() == [1, 0, 1]


def _brute_crowding(objectives, rank):
    total = np.zeros(len(objectives))
    for front in set(rank):
        rows = np.flatnonzero(rank == front)
        for m in range(objectives.shape[1]):
            order = rows[np.argsort(objectives[rows, m], kind="stable")]
            values = objectives[order, m]
            total[order[0]] = total[order[-1]] = np.inf
            if values[-1] > values[0]:
                total[order[1:-1]] += (values[2:] - values[:-2]) / (values[-1] - values[0])
    return total


@pytest.mark.parametrize("columns", [1, 2, 4])
def test_crowding_equals_brute_force(columns):
    objectives = np.random.default_rng(1).random((60, columns)).astype(np.float32)
    rank = np.asarray(ranks(objectives, np.zeros(60)))
    ours = np.asarray(crowding(objectives, rank))
    np.testing.assert_allclose(ours, _brute_crowding(objectives, rank), rtol=1e-5)


def test_best_of_takes_whole_fronts_then_the_loneliest():
    objectives = jnp.asarray([[0.0, 10.0], [1.0, 9.0], [1.1, 8.9], [5.0, 5.0], [10.0, 0.0], [11.0, 11.0]])
    rows, rank, _ = best_of(objectives, jnp.zeros(6), jnp.ones(6, bool), 4)
    assert set(rows.tolist()) == {0, 2, 3, 4} and rank.tolist() == [0, 0, 0, 0, 0, 1]


def test_best_of_puts_unusable_rows_last():
    rows, _, _ = best_of(jnp.asarray([[0.0], [1.0], [2.0]]), jnp.zeros(3), jnp.asarray([False, True, True]), 3)
    assert rows.tolist() == [1, 2, 0]


@pytest.mark.parametrize("columns", [1, 2, 3, 5])
def test_front_equals_brute_force_and_the_first_rank(columns):
    table = _table(columns, 80, columns, 5)
    brute = [not any(_dominates(b, a, 0, 0) for b in table) for a in table]
    assert pareto.non_dominated(table).tolist() == brute
    assert (np.asarray(ranks(table, np.zeros(80))) == 0).tolist() == brute


def test_nan_and_infinite_rows_never_enter_front_or_hypervolume():
    table = [[np.nan, 0.0], [-np.inf, 0.0], [np.inf, 0.0], [1.0, 1.0]]
    assert pareto.non_dominated(table).tolist() == [False, False, False, True]
    assert pareto.hypervolume(table, [2.0, 2.0]) == 1.0
    assert not pareto.non_dominated([[np.nan, 1.0]]).any()


def _grid_volume(points, reference):
    """Counts unit cells that some integer point dominates."""
    cells = np.stack(np.meshgrid(*[np.arange(r) for r in reference], indexing="ij"), -1).reshape(-1, len(reference))
    return sum(bool((points <= cell).all(axis=1).any()) for cell in cells)


@pytest.mark.parametrize("columns", [1, 2, 3, 4])
def test_hypervolume_counts_cells(columns):
    points = _table(columns, 12, columns, 8)
    assert pareto.hypervolume(points, [6.0] * columns) == pytest.approx(_grid_volume(points, [6] * columns))


def test_hypervolume_refuses_a_reference_that_does_not_fit():
    for reference in ([1.0], [1.0, float("nan")]):
        with pytest.raises(InputError, match="2 finite numbers"):
            pareto.hypervolume([[0.0, 0.0]], reference)


def test_knee_is_farthest_from_the_line_whatever_the_units():
    front = np.asarray([[0.0, 1.0], [0.1, 0.4], [0.3, 0.25], [1.0, 0.0]])
    distance = (1 - front.sum(axis=1)) / np.sqrt(2)
    assert pareto.knee(front) == int(np.argmax(distance)) == 1
    assert pareto.knee(front * [1e-9, 1e6] + [5, -3]) == 1


def test_knee_of_a_concave_front_is_nearest_to_utopia():
    angle = np.linspace(0, np.pi / 2, 5)
    front = np.stack([1 - (1 - np.sin(angle)) ** 1, np.cos(angle)], axis=1)
    assert pareto.knee(front) in (0, 4)
    bulge = np.asarray([[0.0, 1.0], [0.7, 0.7], [0.6, 0.72], [1.0, 0.0]])
    assert pareto.knee(bulge) == 2


def test_knee_ignores_dominated_and_broken_rows_and_works_in_one_and_three_dimensions():
    assert pareto.knee([[5.0], [2.0], [np.nan]]) == 1
    cube = [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0.1, 0.1, 0.1], [0.2, 0.2, 0.2]]
    assert pareto.knee(cube) == 3
    with pytest.raises(InputError, match="no knee"):
        pareto.knee([[np.nan, 1.0]])


def test_a_few_thousand_rows_rank_and_nothing_is_traced_twice():
    traces = []

    @jax.jit
    def both(objectives, violation):
        traces.append(1)
        rank = pareto.ranks(objectives, violation)
        return rank, pareto.crowding(objectives, rank)

    rng = np.random.default_rng(0)
    for _ in range(2):
        objectives = rng.random((4096, 2)).astype(np.float32)
        rank, _ = both(objectives, np.zeros(4096, np.float32))
    assert len(traces) == 1
    assert np.array_equal(rank, moocore.pareto_rank(objectives))


def _epsilon(points, front, scale):
    return max(
        min(max((p - f) / s for p, f, s in zip(point, row, scale, strict=True)) for point in points) for row in front
    )


@pytest.mark.parametrize("columns", [1, 2, 3, 5])
def test_epsilon_indicator_equals_its_definition_whatever_the_units(columns):
    rng = np.random.default_rng(columns)
    points, front = rng.random((30, columns)), rng.random((20, columns))
    front = front[pareto.non_dominated(front)]
    scale = np.ptp(front, axis=0) if len(front) > 1 else np.ones(columns)
    value = pareto.epsilon_indicator(points, front)
    assert value == pytest.approx(_epsilon(points, front, scale), rel=1e-12)
    assert pareto.epsilon_indicator(front, front) == 0
    if len(front) > 1:
        units = 10.0 ** np.arange(columns) * 1e-3
        assert pareto.epsilon_indicator(points * units, front * units) == pytest.approx(value, rel=1e-9)
        assert pareto.epsilon_indicator(front - 0.1 * scale, front) == pytest.approx(-0.1, rel=1e-9)


def test_epsilon_indicator_leaves_broken_rows_out_and_names_what_is_missing():
    front, nan = [[0.0, 1.0], [1.0, 0.0]], float("nan")
    assert pareto.epsilon_indicator([[0.5, 0.5], [nan, -9.0]], [*front, [nan, 0.0]]) == 0.5
    assert pareto.epsilon_indicator([[nan, 0.0]], front) == float("inf")
    # a dominated row far away does not change what an extent is worth
    assert pareto.epsilon_indicator([[0.5, 0.5]], [*front, [100.0, 100.0]]) == 0.5
    with pytest.raises(InputError, match="nothing to compare with"):
        pareto.epsilon_indicator(front, [[nan, 1.0]])
    with pytest.raises(InputError, match="2 objectives do not go with a front of 3"):
        pareto.epsilon_indicator(front, [[1.0, 1.0, 1.0]])


def test_the_merged_front_is_that_of_all_rows_and_knows_where_they_come_from():
    tables = [_table(seed, 40, 3, 9) for seed in range(4)]
    points, search = pareto.merged_front(tables)
    every = np.concatenate(tables)
    np.testing.assert_array_equal(points, np.unique(every[pareto.non_dominated(every)], axis=0))
    for row, origin in zip(points, search, strict=True):
        holders = [number for number, table in enumerate(tables) if (table == row).all(1).any()]
        assert origin == min(holders)
    empty, nobody = pareto.merged_front([np.empty((0, 2))])
    assert empty.shape == (0, 2) and len(nobody) == 0
    with pytest.raises(InputError, match="2, 3 objectives do not go together"):
        pareto.merged_front([np.zeros((1, 2)), np.zeros((1, 3))])


@pytest.mark.parametrize(("columns", "searches"), [(2, 3), (2, 7), (3, 5)])
def test_attainment_is_reached_by_so_many_searches_and_nothing_better_is(columns, searches):
    tables = [_table(seed, 12, columns, 6) for seed in range(searches)]
    grid = np.stack(np.meshgrid(*[np.arange(7)] * columns), -1).reshape(-1, columns)
    reached = sum((table[:, None] <= grid[None]).all(-1).any(0).astype(int) for table in tables)
    for needed in range(1, searches + 1):
        surface = pareto.attainment(tables, needed / searches)
        below = (surface[:, None] <= grid[None]).all(-1).any(0)
        np.testing.assert_array_equal(below, reached >= needed)
        assert pareto.non_dominated(surface).all()


def test_attainment_counts_searches_that_found_nothing():
    found, nothing = [[1.0, 1.0]], [[float("nan"), 1.0]]
    assert pareto.attainment([found, nothing], 0.5).tolist() == [[1.0, 1.0]]
    assert pareto.attainment([found, nothing], 1).shape == (0, 2)
    for tables, share, message in (
        ([], 0.5, "no search"),
        ([found], 0, "share=0 is not allowed"),
        ([found], 1.5, "share=1.5 is not allowed"),
        ([[[1.0]]], 0.5, "2 or 3 objectives, not 1"),
    ):
        with pytest.raises(InputError, match=message):
            pareto.attainment(tables, share)

"""The ensemble behind the surrogate, on published accuracies."""

import numpy as np
import pytest
from scipy.stats import kendalltau

from hw_models.errors import InputError
from nas.evaluators import tabular
from nas.surrogate import features, fit
from search_spaces.spaces import macro, tiny


@pytest.fixture(scope="module")
def published():
    space = macro.space()
    genes = tabular.networks(space)
    order = np.random.default_rng(1).permutation(len(genes))
    genes = genes[order]
    return space, genes, np.asarray(tabular.evaluator(space).evaluate(None, (), genes, None).error)


@pytest.fixture(scope="module")
def ensemble(published):
    space, genes, errors = published
    return fit(space, genes[:150], errors[:150])


def test_it_ranks_networks_that_it_has_not_seen_and_knows_how_well(published, ensemble):
    _, genes, errors = published
    found = ensemble.predict(genes[150:2000])
    tau = kendalltau(found.error, errors[150:2000]).statistic
    rmse = np.sqrt(np.mean(np.square(found.error - errors[150:2000])))
    assert tau > 0.8
    assert ensemble.quality.kendall_tau == pytest.approx(tau, abs=0.06)
    assert ensemble.quality.rmse == pytest.approx(rmse, rel=0.35)
    assert ensemble.quality.networks > 140
    within = (np.abs(found.error - errors[150:2000]) <= found.deviation).mean()
    assert 0.5 < within < 0.85, "about two thirds lie within one standard deviation"


def test_rows_do_not_depend_on_their_company_and_fits_repeat_exactly(published, ensemble):
    space, genes, errors = published
    together = ensemble.predict(genes[150:180])
    for row in (0, 7, 29):
        alone = ensemble.predict(genes[150 + row : 151 + row])
        assert alone.error[0] == together.error[row] and alone.deviation[0] == together.deviation[row]
    again = fit(space, genes[:150], errors[:150]).predict(genes[150:180])
    assert np.array_equal(again.error, together.error) and np.array_equal(again.deviation, together.deviation)


def test_scores_below_zero_are_predicted_as_they_are(published):
    space, genes, errors = published
    ensemble = fit(space, genes[:60], errors[:60] - 5.0)
    assert not ensemble.logarithmic and ensemble.predict(genes[:60]).error.mean() < -4


def test_errors_that_are_all_the_same_have_no_rank(published):
    space, genes, _ = published
    found = fit(space, genes[:20], np.full(20, 0.25))
    assert np.isnan(found.quality.kendall_tau) and found.quality.rmse < 1e-6
    assert found.predict(genes[:3]).error == pytest.approx([0.25] * 3)


def test_dead_decisions_have_no_features():
    space = tiny.space()
    assert space.names[-1] == "stages/1/1/heads"
    shallow, deep = features(space, [[0, 0, 0, 0, 0, 0], [0, 0, 0, 1, 0, 0]])
    assert shallow[11:14].tolist() == [0, 0, 0] and deep[11:14].tolist() == [1, 0, 0]


def test_too_few_networks_and_failures_are_refused(published):
    space, genes, errors = published
    with pytest.raises(InputError, match="9 networks are too few"):
        fit(space, genes[:9], errors[:9])
    with pytest.raises(InputError, match="error nan is not finite"):
        fit(space, genes[:12], np.where(np.arange(12) == 3, np.nan, errors[:12]))

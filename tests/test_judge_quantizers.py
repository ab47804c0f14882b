"""The experiment on quantizers: its network, its file, its table."""

import doctest
import json

import pytest

from hw_models.errors import InputError


@pytest.fixture(scope="module")
def judge(scripts_by_name):
    import judge_quantizers

    return judge_quantizers


def test_its_examples_hold(judge):
    import kept_results

    assert doctest.testmod(judge).failed == doctest.testmod(kept_results).failed == 0
    for case in judge.CASES:
        judge.network(case)


def test_what_was_trained_is_kept_and_goes_with_its_settings(judge, monkeypatch, tmp_path):
    done, file = [], tmp_path / "new" / "quantizers.json"
    monkeypatch.setattr(judge, "trained", lambda space, *rest: done.append(space.scheme) or 10.0 + len(done))
    monkeypatch.setattr(judge, "load", lambda name: None)
    monkeypatch.setattr(judge, "split", lambda *rest: None)
    cases, settings = [judge.FLOAT, "symmetric affine w8a4"], judge.Settings()
    assert judge.errors(cases, 1, settings, file) == {cases[0]: {"0": 11.0}, cases[1]: {"0": 12.0}}
    judge.errors(cases, 2, settings, file)
    assert len(done) == 4 and json.loads(file.read_text())["rows"][cases[0]] == {"0": 11.0, "1": 13.0}
    with pytest.raises(InputError, match="holds results of"):
        judge.errors(cases, 1, settings._replace(epochs=1), file)


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("affine w8a4", "give two quantizers and bits"),
        ("symetric affine w8a4", "did you mean 'symmetric'"),
        ("symmetric affine w2/4a8", "leaves bits open"),
    ],
)
def test_other_cases_are_refused(judge, case, words):
    with pytest.raises(InputError, match=words):
        judge.network(case)


@pytest.mark.parametrize(
    ("ends", "said"), [(InputError("no"), "error: no"), (KeyboardInterrupt(), "stopped; the same command goes on")]
)
def test_commands_end_in_one_line(judge, ends, said):
    def main():
        raise ends

    with pytest.raises(SystemExit) as end:
        judge.run_main(main)
    assert end.value.code == said

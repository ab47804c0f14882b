"""`--set path=value`: change single settings of an experiment, checked as strictly as the configuration itself.

A path is dotted (`strategy.population`, `limits.latency_s`, `final.epochs`) or, where only one setting ends in it, its
last part (`population`). Options that the configuration leaves at their default can be set too.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.config import TARGETS, Experiment, Use, check, final_settings, parameters, setting_names, settings_of
from search_spaces.options import OPEN, annotation_of, typed

OPEN_ENDED = ("limits", "targets")  # numbers by name of an objective


def override(experiment: Experiment, changes: Sequence[str]) -> Experiment:
    """The experiment with `changes` of the form `path=value` applied from left to right.

    Values are Python literals, anything else is text; a list of names may be written `a,b`. Where another strategy,
    evaluator or space is named, it takes over those arguments of the old one that it knows as well.

    Raises:
        InputError: a path that is unknown or stands for several settings (which are listed), a value of another type.

    Example:
        >>> from experiments.config import load_config
        >>> override(load_config("tiny"), ["population=4", "limits.latency_s=0.01"]).strategy
        Use(name='nsga2', arguments={'population': 4})
    """
    from hw_models.errors import InputError

    # a target that is replaced decides which other paths there are, wherever it stands in the list; then its base
    ordered = sorted(changes, key=_rank)
    for change in ordered:
        path, equals, text = change.partition("=")
        if not equals or not path.strip():
            raise InputError(f"--set '{change}' is not allowed: give path=value, such as steps=20")
        experiment = _apply(experiment, path.strip(), text.strip())
    check(experiment)
    return experiment


def _rank(change: str) -> int:
    path = change.partition("=")[0].strip()
    return 0 if path in TARGETS else 1 if path.rpartition(".")[2] == "base" else 2


def settable(experiment: Experiment) -> dict[str, Any]:
    """Every path that can be set and its current value; limits and targets also of names that have none yet.

    Example:
        >>> from experiments.config import load_config
        >>> settable(load_config("tiny"))["strategy.population"]
        8
    """
    from hw_models.costs import Costs

    found: dict[str, Any] = {}
    for name in setting_names():
        value = getattr(experiment, name)
        if name in TARGETS:
            found[name] = value.name
            given = settings_of(name, value)
            found |= {f"{name}.{option}": given.get(option, OPEN) for option in {**parameters(name, value), **given}}
        elif name in OPEN_ENDED:
            fields = (*(("error",) if name == "limits" else ()), *Costs._fields, *value)
            found |= {f"{name}.{field}": value.get(field, OPEN) for field in fields}
        elif name == "final":
            found |= {f"final.{field}": value.get(field, default) for field, default in final_settings().items()}
        else:
            found[name] = value
    return found


def _apply(experiment: Experiment, path: str, text: str) -> Experiment:
    known = settable(experiment)
    full = _full_path(path, known)
    part, _, leaf = full.partition(".")
    if not leaf and part in TARGETS:
        return _with(experiment, part, _replaced(part, getattr(experiment, part), text))
    value = typed(full, text, _annotation(experiment, part, leaf), known.get(full, OPEN))
    if not leaf:
        return _with(experiment, part, value)
    old = getattr(experiment, part)
    new = old.with_arguments(**{leaf: value}) if isinstance(old, Use) else {**old, leaf: value}
    if leaf == "base" and isinstance(new, Use):  # as where an evaluator is replaced
        options = parameters(part, new)
        new = Use(new.name, **{option: value for option, value in new.arguments.items() if option in options})
    return _with(experiment, part, new)


def _with(experiment: Experiment, part: str, value: Any) -> Experiment:
    changes: dict[str, Any] = {part: value}
    return dataclasses.replace(experiment, **changes)


def _full_path(path: str, known: Mapping[str, Any]) -> str:
    from hw_models.discover import unknown
    from hw_models.errors import InputError

    # a limit may be on one of several devices, latency_s@raspberry_pi_4
    if path in known or (path.partition(".")[0] in OPEN_ENDED and path.partition("@")[0] in known):
        return path
    # targets are for few searches: where none is set yet, they are meant by their whole path only
    meant = [each for each in known if not each.startswith("targets.") or known[each] is not OPEN]
    ending = sorted(each for each in meant if each.rpartition(".")[2] == path)
    if len(ending) == 1:
        return ending[0]
    if ending:
        raise InputError(f"setting '{path}' stands for several: say which of {', '.join(ending)}")
    if "." not in path:
        near = unknown("setting", path, {each.rpartition(".")[2] for each in known})
        hint = str(near).partition(": did you mean ")[2].partition("?")[0].strip("'")
        if hint:
            places = sorted(each for each in known if each.rpartition(".")[2] == hint)
            raise InputError(f"unknown setting '{path}': did you mean {' or '.join(places)}?")
    raise unknown("setting", path, known)


def _replaced(part: str, old: Use, name: str) -> Use:
    fresh = Use(name)
    known = parameters(part, fresh)
    return Use(name, **{option: value for option, value in old.arguments.items() if option in known})


def _annotation(experiment: Experiment, part: str, leaf: str) -> str:
    """The annotation of a setting as text, or nothing where its function has none."""
    if part in OPEN_ENDED:
        return "float"
    if part == "final":
        from nas.training.recipe import Recipe

        return next((str(field.type) for field in dataclasses.fields(Recipe) if field.name == leaf), "")
    if leaf:
        entry = parameters(part, getattr(experiment, part)).get(leaf)
        return "" if entry is None else annotation_of(entry)
    return next(str(field.type) for field in dataclasses.fields(Experiment) if field.name == part)

"""`--set path=value`: change single settings of an experiment, checked as strictly as the configuration itself.

A path is dotted (`strategy.population`, `limits.latency_s`, `final.epochs`) or, where only one setting ends in it, its
last part (`population`). Options that the configuration leaves at their default can be set too.
"""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.config import TARGETS, Experiment, Use, check, final_settings, parameters, setting_names, settings_of

OPEN = object()  # stands for the current value of a setting that has none


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

    # a target that is replaced decides which other paths there are, wherever it stands in the list
    ordered = sorted(changes, key=lambda change: change.partition("=")[0].strip() not in TARGETS)
    for change in ordered:
        path, equals, text = change.partition("=")
        if not equals or not path.strip():
            raise InputError(f"--set '{change}' is not allowed: give path=value, such as steps=20")
        experiment = _apply(experiment, path.strip(), text.strip())
    check(experiment)
    return experiment


def settable(experiment: Experiment) -> dict[str, Any]:
    """Every path that can be set and its current value; `limits` also of names that have no limit yet.

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
        elif name == "limits":
            found |= {f"limits.{field}": value.get(field, OPEN) for field in ("error", *Costs._fields, *value)}
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
    value = typed(full, text, known.get(full, OPEN), _annotation(experiment, part, leaf))
    if not leaf:
        return _with(experiment, part, value)
    old = getattr(experiment, part)
    new = old.with_arguments(**{leaf: value}) if isinstance(old, Use) else {**old, leaf: value}
    return _with(experiment, part, new)


def _with(experiment: Experiment, part: str, value: Any) -> Experiment:
    changes: dict[str, Any] = {part: value}
    return dataclasses.replace(experiment, **changes)


def _full_path(path: str, known: Mapping[str, Any]) -> str:
    from hw_models.discover import unknown
    from hw_models.errors import InputError

    # a limit may be on one of several devices, latency_s@raspberry_pi_4
    if path in known or (path.startswith("limits.") and path.partition("@")[0] in known):
        return path
    ending = sorted(each for each in known if each.rpartition(".")[2] == path)
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
    if part == "limits":
        return "float"
    if part == "final":
        from nas.training.recipe import Recipe

        return next((str(field.type) for field in dataclasses.fields(Recipe) if field.name == leaf), "")
    if leaf:
        entry = parameters(part, getattr(experiment, part)).get(leaf)
        if entry is None or entry.annotation is entry.empty:
            return ""
        return entry.annotation if isinstance(entry.annotation, str) else getattr(entry.annotation, "__name__", "")
    return next(str(field.type) for field in dataclasses.fields(Experiment) if field.name == part)


def typed(path: str, text: str, current: Any, annotation: str) -> Any:
    """The value that `text` stands for, of a type that the annotation of setting `path`, or its current value, allows.

    Raises:
        InputError: a value of another type.

    Example:
        >>> typed("steps", "5", 10, "int"), typed("minimize", "error,macs", (), "tuple[str, ...]")
        (5, ('error', 'macs'))
    """
    from hw_models.errors import InputError

    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        value = {"true": True, "false": False}.get(text, text)
    allowed = _allowed(current, annotation)
    if tuple in allowed and isinstance(value, str) and ("," in value or str not in allowed):
        value = tuple(part.strip() for part in value.split(",") if part.strip())
    if tuple in allowed and isinstance(value, list):
        value = tuple(value)
    if float in allowed and type(value) is int:
        value = float(value)
    if str in allowed and tuple not in allowed and type(value) in (int, float) and int not in allowed:
        value = text
    if allowed and type(value) not in allowed:
        kinds = {int: "a whole number", float: "a number", bool: "True or False", str: "text", tuple: "names a,b"}
        wanted = " or ".join(kinds.get(kind, "None" if kind is type(None) else kind.__name__) for kind in allowed)
        now = "" if current is OPEN else f" (now {current!r})"
        raise InputError(f"{path}={text} is not allowed: give {wanted}{now}")
    return value


def _allowed(current: Any, annotation: str) -> tuple[type, ...]:
    """Types that a setting may have, or nothing where any will do: from its annotation, or else its value."""
    simple = {"int": int, "float": float, "bool": bool, "str": str, "None": type(None)}
    parts = [part.strip().partition("[")[0] for part in annotation.split("|")] if annotation else []
    found = tuple({**simple, "tuple": tuple}.get(part) for part in parts)
    if found and None not in found:
        return tuple(kind for kind in found if kind is not None)
    if parts or current is OPEN or current is None:
        return ()
    return (type(current),)

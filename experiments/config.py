"""Experiments as plain Python: what is searched, on which device, by which strategy, judged by which evaluator.

Importing this module imports neither jax nor anything slow, so that the number of threads can still be chosen. The
names in a `Use` and its arguments are checked by `check`, against the signature of the function they stand for.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import inspect
import os
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

CONFIGS = "experiments.configs"

# field of an Experiment -> package of its files, what each of them defines, what a person calls it
TARGETS = {
    "space": ("search_spaces.spaces", "space", "space"),
    "strategy": ("nas.strategies", "strategy", "strategy"),
    "evaluator": ("nas.evaluators", "evaluator", "evaluator"),
}


@dataclass(frozen=True, init=False)
class Use:
    """A file by its name, and arguments for the function in it.

    Example:
        >>> Use("nsga2", population=24).arguments
        {'population': 24}
    """

    name: str
    arguments: Mapping[str, Any]

    def __init__(self, name: str, /, **arguments: Any):
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "arguments", arguments)

    def with_arguments(self, **arguments: Any) -> Use:
        """The same with some arguments added or replaced."""
        return Use(self.name, **{**self.arguments, **arguments})


@dataclass(frozen=True)
class Experiment:
    """Everything that a search is made of.

    Attributes:
        space: a file of `search_spaces/spaces`, or a dotted name. `input_hw`, `input_channels` and `classes` are those
            of the data set where they are left out.
        device: name of a device, path of a device file, or a tuple of either.
        strategy: a file of `nas/strategies`, or a dotted name.
        evaluator: a file of `nas/evaluators`, or a dotted name; gets `seed` where it takes one and none is given.
        minimize: objectives, the most important first.
        limits: largest allowed value by name.
        scalar: text of a reward of `nas.rewards`, such as `mnasnet_soft` or `absolute[weight=0.5]`, that joins error
            and costs for strategies that rank by one number; None for none.
        targets: values that the scalar lands on, by name of a cost.
        warm_start: a proxy, such as `synflow` or `params`, by which the first networks are chosen among many; None for
            a fair sample.
        steps: how often the strategy is asked.
        seed: of everything random.
        precision: number format that all layers run in, or None for what space and device say.
        inference_batch: images per run that costs are for; None is 1, or the batch that `table` has.
        table: name of a measured table, or path of its file, that latencies are taken from; None for those of the
            device's model. Goes with one device, of the kind that was measured.
        missing: what happens where `table` has no row: `error`, `interpolate`, or `analytic`, the device's model.
        threads_per_evaluation: a number, or "all" for every core of the machine; results depend on it.
        final: settings of `nas.training.recipe.Recipe` for training the picked network.

    Example:
        >>> Experiment(Use("tiny"), "raspberry_pi_4", Use("nsga2"), Use("supernet")).steps
        10
    """

    space: Use
    device: str | tuple[str, ...]
    strategy: Use
    evaluator: Use
    minimize: tuple[str, ...] = ("error", "latency_s")
    limits: Mapping[str, float] = field(default_factory=dict)
    scalar: str | None = None
    targets: Mapping[str, float] = field(default_factory=dict)
    warm_start: str | None = None
    steps: int = 10
    seed: int = 0
    precision: str | None = None
    inference_batch: int | None = None
    table: str | None = None
    missing: str = "error"
    threads_per_evaluation: int | str = 1
    final: Mapping[str, Any] = field(default_factory=dict)


def config_names() -> tuple[str, ...]:
    """Names of the shipped configurations.

    Example:
        >>> "quickstart" in config_names()
        True
    """
    from hw_models import discover

    return discover.names(CONFIGS)


def allow_working_directory() -> None:
    """Make modules in the working directory importable, after everything that is installed.

    An installed command does not look there, unlike `python -m`. It is done for dotted names only, because only a
    person who gives one asks for code of their own.
    """
    here = os.getcwd()
    if here not in sys.path:
        sys.path.append(here)


def load_config(name_or_path: str | Path) -> Experiment:
    """The `config` of a shipped configuration, of a file whose path ends in `.py`, or of a dotted module.

    Raises:
        InputError: no such configuration, a file that cannot be read, one without a `config`, a wrong setting.

    Example:
        >>> load_config("tiny").space.name
        'tiny'
    """
    from hw_models import discover
    from hw_models.errors import InputError

    text = str(name_or_path)
    try:
        if text.endswith(".py"):
            module = _module_from_file(Path(text))
        elif os.path.isfile(f"{text}.py") and text not in config_names():
            raise InputError(f"configuration '{text}' is a file: did you mean '{text}.py'?")
        elif "/" in text or text.startswith("."):
            raise InputError(f"configuration file '{text}' does not end in .py: give a path ending in .py, or a name")
        elif discover.is_dotted(text):
            allow_working_directory()
            module = importlib.import_module(text)
        elif text in config_names():
            module = importlib.import_module(f"{CONFIGS}.{text}")
        else:
            raise discover.unknown("configuration", text, config_names())
    except SyntaxError as error:
        raise InputError(f"configuration '{text}' is not valid Python (line {error.lineno}: {error.msg})") from error
    except ModuleNotFoundError as error:
        if error.name is None or not (text == error.name or text.startswith(error.name + ".")):
            raise InputError(f"configuration '{text}' imports '{error.name}', which is not installed") from error
        raise InputError(f"unknown configuration '{text}': no module of that dotted name can be imported") from error
    except (ImportError, NameError, AttributeError) as error:
        raise InputError(f"configuration '{text}' does not load: {error}") from error
    except TypeError as error:
        wrong = re.search(r"Experiment\.__init__\(\) got an unexpected keyword argument '(\w+)'", str(error))
        if wrong:
            raise discover.unknown("setting of an Experiment", wrong[1], setting_names()) from error
        if "Experiment.__init__()" in str(error):
            raise InputError(f"configuration '{text}': {str(error).split('() ', 1)[1]}") from error
        raise
    config = getattr(module, "config", None)
    if not isinstance(config, Experiment):
        raise InputError(f"configuration '{text}' defines no `config = Experiment(...)`: add one")
    return config


def _module_from_file(path: Path) -> ModuleType:
    from hw_models.errors import InputError

    if not path.is_file():
        raise InputError(
            f"configuration file '{path}' does not exist: give a path, or one of {', '.join(config_names())}"
        )
    spec = importlib.util.spec_from_file_location(f"flynas_config_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def setting_names() -> tuple[str, ...]:
    """Fields of an `Experiment`.

    Example:
        >>> setting_names()[0]
        'space'
    """
    return tuple(entry.name for entry in dataclasses.fields(Experiment))


def target(part: str, use: Use) -> Callable[..., Any]:
    """The function that a `Use` in field `part` of an experiment stands for.

    Raises:
        InputError: unknown name, or a module without such a function.

    Example:
        >>> target("strategy", Use("nsga2")).__name__
        'strategy'
    """
    from hw_models import discover
    from hw_models.errors import InputError

    package, attribute, kind = TARGETS[part]
    if not isinstance(use, Use) or not isinstance(use.name, str):
        raise InputError(f"{part} is {use!r}: give Use('name', option=value, ...)")
    if discover.is_dotted(use.name):
        allow_working_directory()
    function: Callable[..., Any] = discover.load(package, use.name, attribute, kind)
    return function


def parameters(part: str, use: Use) -> dict[str, inspect.Parameter]:
    """Parameters that a configuration may set, by name; strategies and evaluators get the space from elsewhere.

    What passes its options on to a `base`, as evaluator `surrogate` does, has the parameters of that as well.

    Example:
        >>> "population" in parameters("strategy", Use("nsga2"))
        True
        >>> "epochs" in parameters("evaluator", Use("surrogate", base="supernet"))
        True
    """
    found = dict(inspect.signature(target(part, use)).parameters)
    if part != "space" and found:
        del found[next(iter(found))]
    passed_on = [name for name, entry in found.items() if entry.kind is entry.VAR_KEYWORD]
    if "base" in found and passed_on:
        base = use.arguments.get("base", found["base"].default)
        if isinstance(base, str) and base != use.name:
            del found[passed_on[0]]
            found = {
                **found,
                **{name: entry for name, entry in parameters(part, Use(base)).items() if name not in found},
            }
    return found


def check(experiment: Experiment) -> None:
    """Check every name in an experiment and the type of every value; imports what it names, builds nothing.

    Raises:
        InputError: an unknown file, argument or setting, an argument that is missing, a value of another type.

    Example:
        >>> check(load_config("tiny"))
    """
    from hw_models.discover import unknown
    from hw_models.errors import InputError
    from search_spaces.options import annotation_of
    from search_spaces.options import check as check_option

    _check_values(experiment)
    for part in TARGETS:
        use = getattr(experiment, part)
        known = parameters(part, use)
        any_name = any(entry.kind is entry.VAR_KEYWORD for entry in known.values())
        for name in use.arguments:
            if name not in known and not any_name:
                raise unknown(f"option of {part} {use.name}", name, known)
            if name in known:
                check_option(f"{part}.{name}", use.arguments[name], annotation_of(known[name]))
        for name, entry in known.items():
            required = entry.default is entry.empty and entry.kind not in (entry.VAR_KEYWORD, entry.VAR_POSITIONAL)
            if required and name not in use.arguments and not (part == "space" and name in DATA_OPTIONS):
                raise InputError(f"{part} {use.name} needs option '{name}': give {part}.{name}=...")
    for name in experiment.final:
        if name not in final_settings():
            raise unknown("setting of the final training", name, final_settings())
    _check_final(experiment.final)


def _check_values(experiment: Experiment) -> None:
    from hw_models.errors import InputError
    from nas.store import check_steps
    from search_spaces.options import check as check_option

    threads = experiment.threads_per_evaluation
    if threads != "all" and (isinstance(threads, bool) or not isinstance(threads, int) or threads < 1):
        raise InputError(f"threads_per_evaluation={threads!r} is not allowed: give a whole number from 1, or all")
    if isinstance(experiment.seed, bool) or not isinstance(experiment.seed, int) or not 0 <= experiment.seed < 2**32:
        raise InputError(f"seed={experiment.seed!r} is not allowed: give a whole number from 0 to {2**32 - 1}")
    check_steps(experiment.steps)
    if experiment.inference_batch is not None:
        from hw_models.errors import whole
        from hw_models.estimate import MAX_BATCH

        whole("inference_batch", experiment.inference_batch, 1, MAX_BATCH)
    if experiment.table is None and experiment.missing != "error":
        raise InputError(f"missing={experiment.missing!r} is about a measured table: set table as well")
    if experiment.table is not None and not isinstance(experiment.device, str) and len(experiment.device) != 1:
        raise InputError("a measured table is of one device: name one device, or leave table out")
    for entry in dataclasses.fields(Experiment):
        check_option(entry.name, getattr(experiment, entry.name), str(entry.type))


def _check_final(settings: Mapping[str, Any]) -> None:
    """A value out of range should not wait for the end of the search to be found."""
    from hw_models.errors import InputError
    from nas.training.recipe import Recipe

    try:
        Recipe(**settings)
    except InputError as error:
        raise InputError(f"final.{error}") from error


# settings that are no part of a run where they are None, with those that only say something about them
UNSET: dict[str, tuple[str, ...]] = {
    "table": ("missing",),
    "warm_start": (),
    "inference_batch": (),
    "scalar": ("targets",),
}
DATA_OPTIONS = ("input_hw", "input_channels", "classes")  # options of a space that the data set decides


def final_settings() -> dict[str, Any]:
    """Settings of the final training and their defaults.

    Example:
        >>> "epochs" in final_settings()
        True
    """
    from nas.training.recipe import Recipe

    return {entry.name: entry.default for entry in dataclasses.fields(Recipe)}


def settings_of(part: str, use: Use) -> dict[str, Any]:
    """Arguments of a `Use` with the defaults of its function filled in.

    Example:
        >>> settings_of("strategy", Use("random_search"))
        {'population': 64}
    """
    known = parameters(part, use)
    defaults = {name: entry.default for name, entry in known.items() if entry.default is not entry.empty}
    return {**defaults, **use.arguments}


def to_json(experiment: Experiment) -> dict[str, Any]:
    """The experiment as plain JSON values, defaults filled in; kept with the run.

    Example:
        >>> to_json(load_config("tiny"))["strategy"]["crossover_rate"]
        0.5
    """
    from nas.plain import plain

    settings = {name: getattr(experiment, name) for name in setting_names()}
    for name, beside in UNSET.items():
        if settings[name] is None:
            for each in (name, *beside):
                del settings[each]
    for part in TARGETS:
        use = settings[part]
        options = {name: _named(value) for name, value in settings_of(part, use).items()}
        settings[part] = {"name": use.name, **options}
    return dict(plain(settings))


def _named(value: Any) -> Any:
    """What stands for an argument that is no plain value: the name of a function, of a data set held in memory."""
    if inspect.isroutine(value):
        return f"{value.__module__}.{value.__qualname__}"
    name = getattr(value, "name", None)
    return name if isinstance(name, str) and not isinstance(value, Path) else value

"""From an experiment to what `nas.search` takes: threads first, then the space, the strategy and the evaluator."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from experiments.config import DATA_OPTIONS, TARGETS, Experiment, check, parameters, settings_of, target, to_json
from experiments.process import prepare


class Built(NamedTuple):
    """What a search takes, in the order of `nas.search`, and what was chosen on the way, one sentence each."""

    space: Any
    strategy: Any
    evaluator: Any
    objective: Any
    key: Any
    experiment: Experiment
    notes: tuple[str, ...]
    warm_start: Any = None

    def config(self) -> dict[str, Any]:
        """The resolved experiment, as kept in `run.json`."""
        return to_json(self.experiment)


def resolve(experiment: Experiment) -> tuple[Experiment, tuple[str, ...]]:
    """The experiment with what depends on other settings filled in, and a sentence for each such choice.

    The space takes the size, channels and classes of the images from the data set; the evaluator takes the seed.

    Raises:
        InputError: a wrong name, a data set that is not there.

    Example:
        >>> from experiments.config import load_config
        >>> resolve(load_config("tiny"))[1]
        ('space tiny takes input_hw=8, input_channels=1, classes=10 from data set digits',)
    """
    check(experiment)
    notes = []
    evaluator, space = experiment.evaluator, experiment.space
    if "seed" in parameters("evaluator", evaluator) and "seed" not in evaluator.arguments:
        evaluator = evaluator.with_arguments(seed=experiment.seed)
    open_options = [name for name in DATA_OPTIONS if name in parameters("space", space) and name not in space.arguments]
    data = settings_of("evaluator", evaluator).get("data")
    if open_options and data is not None:
        seen = _of_data(data)
        chosen = {name: seen[name] for name in open_options}
        space = space.with_arguments(**chosen)
        listed = ", ".join(f"{name}={value}" for name, value in chosen.items())
        notes.append(f"space {space.name} takes {listed} from data set {seen['name']}")
    return dataclasses.replace(experiment, space=space, evaluator=evaluator), tuple(notes)


def _of_data(data: Any) -> dict[str, Any]:
    from hw_models.errors import InputError
    from nas.data import Data
    from nas.data_source import is_dotted, load

    if hasattr(data, "train_images"):
        images = data.train_images
    else:
        if is_dotted(data):
            from experiments.config import allow_working_directory

            allow_working_directory()
        data = data if isinstance(data, Data) else load(data)
        images = data.images
    _, height, width, channels = images.shape
    if height != width:
        raise InputError(
            f"data set {data.name} has images of {height}x{width}, spaces take square ones: cut or scale them "
            "(a folder of images does it with [size=N])"
        )
    values = (int(height), int(channels), len(data.class_names))
    return {"name": data.name, **dict(zip(DATA_OPTIONS, values, strict=True))}


def build(experiment: Experiment) -> Built:
    """Make what the experiment names. Sets the threads before anything is computed.

    Raises:
        InputError: a wrong name or value anywhere in the experiment.

    Example:
        >>> from experiments.config import load_config
        >>> built = build(load_config("tiny"))
        >>> built.space.name, built.evaluator.name
        ('tiny', 'supernet')
    """
    check(experiment)
    notes = [prepare(experiment.threads_per_evaluation)]
    import jax

    from nas.objectives import Objective

    experiment, chosen = resolve(experiment)
    space = target("space", experiment.space)(**experiment.space.arguments)
    objective = Objective(
        space,
        experiment.device,
        experiment.minimize,
        experiment.limits,
        precision=experiment.precision,
        batch=experiment.inference_batch,
        scalar=experiment.scalar,
        targets=experiment.targets,
        table=_measured(experiment),
    )
    made = {
        part: target(part, getattr(experiment, part))(space, **getattr(experiment, part).arguments)
        for part in TARGETS
        if part != "space"
    }
    key = jax.random.key(experiment.seed)
    warm = _warm_start(experiment, space)
    return Built(space, made["strategy"], made["evaluator"], objective, key, experiment, (*notes, *chosen), warm)


def _warm_start(experiment: Experiment, space: Any) -> Any:
    """The proxy that chooses the first networks, on the images of the evaluator where that has any."""
    if experiment.warm_start is None:
        return None
    from hw_models.errors import InputError
    from nas.evaluators import proxy

    settings = settings_of("evaluator", experiment.evaluator)
    if "data" not in settings and experiment.warm_start in proxy.SCORES:
        raise InputError(
            f"warm_start={experiment.warm_start} looks at images and evaluator {experiment.evaluator.name} has none: "
            f"give {' or '.join(proxy.COUNTS)}"
        )
    images = {name: settings[name] for name in ("data", "validation", "train", "seed") if name in settings}
    return proxy.evaluator(space, proxy=experiment.warm_start, **images)


def _measured(experiment: Experiment) -> Callable[..., Any] | None:
    if experiment.table is None:
        return None
    from hw_models import load_table
    from nas.measured_costs import measured_cost_table

    return partial(measured_cost_table, table=load_table(experiment.table), missing=experiment.missing)


def banner(built: Built) -> list[tuple[str, str]]:
    """What was chosen, as pairs of a heading and a sentence, for a person to read before the search."""
    from experiments.quantities import shown
    from search_spaces.kernels.depthwise import status

    space, objective, settings = built.space, built.objective, built.evaluator.describe
    lines = [("space", f"{space.name}: {space.num_decisions} decisions, {space.size:,} encodings")]
    if "data" in settings:
        counts = [settings.get(part) for part in ("train", "validation", "test")]
        cut = " / ".join(f"{count:,}" for count in counts) if None not in counts else "split not stated"
        source = f", from {settings['data_source']}" if settings.get("data_source") else ""
        lines.append(("data", f"{settings['data']}: {cut} images (train / validation / test){source}"))
    for device, table in zip(objective.devices, objective.tables, strict=True):
        lines.append(("device", f"{device.name} ({getattr(device, 'kind', '?')}), {getattr(table, 'note', '')}"))
    lines.append(("strategy", _named(built.strategy)))
    if built.warm_start is not None:
        lines.append(("first networks", f"the best of many by proxy {built.experiment.warm_start}"))
    lines.append(("evaluator", f"{built.evaluator.name}, training rounds: {built.evaluator.rounds}"))
    if "error_is" in settings:
        lines.append(("error", settings["error_is"]))
    lines.append(("minimize", ", ".join(objective.minimize)))
    if objective.batch is not None:
        lines.append(("images per run", str(objective.batch)))
    if objective.limits:
        lines.append(("limits", ", ".join(f"{name} <= {shown(name, most)}" for name, most in objective.limits.items())))
    if built.experiment.scalar is not None:
        aims = ", ".join(f"{name} = {shown(name, aim)}" for name, aim in objective.targets.items())
        lines.append(("scalar", f"{objective.scalar_name}, target {aims}" if aims else objective.scalar_name))
    lines.append(("seed", str(built.experiment.seed)))
    lines.append(("threads", built.notes[0]))
    rows = status()
    chosen = next((row for row in rows if row["selected"]), rows[0])
    lines.append(("depthwise kernel", f"{chosen['name']} ({chosen['reason']})"))
    lines += [("note", note) for note in built.notes[1:]]
    return lines


def _named(strategy: Any) -> str:
    options = ", ".join(f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}"
                        for name, value in strategy.describe.items())  # fmt: skip
    return f"{strategy.name} ({options})" if options else strategy.name

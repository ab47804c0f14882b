"""The last step of an experiment: which network of a run is trained, how, and what came out of it."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.config import allow_working_directory
from experiments.quantities import parse_limit, shown, with_error
from hw_models.discover import unknown
from hw_models.errors import InputError
from nas.exporters._source import STARTS
from nas.run_files import RUN
from nas.training.recipe import Recipe
from search_spaces.encoding import ARCHITECTURE
from search_spaces.options import typed


def chosen_network(
    text: str, pick: str | None, under: Sequence[str], data: str | None, start: str = "fresh"
) -> tuple[Any, Mapping[str, Any], int | str]:
    """What `nas.export` is to train, the run's settings for that, and the threads to train with.

    `text` is a run folder or a network.

    Raises:
        InputError: neither of them, a pick that is not there, an unknown `start`; `pick`, `under` or inherited weights
            without a run.
    """
    from experiments.results import load_run
    from nas.data_source import is_dotted
    from search_spaces.texts import resolve

    if start not in STARTS:
        raise unknown("start", start, STARTS)
    path = Path(text)
    # of os.path, which a network text that is too long for a file name does not trouble
    is_run = os.path.isfile(path / RUN)
    is_network = os.path.isfile(path / ARCHITECTURE) or text.endswith(".json") or ":" in text
    if is_run or (not is_network and (os.path.isdir(path) or "/" in text)):
        run = load_run(path)
        if is_dotted(data or run.meta["evaluator"].get("data_from")):
            allow_working_directory()  # the images come from a function of one's own
        config = run.meta.get("config") or {}
        limits = dict(map(parse_limit, under))
        return (
            run.pick(pick or "knee", limits),
            config.get("final") or {},
            config.get("threads_per_evaluation") or "all",
        )
    if "." in text.partition(":")[0]:
        allow_working_directory()
    space = resolve(text).network()
    if pick is not None or under:
        raise InputError(f"'{text}' is one network: --pick and --under are for run folders, leave them out")
    if start == "inherited":
        raise InputError(f"'{text}' is one network: --start inherited is for run folders, leave it out")
    if data is None:
        raise InputError(f"'{text}' is a network without a data set: give one, such as --data fashion_mnist_10k")
    return (space, None), {}, "all"


def chosen_recipe(final: Mapping[str, Any], changes: Sequence[str]) -> Recipe | None:
    """The settings of a run's final training with `changes` of the form `name=value`; None where there are none.

    Raises:
        InputError: an unknown name, a value of another type or out of range.

    Example:
        >>> recipe = chosen_recipe({"epochs": 20}, ["learning_rate=1"])
        >>> recipe.epochs, recipe.learning_rate
        (20, 1.0)
    """
    if not changes:
        return None
    known = {entry.name: entry for entry in dataclasses.fields(Recipe)}
    settings = dict(final)
    for change in changes:
        name, equals, text = (part.strip() for part in change.partition("="))
        name = name.removeprefix("final.")
        if not equals:
            raise InputError(f"--set '{change}' is not allowed: give name=value, such as epochs=40")
        if name not in known:
            raise unknown("setting of the training", name, known)
        settings[name] = typed(name, text, str(known[name].type), settings.get(name, known[name].default))
    return Recipe(**settings)


def report_rows(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The report of an export as rows for a person.

    Example:
        >>> report_rows({"test_accuracy": 0.9, "params": 10, "macs": 20, "predicted": {}, "measured": {}})[0]
        ('test accuracy', '90.00 %')
    """
    rows = [
        ("test accuracy", f"{report['test_accuracy']:.2%}".replace("%", " %")),
        ("parameters", f"{report['params']:,}"),
        ("multiply-accumulates", f"{report['macs']:,}"),
    ]
    for name, costs in report["predicted"].items():
        latency = with_error(costs["latency_s"], costs.get("latency_error"))  # exports of old reports know of none
        sizes = f"{latency}, {shown('weight_bytes', costs['weight_bytes'])}"
        rows.append((f"predicted on {name}", f"{sizes} ({costs['precision']})" if costs["fits"] else "does not fit"))
    for name, found in report["measured"].items():
        rows.append((f"measured here, {name}", _measured(found)))
    if "agreement" in report:
        found = report["agreement"]
        rows.append(("ONNX against JAX", f"{found['max_relative_difference']:.1e} on {found['images']} images"))
    if "int8" in report:
        found = report["int8"]
        rows.append(("test accuracy in int8", f"{found['test_accuracy']:.2%}".replace("%", " %")))
        rows.append(("int8 measured here, onnxruntime", _measured(found["measured"]["onnxruntime"])))
    if "reduce_and_scale" in report:
        found = report["reduce_and_scale"]
        written, estimated = (shown("weight_bytes", found[name]) for name in ("bytes", "estimated_bytes"))
        rows.append(("ternary layers, stored", f"{written}, estimated {estimated}"))
        if found["macs"]:
            products = f"{found['multiplications']:,} of {found['macs']:,} multiplications"
            rows.append(("by reduce and scale", f"{products}, {found['integer_additions']:,} integer additions"))
    return rows


def _measured(found: Any) -> str:
    numbers = found if isinstance(found, Mapping) else {"latency_s": found}
    parts = [f"{shown(name, value)}" for name, value in numbers.items() if name == "latency_s"]
    if "threads" in numbers:
        parts.append(f"{numbers['threads']} thread(s)")
    return ", ".join(parts) or str(found)

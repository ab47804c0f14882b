"""`export`: from a pick of a run to a folder with a trained network, in formats that other programs read.

    architecture.json, weights.safetensors   FlyNAS' own, read by `nas.exporters.native.load`
    model.onnx                               for ONNX Runtime and embedded tool chains
    model_int8.onnx                          the same in integers of 8 bits, where asked for
    report.json                              accuracy, predicted and measured latency, where everything comes from
    README.md                                how to run model.onnx

The folder appears complete or not at all.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from hw_models import Device, Workload, device_names, estimate, load_device
from hw_models.errors import InputError
from hw_models.estimate import apply_precision, fits
from nas.data import Splits
from nas.disk import explained
from nas.exporters import _int8, native, onnx, onnx_int8
from nas.exporters._source import Source, source
from nas.exporters._training import Progress, Silent, trained
from nas.exporters._working import PART, publish, working_folder
from nas.measure import onnxruntime_latency, onnxruntime_session
from nas.model import Model
from nas.plain import dumps, plain
from nas.quantized.own_bits import NoIntegers, check_exact
from nas.quantized.ternary import reduced_and_scaled
from nas.store import versions
from nas.training.loss import wrong
from nas.training.recipe import Recipe
from search_spaces.network import exact_form
from search_spaces.precision import has_bits
from search_spaces.space import SearchSpace

REPORT, README = "report.json", "README.md"
FILES = (native.ARCHITECTURE, native.WEIGHTS, onnx.FILE, onnx_int8.FILE, REPORT, README)
TOLERANCE = 1e-4
SCHEMA = 1


def export(
    network: Any,
    out: str | Path,
    *,
    recipe: Recipe | None = None,
    data: Any = None,
    seed: int | None = None,
    devices: Iterable[str | Device] | None = None,
    start: str = "fresh",
    teacher: str = "none",
    distillation: float | None = None,
    name: str | None = None,
    quantize: str = "none",
    compared_images: int = 256,
    measure_seconds: float = 0.5,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Train a network, write it to the folder `out` in every format, and return the report.

    The network is trained on the images the search trained on together with those it validated on, which have done
    their duty; the test images are used here, once, for the report. An earlier export in `out` is replaced. A training
    of more than half a minute is kept beside `out` as it goes, and the same call goes on from there if it is stopped.

    Args:
        network: `run.pick(...)`, or a frozen space and its variables: `(space, variables)`, a `nas.model.Model` (whose
            mean and deviation are kept; those of a pair are those of the training part of `data`). A pair
            is exported as it is unless a recipe is given; `(space, None)` is trained from fresh weights.
        out: the folder to write.
        recipe: how to train; the run's `final` settings unless given, 30 epochs where it has none. 0 epochs sets only
            the normalisation statistics.
        data: what `nas.data_source.load` takes, or `Splits`; the run's own unless given.
        seed: of the training; that of the run's data unless given.
        devices: names or devices to predict costs for; all shipped ones unless given.
        start: "fresh" weights, or those "inherited" from the weights that the search shared.
        teacher: "none", or "supernet": the largest network of the weights that the search shared teaches.
        distillation: share of the loss that follows the teacher in place of the labels; 0.5 unless given.
        name: what the files call the network; its text, or that of the space, unless given.
        quantize: "none", or "int8": `model_int8.onnx` as well, calibrated on training images, and a key of the report.
        compared_images: number of test images on which ONNX Runtime is compared with JAX.
        measure_seconds: least time that the latency on this machine is measured for.
        progress: is told what happens.

    Raises:
        InputError: bad arguments, `out` is something else, data or packages that are missing.
        RuntimeError: the ONNX model does not compute what the network computes; nothing is written.
    """
    watcher: Progress = Silent() if progress is None else progress
    try:
        folder = Path(out).resolve()
        check_out(folder)
        _int8.check_choice(quantize)
        for package in ("onnx", "onnxruntime"):  # before the training: a missing package should not cost it
            if find_spec(package) is None:
                raise InputError(
                    f"the export needs the package {package}, which is not installed: pip install {package}"
                )
        chosen = [load_device(each) if isinstance(each, str) else each for each in devices or device_names()]
        origin = source(network, data, recipe, seed, start, name, teacher, distillation)
        if quantize == "int8":
            check_exact(origin.space)  # before the training
        for note in origin.notes:
            watcher.message(note)
        with working_folder(folder) as place:
            done = trained(origin, place, watcher, relay=progress is not None)
            with explained(folder, again="the same command exports it again"):
                numbers = (compared_images, measure_seconds)
                report = _write(done.model, place / PART, origin, chosen, quantize, *numbers, watcher)
                report["training"] = done.about
                report["notes"] += done.notes
                (place / PART / REPORT).write_text(dumps(report, indent=1) + "\n", encoding="utf-8")
                publish(place, folder)
            if done.checkpoints is not None:
                shutil.rmtree(done.checkpoints, ignore_errors=True)
        watcher.message(f"wrote {folder}")
        return report
    finally:
        watcher.close()


def predict(space: SearchSpace, devices: Iterable[Device]) -> dict[str, dict[str, Any]]:
    """Costs of a frozen space by name of device, as plain values; each device computes in its default precision.

    They are for one image at a time, whatever batch a search priced. Latency, time per image and energy are None where
    the network does not fit, and the latency's relative error (`latency_error`) where the device was not calibrated.

    Example:
        >>> from search_spaces.spaces import tiny
        >>> row = predict(tiny.space().freeze([0] * 6), [load_device("raspberry_pi_4")])["raspberry_pi_4"]
        >>> row["fits"], row["precision"]
        (True, 'float32')
    """
    plain_work = Workload.of(space.lower())
    table = {}
    for device in devices:
        work, precision, _ = apply_precision(device, plain_work)
        costs = estimate(device, work)
        fitting = bool(fits(costs))
        table[device.name] = {
            "batch": 1,
            "latency_s": costs.latency_s if fitting else None,
            "interval_s": costs.interval_s if fitting else None,
            "latency_error": device.error_at(precision, 1) if fitting else None,
            "energy_j": costs.energy_j if fitting else None,
            "peak_memory_bytes": costs.peak_memory_bytes,
            "weight_bytes": costs.weight_bytes,
            "fits": fitting,
            "precision": precision,
        }
    return dict(plain(table))


def check_out(out: str | Path) -> None:
    """Raise InputError where `export` would refuse `out`: only an earlier export, and nothing else, may be replaced.

    Example:
        >>> check_out("setup.cfg")
        Traceback (most recent call last):
        ...
        hw_models.errors.InputError: setup.cfg is a file: give another folder
    """
    folder = Path(out)
    fix = "give another folder"
    if not folder.exists():
        return
    if not folder.is_dir():
        raise InputError(f"{folder} is a file: {fix}")
    present = sorted(entry.name for entry in folder.iterdir())
    if present and not native.is_export(folder):
        raise InputError(f"{folder} is not an exported network and is not empty (it holds {present[0]}): {fix}")
    strange = [name for name in present if name not in FILES]
    if strange:
        raise InputError(f"{folder} holds {strange[0]}, which no export wrote and replacing it would delete: {fix}")


def _write(
    model: Model,
    folder: Path,
    origin: Source,
    devices: list[Device],
    quantize: str,
    compared_images: int,
    measure_seconds: float,
    watcher: Progress,
) -> dict[str, Any]:
    """Write every file but the report, which is returned."""
    space, splits = model.space, origin.splits
    watcher.message(f"writing the model and testing it on {len(splits.test_labels):,} images")
    accuracy, logits = _tested(model, splits)
    names, notes, integers = list(native.export(model, folder)), list(origin.notes), dict[str, Any]()
    exact, real = model, accuracy
    if has_bits(space):  # real numbers after the rounding of weights; `model_int8.onnx` rounds activations as well
        exact = Model(*exact_form(space, model.variables), model.meta)
        real, logits = _tested(exact, splits)
        integers["onnx_test_accuracy"] = real
        by_sums, more = reduced_and_scaled(space, model.variables)
        notes += more
        if by_sums:
            integers["reduce_and_scale"] = by_sums
    names += onnx.export(exact, folder)
    agreement = _agreement(folder / onnx.FILE, splits.test_images[:compared_images], logits[:compared_images])
    readme = _readme(model, splits.name, real)
    if quantize == "int8" or has_bits(space):
        watcher.message(f"quantizing it to {onnx_int8.FILE}")
        try:
            integers["int8"], more = _int8.write(model, folder, splits, compared_images, measure_seconds)
        except NoIntegers as error:
            notes.append(f"no {onnx_int8.FILE}: {error}")
        else:
            names.append(onnx_int8.FILE)
            notes += [*more, *_int8.lost(accuracy, integers["int8"]["test_accuracy"])]
            readme += _int8.readme(integers["int8"])
    (folder / README).write_text(readme, encoding="utf-8")
    watcher.message("measuring the latency on this machine")
    layers = space.lower()
    return {
        "schema": SCHEMA,
        "name": origin.name,
        "network": origin.name,
        "space": space.name,
        "test_accuracy": accuracy,
        "params": sum(layer.params for layer in layers),
        "macs": sum(layer.macs for layer in layers),
        "predicted": predict(space, devices),
        "measured": {"onnxruntime": onnxruntime_latency(folder / onnx.FILE, min_seconds=measure_seconds)},
        "agreement": agreement,
        **integers,
        "data": {
            "name": splits.name,
            "source": splits.source,
            "train": len(splits.train_labels),
            "validation": len(splits.validation_labels),
            "test": len(splits.test_labels),
            "seed": origin.seed,
        },
        "notes": notes,
        "files": {name: (folder / name).stat().st_size for name in (*names, README)},
        "versions": {**versions(), **_runtime_versions()},
    }


def _tested(model: Model, splits: Splits) -> tuple[float, np.ndarray]:
    """Accuracy on the test images, and their logits."""
    logits = model.logits(splits.test_images)
    mistakes = int(wrong(jnp.asarray(logits), jnp.asarray(splits.test_labels)))
    return 1 - mistakes / len(splits.test_labels), logits


def _agreement(path: Path, images: np.ndarray, expected: np.ndarray) -> dict[str, Any]:
    """The largest difference of logits between ONNX Runtime and JAX, absolute and relative to max(1, |logit|)."""
    session = onnxruntime_session(path)
    pixels = (images.astype(np.float32) / 255.0).transpose(0, 3, 1, 2)
    (logits,) = session.run(None, {"images": pixels})
    difference = np.abs(logits - expected)
    relative = float((difference / np.maximum(1.0, np.abs(expected))).max())
    if not relative <= TOLERANCE:  # also where it is NaN
        raise RuntimeError(
            f"the ONNX model differs from the network by {relative:.2g} relative to max(1, |logit|) on {len(images)} "
            f"test images, at most {TOLERANCE:g} is allowed: nothing was written"
        )
    return {
        "max_abs_difference": float(difference.max()),
        "max_relative_difference": relative,
        "same_answers": float((logits.argmax(-1) == expected.argmax(-1)).mean()),
        "images": len(images),
        "tolerance": TOLERANCE,
    }


def _runtime_versions() -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in ("onnx", "onnxruntime", "safetensors")}


def _readme(model: Model, data: str, accuracy: float) -> str:
    height, channels = model.space.image_hw, model.space.input_channels
    colour = "grey" if channels == 1 else "RGB" if channels == 3 else f"{channels}-channel"
    mode = "L" if channels == 1 else "RGB"
    axes = "[None, None]" if channels == 1 else ".transpose(2, 0, 1)[None]"
    return f"""# {model.meta.network}

Image classifier, {len(model.meta.class_names)} classes, {colour} images of {height}x{height}; {accuracy:.2%} of the
test images of {data} are answered correctly. Numbers: `{REPORT}`. Made by FlyNAS.

```python
import json, numpy as np, onnxruntime
from PIL import Image
session = onnxruntime.InferenceSession("{onnx.FILE}")
names = json.loads(session.get_modelmeta().custom_metadata_map["class_names"])
pixels = np.asarray(Image.open("image.png").convert("{mode}").resize(({height}, {height})), np.float32)
print(names[session.run(None, {{"images": pixels{axes} / 255}})[0].argmax()])
```

In Python with FlyNAS, `nas.exporters.native.load("this folder")` gives the space, the weights and the description.
"""

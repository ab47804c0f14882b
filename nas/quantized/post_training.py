"""Post-training quantization: from a trained network and a few images to a network of integers.

Normalisations are folded, every value between layers is observed on the images, and both its coding and the codes of
the weights follow from that. Where rounding and clamping commute with a layer, they are done once: a ReLU is the clamp
of the codes before it, and what is only moved or compared (Concat, Maximum, Pool(max), ...) is coded as the result is,
where nobody else needs it.

Source: Liang et al. 2021 (survey of pruning and quantization), equations 14 to 20 (in steps, see
`search_spaces/quantizers/_uniform.py`) and its advice: asymmetric ranges for activations, a step per output channel for
weights, biases of 32 bits, first and last layers at high precision.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from hw_models.discover import unknown
from hw_models.errors import InputError, whole
from nas.exporters._graph import INPUT, Graph, Node, record
from nas.model import Meta, Model
from nas.quantized import _forms, integer
from nas.quantized._codings import coding, is_clamp, placed
from nas.quantized.folded import as_layers, fold
from nas.quantized.integer import Coding, IntegerNetwork, Weights
from nas.quantized.ranges import Observer, Range, checked, observer
from search_spaces.precision import has_bits
from search_spaces.quantizers._uniform import symmetric as symmetric_step

WEIGHT_BITS, ACT_BITS = (2, 8), (*range(2, 9), 16)
LARGEST_BIAS = 2**30  # half of 32 bits; the other half is for the products


def quantize(
    model: Model,
    images: np.ndarray,
    *,
    observer: str = "min_max",
    weight_bits: int | Mapping[str, int] = 8,
    act_bits: int | Mapping[str, int] = 8,
    per_channel: bool = True,
    symmetric_acts: bool = False,
    first_last_bits: int | None = 8,
    batch: int = 100,
) -> IntegerNetwork:
    """A trained network in integers, calibrated on `images` (uint8 `[N, H, W, C]`, a few hundred of the training set).

    Args:
        model: the network; its normalisation statistics are the stored ones.
        images: what ranges of activations are observed on, in batches.
        observer: how, a name of `nas.quantized.ranges.OBSERVERS`.
        weight_bits: 2 to 8, of all multiplying layers or by their path (8 where it is not named). 7 for all of them is
            safe on x86 processors without VNNI, see `nas/exporters/onnx_int8.py`.
        act_bits: 2 to 8 or 16, of all results of layers or by the path of the layer (8 where it is not named). A ReLU
            that is not named has those of the layer before, one that only moves values leaves their codes alone.
        per_channel: a step per output channel of the weights, instead of one per layer.
        symmetric_acts: activations in signed codes around 0 instead of unsigned ones with a zero point.
        first_last_bits: of the weights of the first and of the last multiplying layer, where `weight_bits` does not
            name them; None treats them as the others. The image has 8 bits in any case.
        batch: images at a time; `moving_average` weighs batches.

    Raises:
        InputError: a network with bits of its own, images of another shape or type, an unknown observer or layer, bits
            that are not allowed, values without a range, a layer whose sums 32 bits cannot hold.

    Example:
        >>> import jax
        >>> from search_spaces.network import fresh
        >>> from search_spaces.spaces import tiny
        >>> space = tiny.space().freeze([0, 0, 0, 0, 0, 0])
        >>> model = Model(space, fresh(space, jax.random.key(0)), Meta("tiny", tuple("0123456789"), (0.5,), (0.5,)))
        >>> images = np.random.default_rng(0).integers(0, 256, (8, 8, 8, 1), np.uint8)
        >>> network = quantize(model, images)
        >>> network.weights["stem_0/conv"].codes.dtype, network.logits(images).shape
        (dtype('int8'), (8, 10))
    """
    check_images(model, images)
    if has_bits(model.space):
        raise InputError("this network has bits of its own: use nas.quantized.own_bits.integers, which keeps them")
    whole("batch", batch, 1, 100_000)
    graph = as_layers(fold(record(model.space, model.variables)))
    layers = [node.path for node in graph.nodes if node.op in integer.WEIGHTED]
    ends = {layers[0], layers[-1]} if first_last_bits is not None else set()
    for_weights = _bits("weight_bits", weight_bits, layers, range(WEIGHT_BITS[0], WEIGHT_BITS[1] + 1))
    for_acts = _bits("act_bits", act_bits, [node.path for node in graph.nodes], ACT_BITS)
    if first_last_bits is not None:
        whole("first_last_bits", first_last_bits, *WEIGHT_BITS)
        named = weight_bits if isinstance(weight_bits, Mapping) else {}
        for_weights |= {path: first_last_bits for path in ends - set(named)}
    widths = {INPUT: 8}
    for node in graph.nodes:
        follows = is_clamp(node) and not (isinstance(act_bits, Mapping) and node.path in act_bits)
        bits = widths.get(node.inputs[0], 8) if follows else for_acts[node.path]
        widths |= {name: bits for name in node.outputs if name != graph.output}
    ranges = calibrated(graph, images, model, observer, widths, batch)
    codings = {name: coding(*ranges[name], bits, symmetric_acts) for name, bits in widths.items()}
    return assembled(graph, codings, for_weights, model.meta, per_channel)


def assembled(
    graph: Graph, codings: Mapping[str, Coding], weight_bits: Mapping[str, int], meta: Meta, per_channel: bool = True
) -> IntegerNetwork:
    """The network of integers of a folded graph, from the coding of every value but the logits and bits by layer.

    Raises:
        InputError: a layer whose sums 32 bits cannot hold.

    Example:
        >>> layer = Node("Linear", "logits", {}, {"weight": np.ones((1, 1, 2, 1, 1))}, (INPUT,), ("y",))
        >>> graph, meta = Graph((layer,), "y", {INPUT: (1, 2), "y": (1, 1)}), Meta("sum", ("a",), (0.0,), (1.0,))
        >>> network = assembled(graph, {INPUT: coding(0.0, 1.0, 8)}, {"logits": 4}, meta)
        >>> network.weights["y"].codes.ravel().tolist()
        [7, 7]
    """
    graph, placed_codings = placed(graph, dict(codings))
    weights = {
        node.outputs[0]: _of_layer(node, placed_codings[node.inputs[0]], weight_bits[node.path], per_channel)
        for node in graph.nodes
        if node.op in integer.WEIGHTED
    }
    return IntegerNetwork(graph, placed_codings, weights, meta, per_channel)


def check_images(model: Model, images: Any) -> None:
    """Raise InputError unless `images` are what the network takes, and the error names the shape.

    Example:
        >>> from search_spaces.spaces import tiny
        >>> check_images(Model(tiny.space(), None, Meta("tiny", ("a",), (0.5,), (0.5,))), np.zeros((3, 8, 8)))
        Traceback (most recent call last):
        ...
        hw_models.errors.InputError: images float64 [3, 8, 8] cannot calibrate this network: give uint8 [N, 8, 8, 1]
    """
    space, found = model.space, np.asarray(images)
    wanted = (space.image_hw, space.image_hw, space.input_channels)
    if found.ndim != 4 or found.shape[1:] != wanted or not len(found) or found.dtype != np.uint8:
        raise InputError(
            f"images {found.dtype} {list(found.shape)} cannot calibrate this network: "
            f"give uint8 [N, {', '.join(map(str, wanted))}]"
        )


def calibrated(
    graph: Graph,
    images: np.ndarray,
    model: Model,
    name: str,
    widths: Mapping[str, int],
    batch: int,
    codings: Mapping[str, Coding] | None = None,
) -> dict[str, Range]:
    """The ranges of the values named in `widths` (bits by value), by the observer of that name.

    Values whose `codings` are known are rounded on the way, as they will be.

    Raises:
        InputError: no such observer, or a value that is no number.

    Example:
        >>> graph = Graph((), INPUT, {})
        >>> model = Model(None, None, Meta("n", ("a",), (0.0,), (1.0,)))
        >>> calibrated(graph, np.full((1, 2, 2, 1), 255, np.uint8), model, "min_max", {INPUT: 8}, 10)
        {'images': (0.0, 1.0)}
    """
    watching: Observer = observer(name)
    states = {value: watching.start() for value in widths}

    def seen(value: str, x: np.ndarray) -> np.ndarray:
        if value in states:
            checked(value, (float(x.min()), float(x.max())))
            states[value] = watching.seen(states[value], x)
        known = None if codings is None else codings.get(value)
        return x if known is None else known.values(known.codes(x), x.dtype.type)

    def layer(node: Node, inputs: _forms.Arrays) -> _forms.Arrays:
        found = zip(node.outputs, _forms.computed(graph, node, inputs), strict=True)
        return tuple(seen(value, x) for value, x in found)

    for start in range(0, len(images), batch):
        x = integer.normalised(images[start : start + batch], model.meta)
        _forms.walk(graph, seen(INPUT, x), layer)
    return {value: watching.limits(states[value], bits) for value, bits in widths.items()}


def coded_weights(
    weight: np.ndarray, bias: np.ndarray | None, input_step: float, bits: int, per_channel: bool = True
) -> Weights:
    """Symmetric codes of weights `[heads, out, in / groups, kh, kw]`, and the bias `[out]` in steps of their products.

    Where weights are so small beside their bias that 32 bits could not hold it, their step is larger than they need.

    Example:
        >>> weights = coded_weights(np.asarray([0.25, -1, 0.5]).reshape(1, 1, 3, 1, 1), np.asarray([0.1]), 2 / 255, 8)
        >>> weights.codes.ravel().tolist(), weights.bias.tolist()
        ([32, -127, 64], [[1619]])
    """
    heads, out = weight.shape[:2]
    offset = np.zeros(out) if bias is None else bias
    largest = np.abs(weight).max((2, 3, 4) if per_channel else None)
    least = np.abs(offset) / (np.float64(input_step) * LARGEST_BIAS)
    step = np.maximum(np.asarray(symmetric_step(largest, bits)), least if per_channel else least.max())
    step = np.broadcast_to(step, (heads, out)).astype(np.float32)
    wide = step.astype(np.float64)
    last = 2 ** (bits - 1) - 1
    codes = np.clip(np.rint(weight / wide[:, :, None, None, None]), -last, last).astype(np.int8)
    whole_bias = np.rint(offset / (np.float64(input_step) * wide)).astype(np.int32)
    return Weights(codes, step, whole_bias, bits)


def _of_layer(node: Node, before: Coding, bits: int, per_channel: bool) -> Weights:
    weight, bias = node.params.get("weight"), node.params.get("bias")
    if weight is None:  # one filter along channels for each vector, added up
        weight = _forms.channel_filters(node)[None, None, :, None]
    weights = coded_weights(weight, bias, before.step, bits, per_channel)
    limit = 31 if before.bits <= integer.NARROW else 62 - integer.WIDE_MULTIPLIER_BITS
    largest = integer.largest_sum(weights, before)
    if largest >= 2**limit:
        raise InputError(
            f"{node.path}: sums up to {largest:,} do not fit {limit + 1} bits: give it fewer weight_bits or act_bits"
        )
    return weights


def _bits(name: str, given: int | Mapping[str, int], paths: list[str], allowed: Any) -> dict[str, int]:
    """Bits by path."""
    by_path = dict.fromkeys(paths, 8) if isinstance(given, Mapping) else dict.fromkeys(paths, given)
    for path, bits in given.items() if isinstance(given, Mapping) else ():
        if path not in by_path:
            raise unknown("layer", path, by_path, name)
        by_path[path] = bits
    for path, bits in by_path.items():
        if isinstance(bits, bool) or bits not in allowed:
            known = f"{allowed[0]} to 8" + (" or 16" if 16 in allowed else "")
            raise InputError(f"{name} {bits!r} of {path} is not allowed: give {known}")
    return by_path

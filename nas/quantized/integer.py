"""A network of integers, and the reference that computes with it.

Values between layers are codes: `x = step * (code - zero_point)`. What multiplies or adds does so in whole numbers:

    Conv, Pointwise, Depthwise, Linear   sums of `(code - zero_point) * weight code`, plus a bias of step s_x * s_w
    Add, HeadSum                         sums of codes, each in its own step
    ChannelConv                          sums over several vectors, each in its own step, with weights as above
    GlobalPool, Pool(mean)               sums of codes, whose step is divided by the number of pixels
    others that move or compare          codes themselves (Concat, Maximum, Pool(max), Split, relu as a clamp, ...)

Sums become codes of the next value by a whole multiplier of 31 bits and a shift, rounded half to even (`rescaled`).
Sums fit 32 bits as long as activations have at most 8 bits, which `post_training.quantize` checks. The logits are the
last sums times their step: rounded to 8 bits they would tie. What is customarily not computed in integers (hard_swish,
hard_sigmoid, silu, sigmoid, Softmax, Scale, Multiply, Variance) is computed in float32 between codes, exactly as
the ONNX file has it.

Sources: Jacob et al. 2018, https://arxiv.org/abs/1712.05877, equations 3 to 7; Liang et al. 2021 (survey of pruning and
quantization), equations 17 to 20 and 31 to 36.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from nas.exporters._graph import INPUT, Graph, Node
from nas.model import Meta
from nas.quantized._forms import Arrays, along_channels, computed, convolved, pixels, walk
from nas.quantized.folded import MULTIPLYING

Term = tuple[np.ndarray, Any]  # whole numbers, and the step they are in (a scalar, or per channel)
BATCH = 100
NARROW = 8  # bits of activations that go with sums of 32 bits
MULTIPLIER_BITS, WIDE_MULTIPLIER_BITS = 31, 21  # sums of wider activations take up to 41 of 62 bits
SUMS = ("Add", "HeadSum", "ChannelConv")
FLOATING = ("Softmax", "Scale", "Multiply", "Variance")
WEIGHTED = (*MULTIPLYING, "ChannelConv")
CLAMPS = ("identity", "relu", "relu6")


class Coding(NamedTuple):
    """How a value is coded: `step` in units per code, float32; codes run from `first` to `last`, both allowed.

    Codes of up to 8 bits are kept in one byte, others in two, unsigned or `signed`.
    """

    step: float
    zero_point: int
    first: int
    last: int
    bits: int
    signed: bool = False

    @property
    def dtype(self) -> np.dtype:
        """The type in which codes are kept."""
        return np.dtype(f"{'' if self.signed else 'u'}int{8 if self.bits <= NARROW else 16}")

    def codes(self, x: np.ndarray) -> np.ndarray:
        """The codes of real values, int32.

        Example:
            >>> Coding(1 / 64, 64, 0, 255, 8).codes(np.asarray([-2.0, 0.0, 1.0, 4.0])).tolist()
            [0, 64, 128, 255]
        """
        whole = np.rint(x / np.asarray(self.step, x.dtype))
        return np.clip(whole + self.zero_point, self.first, self.last).astype(np.int32)

    def values(self, codes: np.ndarray, kind: type = np.float32) -> np.ndarray:
        """The real values of codes, in the type `kind`.

        Example:
            >>> Coding(0.5, 2, 0, 255, 8).values(np.asarray([0, 2, 3])).tolist()
            [-1.0, 0.0, 0.5]
        """
        found: np.ndarray = (codes - self.zero_point).astype(kind) * kind(self.step)
        return found


class Weights(NamedTuple):
    """Weights of one call of a layer: `codes int8 [heads, out, in / groups, kh, kw]`, their `step float32 [heads, out]`
    and the bias as `int32 [heads, out]` in the step of the input times that of the weights."""

    codes: np.ndarray
    step: np.ndarray
    bias: np.ndarray
    bits: int

    def values(self) -> np.ndarray:
        """The weights as float64.

        Example:
            >>> codes, step, bias = np.ones((1, 1, 1, 1, 1), np.int8), np.full((1, 1), 0.5), np.zeros((1, 1), int)
            >>> Weights(codes, step, bias, 8).values().item()
            0.5
        """
        found: np.ndarray = self.codes * self.step.astype(np.float64)[:, :, None, None, None]
        return found


class IntegerNetwork(NamedTuple):
    """A folded graph, the coding of every value but the logits, and the weights of a call by its first output.

    Example:
        >>> layer = Node("Flatten", "flatten", {}, {}, (INPUT,), ("logits",))
        >>> graph = Graph((layer,), "logits", {INPUT: (1, 1, 2, 1), "logits": (1, 2)})
        >>> meta = Meta("pixels", ("left", "right"), (0.5,), (0.25,))
        >>> network = IntegerNetwork(graph, {INPUT: Coding(1 / 64, 64, 0, 255, 8)}, {}, meta)
        >>> images = np.asarray([0, 255], np.uint8).reshape(1, 1, 2, 1)
        >>> network.codes(images).ravel().tolist(), network.logits(images).tolist()
        ([0, 192], [[-1.0, 2.0]])
    """

    graph: Graph
    codings: dict[str, Coding]
    weights: dict[str, Weights]
    meta: Meta
    per_channel: bool = True

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Logits float32 `[N, classes]` of uint8 images `[N, H, W, C]`, computed in integers."""
        parts = (images[start : start + BATCH] for start in range(0, len(images), BATCH))
        return np.concatenate([walk(self.graph, self.codes(part), self.layer) for part in parts])

    def codes(self, images: np.ndarray) -> np.ndarray:
        """The codes that uint8 images enter the first layer as, int32."""
        return self.codings[INPUT].codes(normalised(images, self.meta))

    def layer(self, node: Node, inputs: Arrays) -> Arrays:
        """The codes, int32, that a layer makes of codes; float32 where its output has no coding."""
        inside = [self.codings.get(name) for name in node.inputs]
        outside = [self.codings.get(name) for name in node.outputs]
        codings = [coding for coding in inside if coding is not None]
        # without a coding for the result there is nothing to clamp to, nor steps to join or compare in
        open_ended = outside[0] is None and (node.op == "Activation" or (len(inputs) > 1 and node.op not in SUMS))
        if len(codings) < len(inside) or not is_integer(node) or open_ended:
            reals = (x if coding is None else coding.values(x) for x, coding in zip(inputs, inside, strict=True))
            found = computed(self.graph, node, tuple(reals))
            return tuple(y if to is None else to.codes(y) for y, to in zip(found, outside, strict=True))
        bits = MULTIPLIER_BITS if all(coding.bits <= NARROW for coding in codings) else WIDE_MULTIPLIER_BITS
        terms = [(x - coding.zero_point, np.float64(coding.step)) for x, coding in zip(inputs, codings, strict=True)]
        if node.op == "ChannelConv":
            weights = self.weights[node.outputs[0]]
            filters = weights.codes[0, 0, :, 0].astype(np.int64)
            step = np.float64(weights.step[0, 0])
            terms = [(along_channels(x, each), own * step) for (x, own), each in zip(terms, filters, strict=True)]
        if node.op in SUMS:
            return (_coded(terms, outside[0], bits),)
        if node.op in MULTIPLYING:
            parts = self._products(node, terms[0][0], codings[0])
        elif is_mean(node):
            total, count = pixels(self.graph, node, terms[0][0].astype(np.int64))
            parts = [(total, terms[0][1] / count)]
        else:
            to = outside[0]
            if len(inputs) > 1 and to is not None:  # what is joined or compared must be in the same steps first
                terms = [(_coded([term], to, bits) - to.zero_point, np.float64(to.step)) for term in terms]
            centred = tuple(x for x, _ in terms)
            # an activation that is not floating is a clamp, which the coding of its result is
            moved = centred if node.op == "Activation" else computed(self.graph, node, centred)
            parts = [(x, terms[0][1]) for x in moved]
        return tuple(_coded([part], to, bits) for part, to in zip(parts, outside, strict=True))

    def _products(self, node: Node, centred: np.ndarray, coding: Coding) -> list[Term]:
        """Sums int64 and their steps `[out]`, one pair per head."""
        weights = self.weights[node.outputs[0]]
        # BLAS knows no integers; float32 holds whole numbers up to 2 ** 24 exactly, float64 up to 2 ** 53
        kind = np.float32 if largest_sum(weights, coding) < 2**24 else np.float64
        x, found = centred.astype(kind), []
        for codes, step, bias in zip(weights.codes, weights.step, weights.bias, strict=True):
            total = convolved(self.graph, node, x, codes.astype(kind)).astype(np.int64) + bias
            found.append((total, np.float64(coding.step) * step.astype(np.float64)))
        return found


class Difference(NamedTuple):
    """How far the codes of a layer are from those of its fake-quantized form: the most of them, and on what share."""

    path: str
    op: str
    units: float
    share: float


def layer_differences(network: IntegerNetwork, images: np.ndarray) -> list[Difference]:
    """Every layer in integers against the layer in float64 on dequantized values, both on the same codes.

    The other form multiplies real weights (`step * code`) with real inputs and rounds the result to the output's
    codes. `units` are steps of the output; of logits, which have no step, they are steps of their sums, or of float32
    where those are coarser.

    Example:
        >>> import jax
        >>> from nas.model import Model
        >>> from nas.quantized.post_training import quantize
        >>> from search_spaces.network import fresh
        >>> from search_spaces.spaces import tiny
        >>> space = tiny.space().freeze([0, 0, 0, 0, 0, 0])
        >>> model = Model(space, fresh(space, jax.random.key(0)), Meta("tiny", tuple("0123456789"), (0.5,), (0.5,)))
        >>> images = np.random.default_rng(0).integers(0, 256, (8, 8, 8, 1), np.uint8)
        >>> max(difference.units for difference in layer_differences(quantize(model, images), images)) <= 1
        True
    """
    found = []

    def layer(node: Node, inputs: Arrays) -> Arrays:
        results = network.layer(node, inputs)
        for result, wanted, name in zip(results, _fake(network, node, inputs), node.outputs, strict=True):
            unit = np.ones(()) if name in network.codings else _logit_unit(network, node, result)
            apart = np.abs(result - wanted) / unit
            found.append(Difference(node.path, node.op, float(apart.max()), float((apart > 0.5).mean())))
        return results

    walk(network.graph, network.codes(images), layer)
    return found


def is_integer(node: Node) -> bool:
    """Whether a layer computes in whole numbers.

    Example:
        >>> is_integer(Node("Softmax", "", {}, {}, (), ()))
        False
    """
    return node.op not in FLOATING and (node.op != "Activation" or node.attributes["function"] in CLAMPS)


def is_mean(node: Node) -> bool:
    """Whether a layer is a mean over pixels.

    Example:
        >>> is_mean(Node("Pool", "", {"function": "max"}, {}, (), ())), is_mean(Node("GlobalPool", "", {}, {}, (), ()))
        (False, True)
    """
    return node.op == "GlobalPool" or (node.op == "Pool" and node.attributes["function"] != "max")


def rescaled(terms: Sequence[Term], bits: int = MULTIPLIER_BITS) -> np.ndarray:
    """The sum of whole numbers times real factors, rounded half to even, int64.

    A factor is a whole number of `bits` over a power of two, the same one for all terms, so that this is one
    multiplication for each term and one shift. `terms` are pairs of numbers below `2 ** (62 - bits)` and factors
    (scalars, or broadcastable to the numbers).

    Source: Jacob et al. 2018, equations 5 and 6.

    Example:
        >>> rescaled([(np.asarray([1, 2, 3, 5]), np.float64(0.5))]).tolist()
        [0, 1, 2, 2]
    """
    largest = np.maximum.reduce([factor for _, factor in terms])
    spare = (len(terms) - 1).bit_length()
    shift = np.clip(bits - spare - np.frexp(largest)[1], 1, 62).astype(np.int64)
    products = [x.astype(np.int64) * np.rint(np.ldexp(factor, shift)).astype(np.int64) for x, factor in terms]
    total = sum(products[1:], products[0])
    whole = total >> shift
    rest, half = total - (whole << shift), np.int64(1) << (shift - 1)
    found: np.ndarray = whole + ((rest > half) | ((rest == half) & (whole % 2 == 1)))
    return found


def normalised(images: np.ndarray, meta: Meta) -> np.ndarray:
    """uint8 images as a network takes them, `(pixel / 255 - mean) / std`, in float32 as the ONNX file computes it.

    Example:
        >>> normalised(np.full((1, 1, 1, 1), 255, np.uint8), Meta("n", ("a",), (0.5,), (0.25,))).item()
        2.0
    """
    mean, std = (np.asarray(part, np.float32) for part in (meta.mean, meta.std))
    found: np.ndarray = (images.astype(np.float32) / np.float32(255) - mean) / std
    return found


def _coded(terms: Sequence[Term], to: Coding | None, bits: int) -> np.ndarray:
    """Whole numbers in their steps as codes; as float32 where the result has no coding."""
    if to is None:
        return np.asarray(sum(x * step for x, step in terms), np.float32)
    step = np.float64(to.step)
    if len(terms) == 1 and np.all(terms[0][1] == step):
        whole = terms[0][0]  # in the step that is wanted already
    else:
        whole = rescaled([(x, own / step) for x, own in terms], bits)
    return np.clip(whole + to.zero_point, to.first, to.last).astype(np.int32)


def largest_sum(weights: Weights, coding: Coding) -> int:
    """The largest sum that a layer can reach on the way, whatever its input.

    Example:
        >>> weights = Weights(np.full((1, 1, 3, 1, 1), -2, np.int8), np.ones((1, 1)), np.full((1, 1), 5), 8)
        >>> largest_sum(weights, Coding(1.0, 0, 0, 255, 8))
        1535
    """
    most = max(coding.last - coding.zero_point, coding.zero_point - coding.first)
    sums = np.abs(weights.codes.astype(np.int64)).sum((2, 3, 4)) * most + np.abs(weights.bias.astype(np.int64))
    return int(sums.max())


def _fake(network: IntegerNetwork, node: Node, inputs: Arrays) -> Arrays:
    """A layer in float64 on dequantized values and weights, its results as codes."""
    inside = [network.codings.get(name) for name in node.inputs]
    reals = [
        x.astype(np.float64) if coding is None else coding.values(x, np.float64)
        for x, coding in zip(inputs, inside, strict=True)
    ]
    if node.op in MULTIPLYING:
        weights, step = network.weights[node.outputs[0]], network.codings[node.inputs[0]].step
        bias = weights.bias * (np.float64(step) * weights.step.astype(np.float64))
        found = tuple(
            convolved(network.graph, node, reals[0], weight) + own
            for weight, own in zip(weights.values(), bias, strict=True)
        )
    elif node.op == "ChannelConv":
        filters = network.weights[node.outputs[0]].values()[0, 0, :, 0]
        found = (sum(along_channels(x, each) for x, each in zip(reals, filters, strict=True)),)
    else:
        found = computed(network.graph, node, tuple(reals))
    codings = (network.codings.get(name) for name in node.outputs)
    return tuple(y if to is None else to.codes(y) for y, to in zip(found, codings, strict=True))


def _logit_unit(network: IntegerNetwork, node: Node, logits: np.ndarray) -> np.ndarray:
    """The step of sums, or that of float32 where it is the larger one."""
    step = np.asarray(network.codings[node.inputs[0]].step, np.float64)
    step = step * network.weights[node.outputs[0]].step[0] if node.op in MULTIPLYING else step
    return np.maximum(step, np.spacing(np.abs(logits)).astype(np.float64))

"""Speed of pricing: populations by a cost table and without one, beside NumPy in this process and other packages.

Seconds are the shortest of several calls, taken in turns, and of each the shorter of the clock's and the processor's
(of all threads): what a machine without other work would take at most.
"""

from __future__ import annotations

import itertools
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from benchmark_peers import PEERS, NotMeasured, answer
from benchmark_rows import Row, row

from hw_models import Device, Workload, discover, estimate, load_device
from hw_models.costs import COMBINE, combine
from hw_models.estimate import apply_precision, layer_costs, once_s
from hw_models.roofline import gemm
from hw_models.systolic import network_cycles, systolic_cycles
from hw_models.workload import Layer, Op
from nas.cost_table import cost_table
from nas.exporters import onnx
from nas.model import Meta, Model
from nas.variants import Variants
from search_spaces.blocks.classifier import Classifier
from search_spaces.blocks.conv_norm import ConvNorm
from search_spaces.blocks.inverted_residual import InvertedResidual
from search_spaces.network import fresh
from search_spaces.space import SearchSpace, Stage
from search_spaces.spaces import proxylessnas
from search_spaces.texts import resolve

SPACES = ("fbnet", "mobilenet_v3", "quickstart")
POPULATION, WHOLE, LOWERED = 100_000, 4_000, 50
GOAL_S = 0.1  # for a population by a table, on two cores
DATAFLOWS, SIDE = ("ws", "os", "is"), 32


def rows(folder: Path) -> tuple[list[Row], list[dict[str, Any]]]:
    """All rows, and every peer as `{"name", "versions", "reason"}`; `reason` is null where it was measured."""
    found, peers = [], []
    for name in SPACES:
        print(f"{name}: measuring ...", file=sys.stderr, flush=True)
        found += population(name)
    found += whole_workloads()
    for name, measure in (("scalesim", scalesim), ("nni", nni), ("nn_meter", nn_meter), ("zigzag", zigzag)):
        reason = None
        try:
            found += measure(folder)
        except NotMeasured as why:
            reason = str(why)
        peers.append({"name": name, "versions": list(PEERS[name]), "reason": reason})
    return found, peers


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    """What a call that waits for its arrays gives, and its seconds: the shorter of the clock's and the processor's."""
    began, began_cpu = time.perf_counter(), time.process_time()
    found = call()
    return found, min(time.perf_counter() - began, time.process_time() - began_cpu)


def shortest(calls: dict[str, Callable[[], Any]], rounds: int = 15) -> dict[str, float]:
    """Shortest seconds of every call, taken in turns after one that compiles."""
    for call in calls.values():
        jax.block_until_ready(call())
    best = dict.fromkeys(calls, float("inf"))
    for _ in range(rounds):
        for name, call in calls.items():
            best[name] = min(best[name], timed(lambda call=call: jax.block_until_ready(call()))[1])
    return best


def agree(what: str, ours: Any, peer: Any, relative: float = 0.0) -> None:
    """End the benchmark where the two results differ: times of different things are not compared."""
    one, other = np.atleast_1d(ours), np.atleast_1d(peer)
    if one.shape != other.shape:
        raise SystemExit(f"{what}: ours are {one.shape}, the peer's {other.shape}")
    wrong = np.flatnonzero(~np.isclose(one, other, rtol=relative, atol=0.0))
    if len(wrong):
        first = wrong[0]
        raise SystemExit(
            f"{what}: {len(wrong)} of {len(one)} differ, the first is {one[first]}, by the peer {other[first]}"
        )


def numpy_prices(space: SearchSpace, device: Device) -> Callable[[np.ndarray, tuple[str, ...]], dict[str, np.ndarray]]:
    """Genes `[N, D]` to costs `[N]` as one would write it in NumPy: a lookup table per slot, fancy indexing, a sum.

    A table has one row for every combination of the genes that its slot depends on; the resolution, where it is
    searched, is one more of them.
    """
    parts: dict[str, list[np.ndarray]] = {field: [] for field in COMBINE}
    radix = np.zeros((len(space.slots), space.num_decisions), np.float32)
    first = np.zeros((len(space.slots), 1), np.float32)
    length = 0
    spaces = space.resolutions or (space,)
    every = [(Variants(each), _variant_prices(each, device)) for each in spaces]
    for slot in spaces[0].slots:
        named = [case.decisions for case in slot.cases]
        heads = [slot.depth[0]] if slot.depth is not None else []
        heads += [slot.kind_decision] if slot.kind_decision is not None else []
        involved = list(dict.fromkeys([*heads, *(d for pairs in named for _, d in pairs), *slot.widths.decisions]))
        counts = [int(space.cardinality[d]) for d in involved]
        genes = np.zeros((int(np.prod(counts)), spaces[0].num_decisions), np.int32)
        genes[:, involved] = list(itertools.product(*map(range, counts)))
        for position, d in enumerate(involved):
            radix[slot.index, d] = np.prod(counts[position + 1 :])
        if space.resolutions:
            radix[slot.index, -1] = len(genes)
        first[slot.index] = length
        for variants, prices in every:
            chosen = np.asarray(jax.vmap(variants.index)(genes))[:, slot.index]
            length += len(genes)
            for field in COMBINE:
                parts[field].append(prices[field][chosen])
    tables = {field: np.concatenate(tables) for field, tables in parts.items()}

    def price(genes: np.ndarray, fields: tuple[str, ...]) -> dict[str, np.ndarray]:
        index = (radix @ genes.T.astype(np.float32) + first).astype(np.intp)  # [S, N]: sums along N are vectorised
        return {field: getattr(tables[field][index], COMBINE[field])(axis=0) for field in fields}

    return price


def _variant_prices(space: SearchSpace, device: Device) -> dict[str, np.ndarray]:
    work, _, _ = apply_precision(device, Workload.stack([variant.layers for variant in Variants(space).rows]))
    return jax.tree.map(np.asarray, combine(jax.jit(layer_costs)(device, work)))._asdict()


def population(name: str) -> list[Row]:
    """A population of a space on a Raspberry Pi 4, all costs and latency alone, by our table and by NumPy's."""
    space, device = discover.load("search_spaces.spaces", name, "space")(), load_device("raspberry_pi_4")
    exact, in_numpy = cost_table(space, device).exact, numpy_prices(space, device)
    genes = jax.jit(jax.vmap(space.sample))(jax.random.split(jax.random.key(0), POPULATION))
    same, everything = np.asarray(genes), tuple(COMBINE)
    all_costs, latency = jax.jit(jax.vmap(exact)), jax.jit(jax.vmap(lambda genes: exact(genes).latency_s))
    ours, peer = all_costs(genes), in_numpy(same, everything)
    once = float(once_s(device))  # what a run costs besides its layers, which tables do not hold
    peer["latency_s"] += once
    peer["energy_j"] += once * float(device.energy["static_w"])
    for field in everything[:-1]:  # the last, the fraction of memory, follows from two others
        agree(f"{name}, {field}", getattr(ours, field), peer[field], 1e-5)
    best = shortest(
        {
            "ours": lambda: all_costs(genes),
            "peer": lambda: in_numpy(same, everything),
            "our_latency": lambda: latency(genes),
            "peer_latency": lambda: in_numpy(same, ("latency_s",)),
        }
    )
    return [
        row(f"{name}_all_costs_of_{POPULATION}_s", best["ours"], best["peer"], GOAL_S),
        row(f"{name}_latency_of_{POPULATION}_s", best["our_latency"], best["peer_latency"], GOAL_S),
    ]


def whole_workloads() -> list[Row]:
    """Networks of FBNet's space layer by layer, without a table: lowered one by one, estimated in one call."""
    space, device = discover.load("search_spaces.spaces", "fbnet", "space")(), load_device("raspberry_pi_4")
    genes = jax.jit(jax.vmap(space.sample))(jax.random.split(jax.random.key(1), WHOLE))
    variants = Variants(space)
    layers = Workload.stack([variant.layers for variant in variants.rows])  # [V, L]
    index = jax.vmap(variants.index)(genes)  # [N, S]
    work, _, _ = apply_precision(device, jax.tree.map(lambda leaf: leaf[index].reshape(WHOLE, -1), layers))
    lowered, lowered_s = timed(lambda: [space.freeze(each).lower() for each in np.asarray(genes[:LOWERED])])
    agree("fbnet, lowered MACs", work.macs.sum(-1)[:LOWERED], [sum(x.macs for x in each) for each in lowered], 1e-6)
    price, by_table = jax.jit(estimate), jax.jit(jax.vmap(cost_table(space, device).exact))
    agree("fbnet, with and without a table", price(device, work).latency_s, by_table(genes).latency_s, 1e-5)
    best = shortest({"whole": lambda: price(device, work)})
    return [
        row("fbnet_lowered_per_second", LOWERED / lowered_s),
        row("fbnet_estimated_without_table_per_second", WHOLE / best["whole"]),
    ]


def fifteen_layers() -> SearchSpace:
    """The network that SCALE-Sim and ZigZag are asked about: 15 layers that multiply, 4.44 M MACs, 32x32 images."""
    return SearchSpace(
        "fifteen_layers",
        32,
        3,
        10,
        stem=Stage(ConvNorm(3, "relu6"), width=16),
        stages=(
            Stage(InvertedResidual(3, 3), width=24, stride=2),
            Stage(InvertedResidual(3, 3), width=24),
            Stage(InvertedResidual(5, 3), width=40, stride=2),
            Stage(InvertedResidual(3, 3), width=40),
        ),
        head=Classifier(features=128, activation="relu6"),
    )


def scalesim(folder: Path) -> list[Row]:
    """Cycles of the network on a 32 x 32 array, per dataflow; SCALE-Sim's and ours must be equal, layer by layer."""
    layers = [layer for layer in fifteen_layers().lower() if layer.multiplies]
    asked = [_topology(position, layer) for position, layer in enumerate(layers)]
    said = answer("scalesim", folder, {"layers": asked, "runs": DATAFLOWS, "side": SIDE})
    work, found = Workload.of(layers), []
    for dataflow in DATAFLOWS:
        agree(f"scalesim, {dataflow}", _cycles(layers, dataflow), said["cycles"][dataflow])
        total = network_cycles(work, SIDE, SIDE, dataflow).cycles
        agree(f"scalesim, {dataflow}, whole network", float(total), sum(said["cycles"][dataflow]))
        best = shortest({"ours": lambda dataflow=dataflow: network_cycles(work, SIDE, SIDE, dataflow)}, rounds=200)
        found.append(row(f"scalesim_network_{dataflow}_s", best["ours"], said["seconds"][dataflow]))
    return found


def _topology(position: int, layer: Layer) -> list[Any]:
    """A line of SCALE-Sim's. It has no padding: the input is what the windows cover. Filters are those of a channel."""
    size = [
        (out - 1) * layer.stride + kernel
        for out, kernel in ((layer.out_h, layer.kernel_h), (layer.out_w, layer.kernel_w))
    ]
    depthwise = layer.op == Op.DEPTHWISE
    name, filters = f"layer{position}" + ("DP" if depthwise else ""), 1 if depthwise else layer.out_channels
    return [name, *size, layer.kernel_h, layer.kernel_w, layer.in_channels, filters, layer.stride]


def _cycles(layers: list[Layer], dataflow: str) -> list[int]:
    """Exact cycles of every product, one per channel of a depthwise layer."""
    found: list[int] = []
    for layer in layers:
        size = jax.tree.map(int, gemm(jax.tree.map(lambda leaf: leaf[0], Workload.of([layer]))))
        found += [systolic_cycles(size.m, size.k, size.n, SIDE, SIDE, dataflow)] * size.groups
    return found


def nni(folder: Path) -> list[Row]:
    """MACs by NNI's counter and profiler, beside all our costs of the same networks; the MACs must be equal."""

    def prepared() -> Any:
        space = proxylessnas.space(widths=(32, 16, 32, 40, 80, 96, 192, 320, 1280))
        device, one = load_device("raspberry_pi_4"), jnp.zeros(space.num_decisions, jnp.int32)
        price = jax.jit(cost_table(space, device).exact)
        jax.block_until_ready(price(one))
        return space, device, one, price

    (space, device, one, price), space_s = timed(prepared)
    said = answer("nni", folder, {"samples": 10, "rounds": 5})
    network, whole = resolve("proxylessnas_mobile").network(), jax.jit(estimate)
    agree("nni, ProxylessNAS-Mobile", network.macs, said["network_macs"])
    for named, macs in said["samples"]:
        agree(f"nni, {named}", space.freeze(_genes(named)).macs, macs)

    def from_scratch() -> Any:
        return whole(device, apply_precision(device, Workload.of(network.lower()))[0])

    many = jax.jit(jax.vmap(space.sample))(jax.random.split(jax.random.key(0), POPULATION))
    together = jax.jit(jax.vmap(cost_table(space, device).exact))
    best = shortest({"alone": lambda: price(one), "together": lambda: together(many), "network": from_scratch})
    return [
        row("nni_network_s", best["network"], said["network_s"]),
        row("nni_space_prepared_s", space_s, said["space_s"]),
        row("nni_sample_alone_s", best["alone"], said["sample_s"]),
        row("nni_sample_of_a_population_s", best["together"] / POPULATION, said["sample_s"]),
    ]


def _genes(named: dict[str, Any]) -> list[int]:
    """NNI's labels as our genes: `s2_depth` layers of stage 2, `s2_i0` its first block, such as `k5e3`."""
    genes = []
    for stage, layers in enumerate(proxylessnas.LAYERS, 2):
        for layer in range(layers):
            there = layer < named.get(f"s{stage}_depth", layers)
            kernel, expand = map(int, named[f"s{stage}_i{layer}"][1:].split("e"))
            genes.append(proxylessnas.BLOCKS.index((kernel, expand)) if there else len(proxylessnas.BLOCKS))
    return genes


def nn_meter(folder: Path) -> list[Row]:
    """Latency of ProxylessNAS-Mobile on a phone by nn-Meter, beside our costs of it on one."""
    network, device, price = resolve("proxylessnas_mobile").network(), load_device("pixel_3"), jax.jit(estimate)
    said = _with_onnx("nn_meter", folder, network, {})
    best = shortest({"ours": lambda: price(device, apply_precision(device, Workload.of(network.lower()))[0])})
    return [row("nn_meter_network_s", best["ours"], said["seconds"])]


def zigzag(folder: Path) -> list[Row]:
    """A network on a 32 x 32 array: ZigZag searches a mapping of every layer, we take the array's own."""
    network, device, price = fifteen_layers(), load_device("systolic_32x32"), jax.jit(estimate)
    said = _with_onnx("zigzag", folder, network, {"lpf_limit": 6})
    best = shortest({"ours": lambda: price(device, apply_precision(device, Workload.of(network.lower()))[0])})
    return [row("zigzag_network_s", best["ours"], said["seconds"])]


def _with_onnx(name: str, folder: Path, network: SearchSpace, question: dict[str, Any]) -> Any:
    """What a peer answers that reads an ONNX file of the network, for one image."""
    meta = Meta(network.name, tuple(map(str, range(network.classes))), (0.5,) * 3, (0.5,) * 3)
    proto = onnx.build(Model(network, fresh(network, jax.random.key(0)), meta))
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / onnx.FILE
        file.write_bytes(proto.SerializeToString())
        return answer(name, folder, {"onnx": str(file)} | question)

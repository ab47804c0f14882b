"""Loading devices: every shipped file is complete, every mistake is one clear sentence."""

from __future__ import annotations

import dataclasses
import json
import re
import tomllib
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from hw_models import Layer, Op, Workload, device_names, estimate, load_device
from hw_models.device_file import parse_device
from hw_models.discover import names
from hw_models.errors import InputError
from hw_models.precision import apply_precision

VALID = resources.files("hw_models.devices").joinpath("pixel_3.toml").read_text()


def _edit(pattern: str, replacement: str) -> Callable[[str], str]:
    def edit(text: str) -> str:
        changed = re.sub(pattern, replacement, text, count=1, flags=re.MULTILINE)
        assert changed != text
        return changed

    return edit


# What is done to a valid file, and what the error must say besides the name of the file.
MISTAKES = {
    "unknown key": (_edit(r"^clock_hz", "clock_herz"), ["compute.clock_herz", "did you mean 'compute.clock_hz'?"]),
    "unknown key far off": (_edit(r"^clock_hz.*$", "zzz = 1"), ["compute.zzz", "allowed:", "clock_hz"]),
    "unknown section": (_edit(r"^\[memory\]", "[memry]"), ["'memry'", "did you mean 'memory'?"]),
    "key of another kind": (_edit(r"^channel_tile", "dsp = 3\nchannel_tile"), ["compute.dsp", "allowed:"]),
    "missing number": (_edit(r"^clock_hz.*$", ""), ["compute.clock_hz", "missing", "add it"]),
    "missing kind's own number": (_edit(r"^pixel_tile.*$", ""), ["compute.pixel_tile", "missing"]),
    "missing kind": (_edit(r"^kind.*$", ""), ["'kind'", "missing"]),
    "unknown kind": (_edit(r'^kind = "cpu"', 'kind = "cpus"'), ["unknown kind of device 'cpus' in /", "'cpu'?"]),
    "kind with a dot": (_edit(r'^kind = "cpu"', 'kind = ".cpu"'), ["unknown kind of device '.cpu'"]),
    "text for a number": (_edit(r"^clock_hz = \S+", 'clock_hz = "2.5e9"'), ["compute.clock_hz", "'2.5e9'", "number"]),
    "boolean for a number": (_edit(r"^units = \S+", "units = true"), ["compute.units", "True", "number"]),
    "zero": (_edit(r"^clock_hz = \S+", "clock_hz = 0"), ["compute.clock_hz", "positive"]),
    "negative": (_edit(r"^static_w = \S+", "static_w = -1.5"), ["energy.static_w", "-1.5", "positive"]),
    "infinite": (_edit(r"^static_w = \S+", "static_w = inf"), ["energy.static_w", "finite"]),
    "not a number": (_edit(r"^static_w = \S+", "static_w = nan"), ["energy.static_w", "finite"]),
    "too large for float32": (_edit(r"^clock_hz = \S+", "clock_hz = 1e300"), ["compute.clock_hz", "1e-30 to 1e+30"]),
    "too small for float32": (_edit(r"^clock_hz = \S+", "clock_hz = 1e-300"), ["compute.clock_hz", "1e-30 to 1e+30"]),
    "number for a table": (_edit(r"^macs_per_cycle = \{.*\}", "macs_per_cycle = 8"), ["compute.macs_per_cycle"]),
    "table for a number": (_edit(r"^clock_hz = \S+", "clock_hz = { a = 1 }"), ["compute.clock_hz", "number"]),
    "precision without energy": (_edit(r"^mac_j = \{.*\}", "mac_j = { int8 = 1e-12 }"), ["energy.mac_j.float32"]),
    "energy without precision": (_edit(r"^mac_j = \{", "mac_j = { int4 = 1e-12, "), ["energy.mac_j.int4", "did you"]),
    "no such precision": (_edit(r"^macs_per_cycle = \{", "macs_per_cycle = { fp8 = 1, "), ["'fp8'", "float32"]),
    "one precision twice": (_edit(r"^macs_per_cycle = \{", "macs_per_cycle = { w8a8 = 1, "), ["twice"]),
    "default not supported": (_edit(r'^default_precision = ".*"', 'default_precision = "int4"'), ["int4", "int8"]),
    "number for a text": (_edit(r'^kind = "cpu"', "kind = 3"), ["'kind'", "3", "text"]),
    "efficiency above one": (_edit(r"^depthwise_efficiency = \S+", "depthwise_efficiency = 1.5"), ["at most 1"]),
    "slow on-chip memory": (_edit(r"^sram_bytes_per_s = \S+", "sram_bytes_per_s = 1e3"), ["memory.sram_bytes_per_s"]),
    "unknown pattern": (_edit(r"^\[sparsity\.unstructured\]", "[sparsity.unstructurd]"), ["did you mean"]),
    "pattern without factor": (_edit(r"^factor = .*$", ""), ["sparsity.unstructured.factor", "missing"]),
    "sparsity that slows down": (_edit(r"^factor = \S+", "factor = 0.5"), ["sparsity.unstructured", "factor >= 1"]),
    "pattern of another kind": (
        _edit(r"^\[sparsity\.unstructured\]", "[sparsity.n_m]"),
        ["sparsity.n_m", "kind 'cpu' gain nothing", "remove it"],
    ),
    "channels with a factor": (_edit(r"^threshold = 1.0", "factor = 2\nthreshold = 1.0"), ["sparsity.channel.factor"]),
    "threshold above one": (_edit(r"^threshold = \S+", "threshold = 1.5"), ["sparsity.unstructured", "<= 1"]),
    "no provenance": (_edit(r"(?s)^\[provenance\].*", ""), ["'provenance'", "missing"]),
    "no source": (_edit(r"^source = .*$", ""), ["provenance.source", "missing"]),
    "empty source": (_edit(r"^source = .*$", 'source = " "'), ["provenance.source", "text"]),
    "no date": (_edit(r"^date = .*$", ""), ["provenance.date", "missing"]),
    "not a date": (_edit(r"^date = .*$", 'date = "yesterday"'), ["provenance.date", "yesterday"]),
    "unknown note": (_edit(r"^notes =", "note ="), ["provenance.note", "did you mean 'provenance.notes'?"]),
    "not TOML": (_edit(r"^kind = ", "kind "), ["not valid TOML"]),
    "key twice": (_edit(r"^(units = .*)$", r"\1\nunits = 2"), ["not valid TOML"]),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake_names_file_key_and_fix(mistake: str, tmp_path: Path) -> None:
    edit, expected = MISTAKES[mistake]
    path = tmp_path / "mine.toml"
    path.write_text(edit(VALID))
    with pytest.raises(InputError) as caught:
        load_device(path)
    message = str(caught.value)
    assert "\n" not in message
    for part in ["mine.toml", *expected]:
        assert part in message


@pytest.mark.parametrize(
    ("name", "number", "product"),
    [
        ("edge_tpu", "array_rows = 64", "compute.array_rows * compute.array_cols = 32 * 64 = 2048"),
        ("tpu_v2", "array_cols = 128", "compute.array_rows * compute.array_cols = 128 * 32 = 4096"),
        ("zcu102", "pixel_parallel = 8", "16 * 16 * 32 = 8192"),
    ],
)
def test_the_cells_of_an_array_do_the_multiplications_it_claims(name: str, number: str, product: str) -> None:
    text = resources.files("hw_models.devices").joinpath(f"{name}.toml").read_text()
    wrong = tomllib.loads(text.replace(number, f"{number.split(' = ')[0]} = 32"))
    (rate,) = wrong["compute"]["macs_per_cycle"].values()
    with pytest.raises(InputError) as caught:
        parse_device(wrong, name)
    assert product in str(caught.value) and f"is {rate} (" in str(caught.value)


def test_an_array_may_be_faster_in_other_precisions() -> None:
    data = tomllib.loads(resources.files("hw_models.devices").joinpath("tpu_v2.toml").read_text())
    for section, key in (("compute", "macs_per_cycle"), ("compute", "efficiency"), ("energy", "mac_j")):
        data[section][key]["int8"] = data[section][key]["bfloat16"] * (2 if key == "macs_per_cycle" else 1)
    assert parse_device(data, "mine").compute["macs_per_cycle"]["int8"] == 2 * 128 * 128


@pytest.mark.parametrize("batch", [0, 2**24 + 1, 3_000_000_000])
def test_a_batch_that_cannot_be_priced_is_named(batch: int) -> None:
    work = Workload.of([Layer(Op.CONV, 8, 8, 8, 8, 3, 16, 3, 3)])
    with pytest.raises(InputError, match=f"batch {batch} is not allowed"):
        estimate(load_device("zcu102"), work, batch)


def test_no_hint_leaves_no_colon() -> None:
    with pytest.raises(InputError, match=r"^unknown device 'zzzzzz' \(known: a100"):
        load_device("zzzzzz")


def test_unknown_device_suggests_the_nearest() -> None:
    with pytest.raises(InputError, match=r"unknown device 'pixel3': did you mean 'pixel_3'\?"):
        load_device("pixel3")


def test_missing_file_is_an_input_error() -> None:
    with pytest.raises(InputError, match="does not exist"):
        load_device("nowhere/mine.toml")


def test_a_path_loads_what_the_name_loads(tmp_path: Path) -> None:
    path = tmp_path / "pixel_3.toml"
    path.write_text(VALID)
    assert load_device(path) == load_device(str(path)) == load_device("pixel_3")


def test_devices_of_every_kind() -> None:
    devices = [load_device(name) for name in device_names()]
    assert len(devices) >= 30
    assert {device.kind for device in devices} == set(names("hw_models.analytic"))


@pytest.mark.parametrize("name", device_names())
def test_shipped_device_states_where_every_number_is_from(name: str) -> None:
    provenance = dict(load_device(name).provenance)
    assert len(provenance["source"]) > 20
    assert re.fullmatch(r"20\d\d-\d\d-\d\d", provenance["date"])
    text = resources.files("hw_models.devices").joinpath(f"{name}.toml").read_text()
    head = text.split("[provenance]")[0]
    bare = [line for line in head.splitlines() if re.match(r"\w+ = [\d{]", line) and len(line.partition("#")[2]) < 6]
    assert not bare
    assert "not re-checked" not in text and "from memory" not in text


@pytest.mark.parametrize("name", device_names())
def test_json_round_trip(name: str) -> None:
    device = load_device(name)
    data = json.loads(json.dumps(device.to_json(), allow_nan=False))
    assert parse_device(data, name) == device
    assert data["name"] == name


@pytest.mark.parametrize("name", device_names())
def test_order_of_precisions_in_the_file_does_not_matter(name: str) -> None:
    data = tomllib.loads(resources.files("hw_models.devices").joinpath(f"{name}.toml").read_text())
    turned = data | {"compute": dict(reversed(data["compute"].items()))}
    turned["compute"]["macs_per_cycle"] = dict(reversed(data["compute"]["macs_per_cycle"].items()))
    assert parse_device(turned, name) == load_device(name)


def test_numbers_are_leaves_and_texts_are_static() -> None:
    device = load_device("a100")
    leaves, structure = jax.tree.flatten(device)
    assert all(isinstance(leaf, float) for leaf in leaves)
    assert jax.tree.unflatten(structure, leaves) == device
    hash(structure)  # needed by jit
    doubled = jax.tree.map(lambda x: 2 * x, device)
    assert doubled.compute["clock_hz"] == 2 * device.compute["clock_hz"]
    assert doubled.name == "a100"


def test_device_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        load_device("a100").name = "b100"  # type: ignore[misc]


def test_with_numbers_changes_one_number() -> None:
    device = load_device("raspberry_pi_4")
    faster = device.with_numbers(compute__clock_hz=1.8e9)
    assert faster.compute["clock_hz"] == 1.8e9
    assert device.compute["clock_hz"] == 1.5e9
    with pytest.raises(InputError, match="did you mean 'compute__clock_hz'"):
        device.with_numbers(compute__clock=1.0)
    with pytest.raises(InputError, match="positive"):
        device.with_numbers(compute__clock_hz=-1.0)


def test_a_new_kind_is_one_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "flynas_toy_lab").mkdir()
    (tmp_path / "flynas_toy_lab" / "__init__.py").write_text("")
    (tmp_path / "flynas_toy_lab" / "abacus.py").write_text(
        "import jax.numpy as jnp\n"
        "from hw_models.keys import Keys\n"
        "from hw_models.roofline import Times\n"
        "KEYS = Keys(required=('compute.beads',))\n"
        "def layer_times(device, layers, run, gain, batch=1):\n"
        "    seconds = layers.macs * batch / device.compute['beads']\n"
        "    return Times(seconds, 0 * seconds, 0 * seconds, seconds, 0 * seconds)\n"
        "def resource_fraction(device):\n"
        "    return jnp.float32(0.25)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    text = re.sub(r'^kind = "cpu"', 'kind = "flynas_toy_lab.abacus"', VALID, flags=re.MULTILINE)
    for key in ("channel_tile", "pixel_tile", "depthwise_efficiency"):
        text = re.sub(rf"^{key} = .*\n", "", text, flags=re.MULTILINE)
    text = re.sub(r"^convert_elements_per_cycle = \S+", "beads = 10.0", text, flags=re.MULTILINE)
    path = tmp_path / "abacus.toml"
    path.write_text(text)
    work = Workload.of([Layer(Op.CONV, 8, 8, 8, 8, 3, 16, 3, 3)])
    costs = estimate(load_device(path), work)
    assert float(costs.latency_s) == pytest.approx(8 * 8 * 3 * 16 * 9 / 10, rel=1e-5)
    assert float(costs.resource_fraction) == 0.25


def test_stacked_devices_are_priced_by_one_vmap() -> None:
    device = load_device("zcu102")
    scale = jnp.asarray([1.0, 2.0, 4.0])
    stacked = jax.tree.map(lambda leaf: jnp.full(3, leaf), device)
    stacked.compute["clock_hz"] = device.compute["clock_hz"] * scale
    work, _, _ = apply_precision(device, Workload.of([Layer(Op.CONV, 56, 56, 56, 56, 64, 64, 3, 3)]))

    def price(one: Any) -> jax.Array:
        return estimate(one, work).latency_s

    latency = jax.vmap(price)(stacked)
    alone = [price(device.with_numbers(compute__clock_hz=device.compute["clock_hz"] * float(s))) for s in scale]
    assert jnp.allclose(latency, jnp.stack(alone), rtol=1e-5)
    assert bool(jnp.all(jnp.diff(latency) < 0))


def test_a_byte_order_mark_is_read_over(tmp_path: Path) -> None:
    path = tmp_path / "pixel_3.toml"
    path.write_text(VALID, encoding="utf-8-sig")
    assert load_device(path) == load_device("pixel_3")

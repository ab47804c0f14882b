"""A device: numbers read strictly from a TOML file, every one of them with a source.

A device is a PyTree. Its numbers are leaves, so they can be differentiated (co-design), replaced and, stacked,
priced by one `vmap`; its texts are static. Which numbers a kind of device needs is said by `KEYS` in
`hw_models/analytic/<kind>.py`, next to the equations that use them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import jax

from hw_models.discover import unknown
from hw_models.keys import check_number, keys_of


class Calibration(NamedTuple):
    """How well the numbers of a device were found to predict: on networks held out of the fit.

    It holds for `precision` and, unless None, for runs of `batch` images. `typical_error` is the relative error that
    68 % of the networks stay below, `mape` the mean one.
    """

    networks: int
    precision: str
    batch: int | None
    spearman: float
    kendall: float
    within_5: float
    within_10: float
    mape: float
    typical_error: float
    source: str
    date: str


@partial(
    jax.tree_util.register_dataclass,
    data_fields=("compute", "memory", "energy", "sparsity"),
    meta_fields=("name", "kind", "default_precision", "precisions", "provenance", "calibration"),
)
@dataclass(frozen=True)
class Device:
    """A device to price layers on. Load one with `hw_models.device_file.load_device`.

    `compute`, `memory` and `energy` map keys of the file to numbers (or, per precision, to a mapping of numbers);
    `sparsity` maps the name of a zero pattern the device gains from to its numbers (`hw_models.keys.SPARSITY`).
    `precisions` are the names of the formats it computes in, `provenance` pairs of text.
    """

    name: str
    kind: str
    default_precision: str
    precisions: tuple[str, ...]
    compute: dict[str, Any]
    memory: dict[str, Any]
    energy: dict[str, Any]
    sparsity: dict[str, dict[str, Any]]
    provenance: tuple[tuple[str, str], ...]
    calibration: Calibration | None = None

    def to_json(self) -> dict[str, Any]:
        """The device as plain JSON data, in the form of its file, plus `name`.

        Example:
            >>> from hw_models.device_file import load_device, parse_device
            >>> parse_device(load_device("a100").to_json(), "a100") == load_device("a100")
            True
        """
        sections = {"compute": self.compute, "memory": self.memory, "energy": self.energy, "sparsity": self.sparsity}
        head = {"name": self.name, "kind": self.kind, "default_precision": self.default_precision}
        found = head | jax.tree.map(float, sections) | {"provenance": dict(self.provenance)}
        if self.calibration is not None:
            found["calibration"] = {
                key: value for key, value in self.calibration._asdict().items() if value is not None
            }
        return found

    def unnamed(self) -> Device:
        """The same numbers without texts, so that programs compiled for one device serve its like.

        Example:
            >>> from hw_models.device_file import load_device
            >>> load_device("a100").unnamed().name
            ''
        """
        return replace(self, name="", provenance=(), calibration=None)

    def error_at(self, precision: str, batch: int) -> float | None:
        """Relative error of a latency, where one was measured: in that precision and for runs of that many images.

        Example:
            >>> from hw_models.device_file import load_device
            >>> load_device("a100").error_at("float16", 1)
        """
        known = self.calibration
        if known is None or known.precision != precision or known.batch not in (None, batch):
            return None
        return known.typical_error

    def with_numbers(self, **numbers: float) -> Device:
        """The same device with other numbers, given as `section__key=value` (`compute__units=4`).

        Raises:
            InputError: the device has no such number, or the value is not allowed for it.

        Example:
            >>> from hw_models.device_file import load_device
            >>> load_device("raspberry_pi_4").with_numbers(compute__units=4).compute["units"]
            4.0
        """
        keys = keys_of(self.kind)
        single = {key.replace(".", "__"): key for key in keys.single}
        checked: dict[str, float] = {}
        for name, value in numbers.items():
            if name not in single:
                raise unknown(f"number of device {self.name}", name, single)
            key = single[name]
            checked[key] = check_number(value, f"device {self.name}", key, key in keys.or_zero)
        return self.replaced(checked)

    def replaced(self, numbers: Mapping[str, Any]) -> Device:
        """The same device with other numbers by key, `section.key` or `section.key.precision`.

        Nothing is checked: values may be traced, and outside of what a file may say.

        Example:
            >>> from hw_models.device_file import load_device
            >>> device = load_device("a100").replaced({"compute.units": 1.0, "compute.efficiency.int8": 0.5})
            >>> device.number("compute.units"), device.number("compute.efficiency.int8")
            (1.0, 0.5)
        """
        sections: dict[str, Any] = {name: dict(getattr(self, name)) for name in ("compute", "memory", "energy")}
        for full, value in numbers.items():
            section, key, *precision = full.split(".")
            sections[section][key] = sections[section][key] | {precision[0]: value} if precision else value
        return replace(self, **sections)

    def number(self, full: str) -> Any:
        """The number at `section.key` or `section.key.precision`, None where the file leaves it out.

        Example:
            >>> from hw_models.device_file import load_device
            >>> load_device("zcu102").number("compute.units"), load_device("zcu102").number("memory.flash_bytes")
            (3.0, None)
        """
        section, key, *precision = full.split(".")
        found = getattr(self, section).get(key)
        return found[precision[0]] if precision else found

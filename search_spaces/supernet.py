"""One set of shared weights for every network of a space, in two executions that make the same numbers.

`switch`, for CPUs: at every slot a switch picks the branch (kind, expand, or skip; kernel where it is no operand) and
runs the frozen block on weights cut out of the shared ones; widths, heads, attention and, with the compiled depthwise
kernel, the window of the filters are traced operands inside the branch. The whole space is one compiled program, and a
sub-network costs about what it would cost alone at the largest widths, backwards too: see `search_spaces/switch.py`.

`masks`, for populations under `vmap` on GPUs and TPUs: see `search_spaces/masked.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from hw_models.errors import InputError
from search_spaces.initial import fill
from search_spaces.kernels.depthwise import checked_implementation
from search_spaces.masked import MaskedProgram, chosen_execution
from search_spaces.slot_program import SlotProgram
from search_spaces.space import SearchSpace
from search_spaces.switch import switch


class Supernet:
    """The shared weights of `space` and the programs that run any of its networks.

    Variables are `{slot name: {kind: {"params": ..., "batch_stats": ...}}}`, sized for the largest values. They are the
    same for every `execution`: `switch`, `masks`, or `auto` for the one of this machine's backend (on CPUs `switch`).
    Executions differ by rounding. `programs` holds what runs each slot, in their order.

    Raises:
        InputError: an unknown execution or implementation of depthwise convolution; a scheme that learns.

    Example:
        >>> from search_spaces.spaces import tiny
        >>> space = tiny.space()
        >>> net = Supernet(space)
        >>> variables = net.init(jax.random.key(0))
        >>> net.apply(variables, jnp.zeros((2, 8, 8, 1)), space.sample(jax.random.key(1))).shape
        (2, 10)
    """

    def __init__(self, space: SearchSpace, depthwise: str = "auto", execution: str = "auto"):
        self.space = space
        scheme = space.scheme
        for quantizer in () if scheme is None else (scheme.weight_quantizer, scheme.act_quantizer):
            if quantizer.learns:
                raise InputError(
                    f"quantizer {quantizer.kind} learns its steps for one network and one width: shared weights take "
                    "one that does not, such as symmetric, affine or dorefa"
                )
        masked = any(
            len(slot.widths.pairs) > 1 or any(case.block.masked() for case in slot.cases) for slot in space.slots
        )
        if scheme is not None and masked and not scheme.act_quantizer.keeps_zeros:
            raise InputError(
                f"quantizer {scheme.act_quantizer.kind} moves zeros, and channels that are not in use are zeros: where "
                "widths or expansions are searched give act_quantizer=affine, or another that leaves 0 at 0"
            )
        self.depthwise = checked_implementation(depthwise)
        self.execution = chosen_execution(execution)
        self._sizes = [Supernet(each, depthwise, self.execution) for each in space.resolutions]
        program = MaskedProgram if self.execution == "masks" else SlotProgram
        self.programs = [program(slot, depthwise) for slot in space.slots]

    def init(self, key: Array) -> Any:
        """Fresh shared variables; the key is consumed."""
        return fill(key, self.shapes())

    def shapes(self) -> Any:
        """Shapes of the shared variables."""
        return {program.slot.name: program.shapes() for program in self.programs}

    def apply(
        self, variables: Any, x: Array, genes: Array, mode: str = "train", progress: Array | None = None
    ) -> Array:
        """Logits `[N, classes]` of the network of `genes [D]` on `x [N, H, W, C]`.

        Modes: `train` normalises with the batch, `eval` with the stored statistics. Differentiable in `variables` and
        `x`, in reverse mode and once. `progress` is the share of the training that is done, for what is annealed (None:
        all). Genes that are known while tracing (not an argument of the compiled function) compile that one network
        only.

        Raises:
            InputError: images or genes of another shape than the space's, or known genes out of range.
        """
        self._check_images(x)
        self._check_genes(genes)
        if self._sizes:
            if not isinstance(genes, jax.core.Tracer):
                net, rest = self._at(genes)
                return net.apply(variables, net.fitted(x), rest, mode, progress)
            return self._resized(variables, x, genes, mode, progress)
        return self._through(variables, x, genes, mode, progress)[0]

    def features(
        self, variables: Any, x: Array, genes: Array, mode: str = "train", progress: Array | None = None
    ) -> tuple[Array, dict[str, Array]]:
        """As `apply`, and what each slot but the last hands on, `[N, h, w, C]` by its name.

        Channels past the width in use are zero; a slot that is left out hands on what it was given.

        Raises:
            InputError: as `apply`; a space whose resolution is searched, where these maps have no one size.
        """
        if self._sizes:
            raise InputError(
                f"maps of space {self.space.name} differ in size with input_hw, which is searched: fix input_hw"
            )
        self._check_images(x)
        self._check_genes(genes)
        return self._through(variables, x, genes, mode, progress)

    def _through(
        self, variables: Any, x: Array, genes: Array, mode: str, progress: Array | None
    ) -> tuple[Array, dict[str, Array]]:
        maps = {}
        for program in self.programs:
            maps[program.slot.name] = x = program.run(
                variables[program.slot.name], x, program.pick(genes, progress), mode
            )
        del maps[self.programs[-1].slot.name]
        return x, maps

    def relaxed(
        self, variables: Any, x: Array, gates: Array, mode: str = "train", progress: Array | None = None
    ) -> Array:
        """Logits `[N, classes]` under `gates [D, C]`: kinds of block run side by side, and their results are mixed.

        Differentiable in `gates` as well. Under one-hot gates it equals `apply`. Inside a block kernels are mixed by
        their filters (convolution is linear in them), widths and expansions by masks after normalisation, and head
        counts, attention and reductions by their results, so that one block costs what its largest setting does.

        Sources: for kernels Stamoulis et al. 2019 (Single-Path NAS), https://arxiv.org/abs/1904.02877; for channels Wan
        et al. 2020 (FBNetV2), https://arxiv.org/abs/2004.05565.

        Raises:
            InputError: images or gates of another shape than the space's.
        """
        self._check_images(x)
        self._check_shape("gates", gates, self._gates_shape)
        if self._sizes:
            rest = gates[:-1, : self._sizes[0]._gates_shape[1]]
            results = [net.relaxed(variables, net.fitted(x), rest, mode, progress) for net in self._sizes]
            return sum(gates[-1, place] * result for place, result in enumerate(results))  # type: ignore[return-value]
        for program in self.programs:
            x = program.relaxed(variables[program.slot.name], x, program.mix(gates, progress), mode)
        return x

    def calibrate(self, variables: Any, x: Array, genes: Array) -> Any:
        """Batch statistics of the network of `genes` on `x`, shaped like the statistics in `variables`.

        Raises:
            InputError: as `apply`.
        """
        self._check_images(x)
        self._check_genes(genes)
        if self._sizes:
            if not isinstance(genes, jax.core.Tracer):
                net, rest = self._at(genes)
                return net.calibrate(variables, net.fitted(x), rest)
            branches = [lambda v, x, genes, net=net: net.calibrate(v, net.fitted(x), genes) for net in self._sizes]
            return lax.switch(genes[-1], branches, variables, x, genes[:-1])
        statistics = {}
        for program in self.programs:
            name = program.slot.name
            x, statistics[name] = program.calibrate(variables[name], x, program.pick(genes))
        return statistics

    @property
    def _gates_shape(self) -> tuple[int, int]:
        return self.space.num_decisions, int(self.space.cardinality.max(initial=1))

    def _check_images(self, x: Any) -> None:
        space = self.space
        wanted = (space.image_hw, space.image_hw, space.input_channels)
        if jnp.ndim(x) != 4 or jnp.shape(x)[1:] != wanted:
            raise InputError(
                f"images of shape {jnp.shape(x)} do not fit space {space.name}: give [N, {', '.join(map(str, wanted))}]"
            )

    def _check_genes(self, genes: Any) -> None:
        """Values as well where they are known."""
        if isinstance(genes, jax.core.Tracer):
            self._check_shape("genes", genes, (self.space.num_decisions,))
        else:
            self.space.validated(genes)

    def _check_shape(self, what: str, decided: Any, shape: tuple[int, ...]) -> None:
        if jnp.shape(decided) != shape:
            raise InputError(f"{what} of shape {jnp.shape(decided)} do not fit space {self.space.name}: give {shape}")

    def _at(self, genes: Any) -> tuple[Supernet, Any]:
        """The supernet of the resolution that known `genes` select, and the other genes."""
        known = np.asarray(genes)
        return self._sizes[known[-1]], known[:-1]

    def fitted(self, x: Array) -> Array:
        """Images scaled to the resolution of this space."""
        size = self.space.image_hw
        return x if x.shape[1] == size else jax.image.resize(x, (x.shape[0], size, size, x.shape[3]), "linear")

    def _resized(self, variables: Any, x: Array, genes: Array, mode: str, progress: Array | None) -> Array:
        """The network at the resolution that the last gene selects.

        Maps of different sizes cannot share a masked program: under `vmap` every resolution is computed.
        """

        def at(net: Supernet) -> Callable[..., Array]:
            return lambda variables, x, operands: net.apply(variables, net.fitted(x), operands[0], mode, operands[1])

        functions = [at(net) for net in self._sizes]
        params = variables
        if mode == "train":
            params = {
                slot: {kind: {"params": part["params"]} for kind, part in kinds.items()}
                for slot, kinds in variables.items()
            }

        return switch(genes[-1], functions, params, x, (genes[:-1], progress))


def with_statistics(variables: Any, statistics: Any) -> Any:
    """`variables` with their batch statistics replaced by those of `Supernet.calibrate`."""
    return {
        slot: {kind: {**part, "batch_stats": statistics[slot][kind]} for kind, part in kinds.items()}
        for slot, kinds in variables.items()
    }

"""Batch normalisation, alone and with what follows it.

Shapes: `x [N, H, W, C]`. Statistics and parameters are float32, or wider where `x` is.
"""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jax import Array, lax

from hw_models.errors import InputError
from search_spaces.channels import Channels
from search_spaces.initial import parameter
from search_spaces.kept import keep
from search_spaces.kernels.normalise import available, moments
from search_spaces.kernels.normalise import normalised as fused_norm
from search_spaces.layers import Activation

NORM_EPSILON = 1e-5
NORM_MOMENTUM = 0.9


class Norm(nn.Module):
    """Batch normalisation over N, H, W.

    Modes: `train` normalises with the batch (and moves the running statistics when they are mutable), `calibrate`
    normalises with the batch and stores its statistics as they are, `eval` uses the stored ones. `fused` names an
    activation that follows, computed together with it by the compiled kernel on the leading `channels` in use; it is
    for `normalised`, which knows where that is possible.
    """

    fused: str | None = None

    @nn.compact
    def __call__(self, x: Array, mode: str = "eval", channels: Channels | None = None) -> Array:
        width, wide = x.shape[-1], x.astype(jnp.promote_types(x.dtype, jnp.float32))
        scale = parameter(self, "scale", (width,))
        bias = parameter(self, "bias", (width,))
        stored_mean = self.variable("batch_stats", "mean", jnp.zeros, (width,), jnp.float32)
        stored_var = self.variable("batch_stats", "var", jnp.ones, (width,), jnp.float32)
        if mode == "eval":
            mean, var = stored_mean.value, stored_var.value
        elif mode in ("train", "calibrate"):
            if self.fused is not None:
                mean, var = map(keep, moments(x))
            else:
                mean = keep(wide.mean((0, 1, 2)))
                # not E[x^2] - E[x]^2, which loses all digits where the mean is large beside the deviation
                var = keep(jnp.square(wide - mean).mean((0, 1, 2)))
            share = NORM_MOMENTUM if mode == "train" else 0.0
            if self.is_mutable_collection("batch_stats") and not self.is_initializing():
                stored_mean.value = share * stored_mean.value + (1 - share) * mean
                stored_var.value = share * stored_var.value + (1 - share) * var
        else:
            raise InputError(f"unknown mode '{mode}': use train, calibrate or eval")
        if self.fused is not None:
            active = None if channels is None else channels.active
            shares = None if channels is None else channels.shares(width)
            return fused_norm(x, scale, bias, mean, var, NORM_EPSILON, self.fused, active, shares)
        factor = scale * lax.rsqrt(var + NORM_EPSILON)
        return (wide * factor + (bias - mean * factor)).astype(x.dtype)


def normalised(
    x: Array,
    name: str,
    mode: str,
    activation: str | None = None,
    channels: Channels | None = None,
    implementation: str = "auto",
) -> Array:
    """`Norm` of that `name`, `Activation`, and the mask of `channels`; call inside a module's compact method.

    On a CPU all three are one call of the compiled kernel while batch statistics are used; with those that are stored
    they are plain layers, which exporters know and compilers fuse. `implementation` is that of depthwise convolutions.
    """
    if mode in ("train", "calibrate") and available(x, activation or "identity", implementation):
        return Norm(activation or "identity", name=name)(x, mode, channels)
    y = Norm(name=name)(x, mode)
    if activation is not None:
        y = Activation(activation)(y)
    return y if channels is None else channels.mask(y)

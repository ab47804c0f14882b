from dataclasses import dataclass
from search_spaces.quantizers._quantizer import Quantizer, straight_through
from search_spaces.quantizers import _uniform
import jax.numpy as jnp


@dataclass(frozen=True)
class Symmetric(Quantizer):
    kind = "symmetric"

    def rounded(self, x, bits, learned, axes, where=None):
        a = jnp.abs(x) if where is None else jnp.where(where, jnp.abs(x), 0)
        step = _uniform.symmetric(a.max(axes, keepdims=True), bits)
        return straight_through(
            x,
            (
                step * jnp.clip(jnp.round(x / step), -_uniform.largest_signed(bits), _uniform.largest_signed(bits))
            ).astype(x.dtype),
        )


quantizer = Symmetric

from dataclasses import dataclass
from search_spaces.quantizers._quantizer import Quantizer, straight_through
from search_spaces.quantizers import _uniform
import jax.numpy as jnp


@dataclass(frozen=True)
class Affine(Quantizer):
    kind = "affine"
    BITS = (1, 16)

    def observed(self, x, axes):
        w = x.astype(jnp.float32)
        return {"low": w.min(axes, keepdims=True), "high": w.max(axes, keepdims=True)}

    def rounded(self, x, bits, learned, axes, where=None):
        r = learned or self.observed(x, axes)
        step, zero = _uniform.affine(r["low"], r["high"], bits)
        last = _uniform.largest_unsigned(bits)
        low, high = -step * zero, step * (last - zero)
        c = jnp.clip(x, low, high)
        return straight_through(c, (step * (_uniform.code(x, step, zero, last) - zero)).astype(x.dtype))


quantizer = Affine

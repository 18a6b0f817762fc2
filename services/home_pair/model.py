"""A Llama-architecture decoder in JAX: RMS norms, interleaved rotary positions, gated SiLU, tied embeddings."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from home_pair.recipes import Shape

Weights = dict[str, Any]

NORM_EPSILON = 1e-5
ROPE_BASE = 10_000.0
CONTEXT = 256


def new_weights(shape: Shape, seed: int) -> Weights:
    """Draws weights from N(0, 1/fan-in), residual outputs scaled by (2 layers)^-1/2, embeddings from N(0, .02^2)."""
    rng = np.random.default_rng(seed)
    d, h = shape.width, shape.hidden
    damp = (2 * shape.layers) ** -0.5

    def matrix(rows: int, columns: int, scale: float = 1.0) -> np.ndarray:
        drawn: np.ndarray = rng.standard_normal((rows, columns)) * scale * rows**-0.5
        return drawn.astype(np.float32)

    def layer() -> dict[str, np.ndarray]:
        return {
            "attn_norm": np.ones(d, np.float32),
            "attn_q": matrix(d, d),
            "attn_k": matrix(d, d),
            "attn_v": matrix(d, d),
            "attn_output": matrix(d, d, damp),
            "ffn_norm": np.ones(d, np.float32),
            "ffn_gate": matrix(d, h),
            "ffn_up": matrix(d, h),
            "ffn_down": matrix(h, d, damp),
        }

    embedding = (rng.standard_normal((shape.vocabulary, d)) * 0.02).astype(np.float32)
    return {
        "token_embd": embedding,
        "output_norm": np.ones(d, np.float32),
        "layers": [layer() for _ in range(shape.layers)],
    }


def _norm(x: jax.Array, gain: jax.Array) -> jax.Array:
    return x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + NORM_EPSILON) * gain


def _rotate(x: jax.Array, cosine: jax.Array, sine: jax.Array) -> jax.Array:
    pairs = x.reshape(*x.shape[:-1], -1, 2)
    even, odd = pairs[..., 0], pairs[..., 1]
    return jnp.stack((even * cosine - odd * sine, even * sine + odd * cosine), axis=-1).reshape(x.shape)


def logits(weights: Weights, tokens: jax.Array, segments: jax.Array, heads: int) -> jax.Array:
    """Scores the next token everywhere: (rows, time) ids -> (rows x time, vocabulary); segments do not mix."""
    rows, time = tokens.shape
    width = weights["token_embd"].shape[1]
    size = width // heads
    frequency = ROPE_BASE ** (-np.arange(0, size, 2, dtype=np.float32) / size)
    angle = np.arange(time, dtype=np.float32)[:, None] * frequency
    cosine, sine = jnp.cos(angle), jnp.sin(angle)
    causal = np.tril(np.ones((time, time), bool))
    visible = causal & (segments[:, :, None] == segments[:, None, :])
    bias = jnp.repeat(jnp.where(visible, 0.0, -1e9), heads, axis=0)

    def split(x: jax.Array) -> jax.Array:
        return x.reshape(rows, time, heads, size).transpose(0, 2, 1, 3).reshape(rows * heads, time, size)

    x = weights["token_embd"][tokens.reshape(-1)]
    for layer in weights["layers"]:
        y = _norm(x, layer["attn_norm"])
        q = _rotate(split(y @ layer["attn_q"]), cosine, sine)
        k = _rotate(split(y @ layer["attn_k"]), cosine, sine)
        v = split(y @ layer["attn_v"])
        attention = jax.nn.softmax(q @ k.transpose(0, 2, 1) * size**-0.5 + bias, axis=-1)
        mixed = (attention @ v).reshape(rows, heads, time, size).transpose(0, 2, 1, 3).reshape(rows * time, width)
        x = x + mixed @ layer["attn_output"]
        y = _norm(x, layer["ffn_norm"])
        x = x + (jax.nn.silu(y @ layer["ffn_gate"]) * (y @ layer["ffn_up"])) @ layer["ffn_down"]
    scores: jax.Array = _norm(x, weights["output_norm"]) @ weights["token_embd"].T
    return scores

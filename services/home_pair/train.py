"""Trains a model with AdamW on fresh examples, batch sharded over two single-threaded host devices."""

from dataclasses import astuple
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax  # type: ignore[import-untyped]
from jax.flatten_util import ravel_pytree
from tokenizers import Tokenizer

from home_pair.batches import Batch, batches, prefetched
from home_pair.model import Weights, logits, new_weights
from home_pair.progress import NOTHING, Cost, Progress, say
from home_pair.recipes import Recipe

CHECKPOINT_STEPS = 500


def _optimizer(recipe: Recipe) -> optax.GradientTransformation:
    falling = max(1, int(recipe.steps * recipe.decay))
    schedule = optax.join_schedules(
        [
            optax.linear_schedule(0.0, recipe.rate, recipe.warm_up),
            optax.constant_schedule(recipe.rate),
            optax.linear_schedule(recipe.rate, 0.0, falling),
        ],
        [recipe.warm_up, max(recipe.warm_up, recipe.steps - falling)],
    )
    return optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.adamw(
            schedule,
            b2=recipe.second_moment,
            weight_decay=recipe.weight_decay,
            mask=lambda weights: jax.tree.map(lambda w: w.ndim == 2, weights),
        ),
    )


class _Halves:
    """Runs each step as two independent halves, one per device, and swaps their gradients through the host.

    An all-reduce would do the same, but blocks pool threads while it waits and can deadlock on two cores.
    """

    def __init__(self, recipe: Recipe, weights: Weights, state: Any) -> None:
        heads, optimizer = recipe.shape.heads, _optimizer(recipe)

        def loss(weights: Weights, batch: Any) -> jax.Array:
            tokens, targets, importance, segments = batch
            scores = logits(weights, tokens, segments, heads)
            losses = optax.softmax_cross_entropy_with_integer_labels(scores, targets.reshape(-1))
            return jnp.sum(losses * importance.reshape(-1))

        def gradient(weights: Weights, batch: Any) -> tuple[jax.Array, jax.Array]:
            value, slopes = jax.value_and_grad(loss)(weights, batch)
            return value, ravel_pytree(slopes)[0]

        def update(weights: Weights, state: Any, *gradients: jax.Array) -> tuple[Weights, Any]:
            updates, state = optimizer.update(separate(jnp.sum(jnp.stack(gradients), axis=0)), state, weights)
            return optax.apply_updates(weights, updates), state

        separate = ravel_pytree(weights)[1]
        self._gradient = jax.jit(gradient)
        self._update = jax.jit(update, donate_argnums=(0, 1))
        self._devices = jax.devices()
        self._held = [jax.device_put((weights, state), device) for device in self._devices]

    def step(self, batch: Batch) -> float:
        """Takes one step; returns the loss."""
        parts = (batch.tokens, batch.targets, batch.weights, batch.segments)
        shares = zip(*(np.array_split(part, len(self._devices)) for part in parts), strict=True)
        placed = zip(self._held, self._devices, shares, strict=True)
        found = [self._gradient(held[0], jax.device_put(share, device)) for held, device, share in placed]
        gradients = [gradient for _, gradient in found]
        self._held = [
            self._update(*held, *(jax.device_put(gradient, device) for gradient in gradients))
            for held, device in zip(self._held, self._devices, strict=True)
        ]
        return float(sum(float(loss) for loss, _ in found))

    @property
    def held(self) -> tuple[Weights, Any]:
        """Gives the weights and the state of the optimizer, the same on every device."""
        weights, state = self._held[0]
        return weights, state


def train(name: str, recipe: Recipe, tokenizer: Tokenizer, checkpoint: Path) -> tuple[Weights, Cost]:
    """Trains from scratch, or on from a checkpoint of the same recipe; one is kept every 500 steps."""
    weights = jax.tree.map(jnp.asarray, new_weights(recipe.shape, recipe.seed))
    state, first, before = _optimizer(recipe).init(weights), 0, NOTHING
    if checkpoint.exists():
        first, before, weights, state = _resumed(checkpoint, state)
    halves = _Halves(recipe, weights, state)
    source = prefetched(batches(tokenizer, recipe.seed * 1_000_000 + first, recipe.rows, recipe.request_weight))
    progress = Progress(name, first, recipe.steps, before)
    losses: list[float] = []
    say(f"{name}: {recipe.shape.parameters:,} parameters, from step {first:,} to {recipe.steps:,}")
    for done in range(first + 1, recipe.steps + 1):
        batch: Batch = next(source)
        losses.append(halves.step(batch))
        progress.add(batch.examples)
        if done % 100 == 0 or done == recipe.steps:
            progress.tell(done, sum(losses) / len(losses))
            losses.clear()
        if done % CHECKPOINT_STEPS == 0 or done == recipe.steps:
            _keep(checkpoint, done, progress.cost, *halves.held)
    return jax.tree.map(np.asarray, halves.held[0]), progress.cost


def _keep(checkpoint: Path, done: int, cost: Cost, weights: Weights, state: Any) -> None:
    leaves = {f"state.{i}": np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(state))}
    partial = checkpoint.with_suffix(".partial.npz")
    arrays = {"step": np.int64(done), "cost": np.array(astuple(cost)), **_flat(weights), **leaves}
    np.savez(partial, **arrays)  # type: ignore[arg-type]
    partial.replace(checkpoint)


def _resumed(checkpoint: Path, state: Any) -> tuple[int, Cost, Weights, Any]:
    with np.load(checkpoint) as stored:
        leaves = [jnp.asarray(stored[f"state.{i}"]) for i in range(len(jax.tree.leaves(state)))]
        state = jax.tree.unflatten(jax.tree.structure(state), leaves)
        examples, wall, cpu = map(float, stored["cost"])
        return (
            int(stored["step"]),
            Cost(int(examples), wall, cpu),
            jax.tree.map(jnp.asarray, load_weights(checkpoint)),
            state,
        )


def _flat(weights: Weights) -> dict[str, np.ndarray]:
    flat = {name: np.asarray(value) for name, value in weights.items() if name != "layers"}
    for index, layer in enumerate(weights["layers"]):
        flat |= {f"blk.{index}.{part}": np.asarray(value) for part, value in layer.items()}
    return flat


def load_weights(path: Path) -> Weights:
    """Reads the weights of a checkpoint."""
    layers: list[dict[str, np.ndarray]] = []
    weights: Weights = {"layers": layers}
    with np.load(path) as stored:
        for name in stored.files:
            if name.startswith("blk."):
                _, index, part = name.split(".", 2)
                while len(layers) <= int(index):
                    layers.append({})
                layers[int(index)][part] = stored[name]
            elif name in ("token_embd", "output_norm"):
                weights[name] = stored[name]
    return weights

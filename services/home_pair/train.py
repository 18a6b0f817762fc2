"""Trains a model with AdamW on fresh examples, batch sharded over two single-threaded host devices."""

import time
from collections.abc import Callable
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax  # type: ignore[import-untyped]
from jax.flatten_util import ravel_pytree
from jax.sharding import Mesh, PartitionSpec
from tokenizers import Tokenizer

from home_pair.batches import Batch, batches, prefetched
from home_pair.model import Shape, Weights, logits, new_weights

WARM_UP_STEPS = 100
CHECKPOINT_STEPS = 500


@dataclass(frozen=True, slots=True)
class Cost:
    """What a training took: examples seen, seconds on the wall, seconds of CPU over all cores."""

    examples: int
    wall: float
    cpu: float


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a model is trained: rows of 96 tokens per step, the rate falls to 0 over the last `decay` of the steps."""

    shape: Shape
    steps: int
    rate: float
    rows: int = 16
    second_moment: float = 0.99
    weight_decay: float = 0.05
    decay: float = 0.7
    request_weight: float = 0.1
    seed: int = 1


SMALL = Recipe(Shape(width=64, layers=3, heads=2, hidden=128), steps=3500, rate=4e-3)
LARGE = Recipe(Shape(width=224, layers=4, heads=7, hidden=512), steps=6500, rate=1e-3)


def _optimizer(recipe: Recipe) -> optax.GradientTransformation:
    falling = max(1, int(recipe.steps * recipe.decay))
    schedule = optax.join_schedules(
        [
            optax.linear_schedule(0.0, recipe.rate, WARM_UP_STEPS),
            optax.constant_schedule(recipe.rate),
            optax.linear_schedule(recipe.rate, 0.0, falling),
        ],
        [WARM_UP_STEPS, recipe.steps - falling],
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


def _step(recipe: Recipe, optimizer: optax.GradientTransformation, mesh: Mesh) -> Callable[..., Any]:
    """Compiles one step; its single all-reduce cannot deadlock, many at once can when threads are few."""
    whole, shared = PartitionSpec(), PartitionSpec("rows")

    def loss(weights: Weights, tokens: Any, targets: Any, importance: Any, segments: Any) -> jax.Array:
        scores = logits(weights, tokens, segments, recipe.shape.heads)
        losses = optax.softmax_cross_entropy_with_integer_labels(scores, targets.reshape(-1))
        return jnp.sum(losses * importance.reshape(-1))

    def step(weights: Weights, state: Any, *batch: Any) -> tuple[Weights, Any, jax.Array]:
        value, gradients = jax.value_and_grad(loss)(weights, *batch)
        joined, separate = ravel_pytree((value, gradients))
        value, gradients = separate(jax.lax.psum(joined, "rows"))
        updates, state = optimizer.update(gradients, state, weights)
        return optax.apply_updates(weights, updates), state, value

    specs = (whole, whole, shared, shared, shared, shared)
    mapped = jax.shard_map(step, mesh=mesh, in_specs=specs, out_specs=(whole, whole, whole), check_vma=False)
    return jax.jit(mapped, donate_argnums=(0, 1))


def train(name: str, recipe: Recipe, tokenizer: Tokenizer, checkpoint: Path) -> tuple[Weights, Cost]:
    """Trains from scratch, or on from a checkpoint of the same recipe; one is kept every 500 steps."""
    mesh = Mesh(np.array(jax.devices()), ("rows",))
    optimizer = _optimizer(recipe)
    weights = jax.tree.map(jnp.asarray, new_weights(recipe.shape, recipe.seed))
    state, first, before = optimizer.init(weights), 0, Cost(0, 0.0, 0.0)
    if checkpoint.exists():
        first, before, weights, state = _resumed(checkpoint, state)
    step = _step(recipe, optimizer, mesh)
    source = prefetched(batches(tokenizer, recipe.seed * 1_000_000 + first, recipe.rows, recipe.request_weight))
    began, cpu_began, examples = (
        time.monotonic() - before.wall,
        time.process_time() - before.cpu,
        before.examples,
    )
    recent: list[jax.Array] = []
    cost = before
    print(f"{name}: {recipe.shape.parameters:,} parameters, step {first} of {recipe.steps}", flush=True)
    for done in range(first + 1, recipe.steps + 1):
        batch: Batch = next(source)
        examples += batch.examples
        weights, state, value = step(weights, state, batch.tokens, batch.targets, batch.weights, batch.segments)
        recent.append(value)
        if done % 100 == 0 or done == recipe.steps:
            mean = float(np.mean([float(v) for v in recent]))
            recent.clear()
            cost = Cost(examples, time.monotonic() - began, time.process_time() - cpu_began)
            left = (cost.wall - before.wall) / (done - first) * (recipe.steps - done)
            print(
                f"{name}: step {done}/{recipe.steps}  loss {mean:.4f}  {examples:,} examples  "
                f"{cost.wall:.0f} s, {left:.0f} s left, {cost.cpu:.0f} s of CPU",
                flush=True,
            )
        if done % CHECKPOINT_STEPS == 0 or done == recipe.steps:
            cost = Cost(examples, time.monotonic() - began, time.process_time() - cpu_began)
            _keep(checkpoint, done, cost, weights, state)
    return jax.tree.map(np.asarray, weights), cost


def _keep(checkpoint: Path, done: int, cost: Cost, weights: Weights, state: Any) -> None:
    leaves = {f"state.{i}": np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(state))}
    partial = checkpoint.with_suffix(".partial.npz")
    np.savez(partial, step=np.int64(done), cost=np.array(astuple(cost)), **_flat(weights), **leaves)
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

"""Rebuilds the home pair from a seed: tokenizer, small, large, files, questions, card."""

from dataclasses import asdict, replace
from pathlib import Path

from home_pair.card import write_card
from home_pair.evaluate import model_file, questions_file, write_questions
from home_pair.export import export
from home_pair.progress import say
from home_pair.recipes import LARGE, SMALL
from home_pair.tokenizer import load_tokenizer, train_tokenizer
from home_pair.train import train


def build(models: Path, work: Path, seed: int, share: float) -> None:
    """Runs every step in order; finished checkpoints in `work` are not trained again, `share` shortens the training."""
    work.mkdir(parents=True, exist_ok=True)
    models.mkdir(parents=True, exist_ok=True)
    stored = work / "tokenizer.json"
    if not stored.exists():
        say("tokenizer: learning from 60,000 examples, about 10 s")
        train_tokenizer(seed).save(str(stored))
    tokenizer = load_tokenizer(stored)
    for tier, recipe in (("small", SMALL), ("large", LARGE)):
        recipe = replace(recipe, seed=seed, steps=max(200, int(recipe.steps * share)))
        weights, cost = train(tier, recipe, tokenizer, work / f"{tier}.npz")
        facts = {
            "seed": str(seed),
            "steps": str(recipe.steps),
            **{f"cost.{name}": str(round(value)) for name, value in asdict(cost).items()},
        }
        export(
            model_file(models, tier),
            f"Marginal home {tier}",
            recipe.shape,
            weights,
            tokenizer,
            tier == "large",
            facts,
        )
    write_questions(questions_file(models))
    say("card: grading both models on the held-out requests, about 20 s")
    write_card(models)

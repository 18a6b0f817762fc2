"""The sizes of the two models and how each is trained."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of a model; `width` and `hidden` are multiples of 32 so that rows fill Q8_0 blocks."""

    width: int
    layers: int
    heads: int
    hidden: int
    vocabulary: int = 1024

    @property
    def parameters(self) -> int:
        """Counts the weights, the shared embedding once."""
        layer = 4 * self.width**2 + 3 * self.width * self.hidden + 2 * self.width
        return self.vocabulary * self.width + self.layers * layer + self.width


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a model is trained: rows of 96 tokens per step, the rate falls to 0 over the last `decay` of the steps."""

    shape: Shape
    steps: int
    rate: float
    rows: int = 16
    second_moment: float = 0.99
    weight_decay: float = 0.05
    warm_up: int = 100
    decay: float = 0.7
    request_weight: float = 0.1
    seed: int = 1


SMALL = Recipe(Shape(width=64, layers=3, heads=2, hidden=128), steps=2300, rate=4e-3)
LARGE = Recipe(Shape(width=224, layers=4, heads=7, hidden=512), steps=5000, rate=1e-3)

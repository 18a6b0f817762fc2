"""Writes the golden renders of the chart's examples anew: `make chart-golden`."""

from charts.rendering import EXAMPLES, GOLDEN, example, manifest


def main() -> None:
    """Replaces every file of the golden folder."""
    for path in GOLDEN.glob("*.yaml"):
        path.unlink()
    for name in EXAMPLES:
        (GOLDEN / f"{name}.yaml").write_text(manifest(example(name)))


if __name__ == "__main__":
    main()

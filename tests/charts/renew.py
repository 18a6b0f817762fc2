"""Writes what is derived from other files anew: the chart's policies and the golden renders, `make chart-golden`."""

import shutil

from charts.rendering import BUNDLED, CHART, EXAMPLES, GOLDEN, example, manifest


def main() -> None:
    """Replaces the chart's copy of the policies, and every file of the golden folder."""
    shutil.copyfile(BUNDLED, CHART / "files" / "policies.toml")
    for path in GOLDEN.glob("*.yaml"):
        path.unlink()
    for name in EXAMPLES:
        (GOLDEN / f"{name}.yaml").write_text(manifest(example(name)))


if __name__ == "__main__":
    main()

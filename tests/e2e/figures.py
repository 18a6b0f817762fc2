"""What the scenarios measured, kept as JSON and as a picture."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any


class Figures:
    """A folder of figures."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def tell(self, name: str, **figures: object) -> None:
        """Writes them to NAME.json and to the output of the test."""
        text = json.dumps(figures, indent=1, default=str)
        (self.folder / f"{name}.json").write_text(text + "\n")
        print(f"{name}: {text}")  # noqa: T201


def calls(lines: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """How calls went, counted."""
    failed = [line for line in lines if line["failed"]]
    seconds = sorted(line["seconds"] for line in lines)
    return {
        "calls": len(lines),
        "failed": len(failed),
        "failed_before_the_first_token": sum(line["first_seconds"] is None for line in failed),
        "why": sorted({line["failed"] for line in failed}),
        "degraded": sum(bool(line.get("degraded")) for line in lines),
        "degraded_why": sorted({line["degraded"] for line in lines if line.get("degraded")}),
        "deferred": sum(line.get("tier") == "TIER_LARGE" for line in lines),
        "median_seconds": round(seconds[len(seconds) // 2], 3) if seconds else None,
        "longest_seconds": round(seconds[-1], 3) if seconds else None,
    }


def draw_timeline(path: Path, timeline: Sequence[dict[str, float]], waits: Sequence[tuple[float, float]]) -> None:
    """Demand and replicas over time, and below how long each call waited for its first token; times in seconds."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, (above, below) = plt.subplots(2, 1, sharex=True, figsize=(9, 5), height_ratios=[2, 1])
    at = [one["at"] for one in timeline]
    above.plot(at, [one["demand"] for one in timeline], color="tab:orange", label="demand (requests)")
    above.step(at, [one["replicas"] for one in timeline], color="tab:gray", where="post", label="replicas wanted")
    above.step(at, [one["ready"] for one in timeline], color="tab:blue", where="post", label="replicas ready")
    above.set_ylabel("large tier")
    above.legend(loc="upper right")
    below.scatter([began for began, _ in waits], [seconds for _, seconds in waits], s=6, color="tab:green")
    below.set_ylabel("wait (s)")
    below.set_xlabel("seconds")
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    plt.close(figure)

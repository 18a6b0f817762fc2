"""One call is one trace, and its spans say in which pods they were made."""

from e2e.cluster import eventually
from e2e.conftest import TIMED
from e2e.figures import Figures
from e2e.releases import Release


def test_a_deferred_call_is_one_trace_over_three_pods(release: Release, figures: Figures) -> None:
    where = release.namespace
    where.service("collector", 4317)
    collector = where.run("collector", "collector.py").started()
    models = TIMED | {"small": "scripted:tokens=8,unsure=1"}
    release.put(
        {
            "telemetry": {"collector": f"http://collector.{where.name}:4317"},
            "tiers": {name: {"engine": {"embedded": {"model": model}}} for name, model in models.items()},
        }
    )
    [call] = where.run("caller", "calls.py", release.router, "1", "auto", "30", "1").ended()
    assert call["tiers_asked"] == ["TIER_SMALL", "TIER_LARGE"]

    def pods() -> set[str]:
        return {span["pod"] for span in collector.lines() if span["trace_id"] == call["trace_id"]}

    kinds = ("router", "small", "large")
    eventually(lambda: len(pods()) == len(kinds), seconds=30, what="spans of three pods")
    assert pods() == {where.ready(kind)[0] for kind in kinds}
    figures.tell("trace", trace_id=call["trace_id"], pods=sorted(pods()))

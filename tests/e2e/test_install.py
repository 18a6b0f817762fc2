"""A stranger's first minutes: an empty namespace, one command, an answer, and nothing left at the end."""

import time

import pytest

from e2e.cluster import Namespace, eventually
from e2e.figures import Figures
from e2e.releases import Refused, Release

MISTAKES = {
    "tiers.large.autoscaling.minReplicas: an hpa cannot wake a tier from 0": {
        "tiers": {"large": {"autoscaling": {"kind": "hpa", "minReplicas": 0}}}
    },
    "access.withoutKeys says refuse": {"access": {"withoutKeys": "refuse"}},
    "replica": {"tiers": {"small": {"replica": 3}}},
}
TEST_POD = "pod/marginal-test"
"""Helm keeps the pod of a test, ended, until the next test; it is no part of the release."""


@pytest.fixture(scope="module")
def empty(namespace: Namespace) -> set[str]:
    """What is in the namespace before the release."""
    eventually(lambda: "serviceaccount/default" in namespace.contents(), seconds=30, what="a namespace that is ready")
    return namespace.contents()


@pytest.fixture(scope="module")
def installed(release: Release, empty: set[str], figures: Figures) -> Release:  # noqa: ARG001 (looked at before)
    """The home pair, with the values of the chart."""
    began = time.monotonic()
    notes = release.put()
    ready = time.monotonic() - began
    output = release.test()
    took = time.monotonic() - began
    figures.tell(
        "install", helm=release.version(), ready_seconds=ready, answered_seconds=took, test=output, notes=notes
    )
    return release


@pytest.mark.usefixtures("installed")
def test_from_empty_to_an_answer_whose_cost_record_adds_up(figures: Figures) -> None:
    seen = (figures.folder / "install.json").read_text()
    assert "Phase:          Succeeded" in seen
    assert "by small" in seen
    assert "by large" in seen


def test_bad_values_change_nothing(installed: Release) -> None:
    lives, revision = installed.namespace.lives(), installed.revision()
    for sentence, values in MISTAKES.items():
        with pytest.raises(Refused, match=sentence):
            installed.put(values)
    assert (installed.namespace.lives(), installed.revision()) == (lives, revision)


def test_an_uninstall_leaves_nothing(installed: Release, empty: set[str]) -> None:
    installed.uninstall()
    left = lambda: installed.namespace.contents() - empty - {TEST_POD}  # noqa: E731
    eventually(lambda: not left(), seconds=180, what="an empty namespace")

"""A breaker lets nobody wait twice, and looks again and again, ever more rarely."""

from marginal.ledger.breaker import Breaker, State, Transition


class Watched:
    """A breaker with everything it told."""

    def __init__(self, *, closed: bool = True) -> None:
        self.told: list[Transition] = []
        self.breaker = Breaker(self.told.append, first_wait=1.0, most_wait=4.0, closed=closed)

    def states(self) -> list[State]:
        return [transition.state for transition in self.told]


def test_the_first_failure_opens_it_and_those_under_way_change_nothing() -> None:
    watched = Watched()
    for _ in range(100):
        watched.breaker.failed(0.0, "no answer")
    assert not watched.breaker.closed
    assert watched.told == [Transition(State.OPEN, "no answer")]


def test_one_probe_at_a_time_after_the_wait() -> None:
    watched = Watched()
    watched.breaker.failed(0.0, "no answer")
    assert [watched.breaker.probe(at) for at in (0.0, 0.9, 1.0, 1.0, 50.0)] == [False, False, True, False, False]
    assert not watched.breaker.closed


def test_every_failed_probe_doubles_the_wait_up_to_the_most() -> None:
    watched = Watched()
    watched.breaker.failed(0.0, "no answer")
    now, waits = 0.0, []
    for _ in range(4):
        waits.append(watched.breaker.seconds_left(now))
        now += waits[-1]
        assert watched.breaker.probe(now)
        watched.breaker.failed(now, "no answer")
    assert waits == [1.0, 2.0, 4.0, 4.0]


def test_a_probe_that_does_well_closes_it() -> None:
    watched = Watched()
    watched.breaker.failed(0.0, "no answer")
    assert watched.breaker.probe(1.0)
    watched.breaker.succeeded(1.0)
    assert watched.breaker.closed
    assert watched.states() == [State.OPEN, State.HALF_OPEN, State.CLOSED]


def test_one_that_fails_again_at_once_waits_longer_and_one_that_held_waits_as_at_first() -> None:
    watched = Watched()
    watched.breaker.failed(0.0, "no answer")
    watched.breaker.probe(1.0)
    watched.breaker.succeeded(1.0)
    watched.breaker.failed(1.5, "no answer")
    assert watched.breaker.seconds_left(1.5) == 2.0
    watched.breaker.probe(3.5)
    watched.breaker.succeeded(3.5)
    watched.breaker.failed(60.0, "no answer")
    assert watched.breaker.seconds_left(60.0) == 1.0


def test_one_that_begins_open_is_probed_at_once() -> None:
    watched = Watched(closed=False)
    assert watched.breaker.probe(0.0)
    watched.breaker.succeeded(0.0)
    assert watched.breaker.closed


def test_success_without_a_probe_closes_nothing() -> None:
    watched = Watched()
    watched.breaker.failed(0.0, "no answer")
    watched.breaker.succeeded(5.0)
    assert not watched.breaker.closed

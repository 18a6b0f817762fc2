from marginal.entrypoints.steady import steady_clock


class SetClock:
    """A clock that somebody sets."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def test_a_steady_clock_begins_with_the_time_of_day_and_does_not_follow_its_jumps() -> None:
    day, ticks = SetClock(1_700_000_000.0), SetClock(50.0)
    steady = steady_clock(day, ticks)
    assert steady() == day.now
    ticks.now += 10.0
    for hours in (1, -1):
        day.now = 1_700_000_010.0 + 3600 * hours
        assert steady() == 1_700_000_010.0

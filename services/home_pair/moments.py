"""Tasks about when: timer, alarm, remind."""

from random import Random

from home_pair import vocabulary as words
from home_pair.tasks import Fact, Task

_UNITS = (
    ("min", "minutes", "minute"),
    ("min", "minutes", "minute"),
    ("sec", "seconds", "second"),
    ("hours", "hours", "hour"),
)


def _timer(rng: Random) -> Fact:
    short, plural, singular = rng.choice(_UNITS)
    amount = rng.randrange(2, 13) if short == "hours" else rng.randrange(2, 100)
    slots: dict[str, int | str] = {"n": amount, "unit": plural, "one": singular}
    if rng.random() < 0.4:
        return Fact("plain", slots, f"timer {amount} {short}")
    what = words.dish(rng)
    return Fact("for a dish", {**slots, "what": what}, f"timer {amount} {short} {what}")


timer = Task(
    "timer",
    _timer,
    {
        "plain": (
            "[set|start] a timer for {n} {unit}",
            "[set|start] a {n} {one} timer",
            "timer [for|of|,] {n} {unit}",
            "timer {n} {unit}",
            "count down {n} {unit}",
            "count down from {n} {unit}",
            "tell me when {n} {unit} are [over|up]",
            "let me know when {n} {unit} are [over|up]",
            "[set|put] the timer to {n} {unit}",
            "give me a timer of {n} {unit}",
            "a {n} {one} timer",
            "i need a timer for {n} {unit}",
            "start [counting|to count] {n} {unit}",
            "[time|clock] {n} {unit}",
            "let me know in {n} {unit}",
            "give me {n} {unit} on the timer",
            "tell me in {n} {unit}",
        ),
        "for a dish": (
            "[set|start] a {what} timer for {n} {unit}",
            "[set|start] a timer for {n} {unit} for the {what}",
            "[set|start] a {n} {one} timer for the {what}",
            "[set|start] a {n} {one} timer called {what}",
            "timer for the {what} , {n} {unit}",
            "timer for {what} , {n} {unit}",
            "the {what} needs {n} {unit}",
            "the {what} takes {n} {unit}",
            "[time|clock] the {what} for {n} {unit}",
            "{what} timer , {n} {unit}",
            "{what} timer for {n} {unit}",
            "count down {n} {unit} for the {what}",
            "{n} {unit} for the {what}",
            "tell me when the {what} has had {n} {unit}",
            "i need a {what} timer of {n} {unit}",
            "give the {what} {n} {unit}",
            "let me know when the {what} has had {n} {unit}",
        ),
    },
)


def _alarm(rng: Random) -> Fact:
    minutes = rng.randrange(5, 23) * 60 + rng.choice((0, 0, 15, 30, 30, 45, 5, 10, 20, 25, 35, 40, 50, 55))
    at = f"{minutes // 60:02d}:{minutes % 60:02d}"
    roll = rng.random()
    if roll < 0.3:
        return Fact("no day", {"clock": minutes}, f"alarm {at}")
    if roll < 0.45:
        return Fact("tomorrow", {"clock": minutes}, f"alarm tomorrow {at}")
    day = rng.choice(words.DAYS)
    return Fact("day", {"clock": minutes, "day": day}, f"alarm {day[:3]} {at}")


alarm = Task(
    "alarm",
    _alarm,
    {
        "no day": (
            "[set|put] an alarm for {clock}",
            "set the alarm to {clock}",
            "wake me [up|] at {clock}",
            "i need an alarm at {clock}",
            "alarm at {clock}",
            "i have to get up at {clock}",
            "ring at {clock}",
            "get me up at {clock}",
            "i want to wake up at {clock}",
            "alarm for {clock}",
        ),
        "tomorrow": (
            "[set|put] an alarm for tomorrow at {clock}",
            "[set|put] an alarm for {clock} tomorrow",
            "wake me [up|] tomorrow at {clock}",
            "wake me [up|] at {clock} tomorrow",
            "tomorrow i have to get up at {clock}",
            "i need an alarm tomorrow at {clock}",
            "alarm tomorrow at {clock}",
            "get me up tomorrow at {clock}",
        ),
        "day": (
            "[set|put] an alarm for {day} at {clock}",
            "[set|put] an alarm for {clock} on {day}",
            "wake me [up|] on {day} at {clock}",
            "wake me [up|] at {clock} on {day}",
            "on {day} i have to get up at {clock}",
            "i need an alarm on {day} at {clock}",
            "alarm {day} at {clock}",
            "alarm for {day} , {clock}",
            "on {day} ring at {clock}",
            "get me up on {day} at {clock}",
            "i want to wake up at {clock} on {day}",
            "on {day} wake me [up|] at {clock}",
        ),
    },
)


def _remind(rng: Random) -> Fact:
    day = rng.choice(words.DAYS)
    hour = rng.randrange(7, 22)
    minutes = hour * 60 + rng.choice((0, 0, 0, 30, 15, 45))
    what = words.errand(rng)
    at = f"{minutes // 60:02d}:{minutes % 60:02d}"
    if rng.random() < 0.25:
        return Fact("tomorrow", {"clock": minutes, "what": what}, f"remind tomorrow {at} {what}")
    return Fact("day", {"clock": minutes, "day": day, "what": what}, f"remind {day[:3]} {at} {what}")


remind = Task(
    "remind",
    _remind,
    {
        "day": (
            "remind me to {what} on {day} at {clock}",
            "remind me on {day} at {clock} to {what}",
            "remind me at {clock} on {day} to {what}",
            "on {day} at {clock} remind me to {what}",
            "[set|add] a reminder for {day} at {clock} to {what}",
            "[set|add] a reminder to {what} on {day} at {clock}",
            "reminder for {day} {clock} , {what}",
            "i have to {what} on {day} at {clock} , remind me",
            "[do not|don't] let me forget to {what} on {day} at {clock}",
            "on {day} at {clock} i have to {what}",
            "on {day} at {clock} [do not|don't] let me forget to {what}",
            "reminder to {what} , {day} {clock}",
        ),
        "tomorrow": (
            "remind me to {what} tomorrow at {clock}",
            "remind me tomorrow at {clock} to {what}",
            "tomorrow at {clock} remind me to {what}",
            "[set|add] a reminder for tomorrow at {clock} to {what}",
            "[set|add] a reminder to {what} tomorrow at {clock}",
            "i have to {what} tomorrow at {clock} , remind me",
            "[do not|don't] let me forget to {what} tomorrow at {clock}",
            "tomorrow at {clock} i have to {what}",
        ),
    },
)

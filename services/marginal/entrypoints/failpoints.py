"""Ends the process at a named step of a request's life, as a crash would: for tests of what survives one."""

import os
import signal

from marginal.errors import ConfigurationError
from marginal.routing.terms import Step, Steps, no_steps

VARIABLE = "MARGINAL_FAILPOINT"


def failpoint() -> Steps:
    """What MARGINAL_FAILPOINT asks for: nothing, or death by SIGKILL at a step. Raises ConfigurationError."""
    name = os.environ.get(VARIABLE, "")
    if not name:
        return no_steps
    try:
        chosen = Step(name)
    except ValueError:
        known = ", ".join(step.value for step in Step)
        raise ConfigurationError(f"{VARIABLE}: {name!r} is no step, use one of: {known}") from None

    def step(reached: Step) -> None:
        if reached is chosen:
            os.kill(os.getpid(), signal.SIGKILL)

    return step

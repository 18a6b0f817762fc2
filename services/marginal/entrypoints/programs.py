"""The services' programs, which end from their first moment on when they are told to.

In a container a program is process 1, and the kernel keeps from it every signal that it does not handle. A pod that is
told to end while its program still imports would stay, and do nothing, until its whole grace period is over.
"""

import os
import signal


def router() -> None:
    """Runs marginal-router."""
    _end_when_told()
    from marginal.entrypoints.router import main

    main()


def small_model() -> None:
    """Runs marginal-small-model."""
    _end_when_told()
    from marginal.entrypoints.model import small

    small()


def large_model() -> None:
    """Runs marginal-large-model."""
    _end_when_told()
    from marginal.entrypoints.model import large

    large()


def _end_when_told() -> None:
    """Until the event loop handles signals: there is nothing yet to put in order."""
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))

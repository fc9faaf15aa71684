"""How worker processes start. Nothing slow is imported here, so that they can import while this process does."""

import multiprocessing
import signal
import sys
from multiprocessing import forkserver
from multiprocessing.context import BaseContext

from cnnlab.inquiry.task import task


def worker_context() -> BaseContext:
    """Return how worker processes start: on Linux from one that has imported everything, elsewhere each from nothing.

    Both are safe where this process has threads. (macOS has libraries that don't survive a fork.) On Linux the one that
    imports begins with the first call, in the background.
    """
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["cnnlab.inquiry.run.engines", *task().modules])
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # Ctrl-C is not for it
    forkserver.ensure_running()
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return context

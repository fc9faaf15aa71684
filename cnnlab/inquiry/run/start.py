"""How worker processes start. This imports nothing slow, so workers and this process can import at the same time."""

import multiprocessing
import signal
import sys
from multiprocessing import forkserver
from multiprocessing.context import BaseContext

from cnnlab.inquiry.task import task


def worker_context() -> BaseContext:
    """Return how worker processes start: on Linux forked from a preloaded server process, elsewhere from scratch.

    Both are safe if this process has threads. (macOS has libraries that don't survive a fork.) On Linux the first call
    starts the server process, which imports in the background.
    """
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["cnnlab.inquiry.run.engines", *task().modules])
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # the server process ignores Ctrl-C
    forkserver.ensure_running()
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return context

"""The engine "ray": it trains the runs of a study on a Ray cluster, or with Ray on this machine alone.

A worker logs directly to the MLflow server, which all nodes must be able to reach. A GPU can be shared by several runs.
"""

import logging
import os
import shlex
import socket
import sys
import time
import warnings
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from cnnlab.inquiry import paths
from cnnlab.inquiry.errors import LabError
from cnnlab.inquiry.log import Collector, only_collect
from cnnlab.inquiry.record.courier import deliver_leftovers
from cnnlab.inquiry.record.store import Store, first_line, is_sqlite
from cnnlab.inquiry.run.engines import Engine
from cnnlab.inquiry.run.worker import Job, Trained, Worker
from cnnlab.inquiry.task import Data, Task, install, task

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # otherwise Ray looks up a host on the internet
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # otherwise Ray warns of a future change

try:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import ray
        from ray._private import ray_constants
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
except ImportError:
    raise LabError("the engine ray needs Ray, which is an extra: install it with `uv sync --extra ray`.") from None

# Otherwise, under `uv run`, every worker would get a new environment without the extras. The environment variable
# RAY_ENABLE_UV_RUN_RUNTIME_ENV does the same, but only before Ray is imported, which may already have happened.
ray_constants.RAY_ENABLE_UV_RUN_RUNTIME_ENV = False

GPUS_PER_RUN = 0.25
REPORT_EVERY_S = 1.0
LOCAL_HOSTS = ("127.0.0.1", "localhost", "::1")


class RayCluster(Engine):
    """Trains jobs on Ray with one CPU each, as many at a time as fit on the cluster.

    `address` is that of a running cluster ("10.0.0.5:6379", or "auto" for the one on this machine); without it,
    Ray is started on this machine. `gpus_per_run` is the share of a GPU that each run gets (default: a quarter
    if the cluster has GPUs).

    Raises:
        LabError: the cluster can't be reached, or its nodes can't reach the MLflow store.
    """

    def __init__(
        self, store: Store, data: Data | None = None, address: str | None = None, gpus_per_run: float | None = None
    ) -> None:
        self.deaths = (
            ray.exceptions.WorkerCrashedError,
            ray.exceptions.NodeDiedError,
            ray.exceptions.OutOfMemoryError,
            ray.exceptions.ObjectLostError,
            ray.exceptions.LocalRayletDiedError,
        )
        start_ray(address)
        _check_reachable(store)
        resources = ray.cluster_resources()
        if gpus_per_run is None:
            gpus_per_run = GPUS_PER_RUN if resources.get("GPU") else 0.0
        self.slots = int(resources.get("CPU", 0))
        if gpus_per_run:
            self.slots = min(self.slots, int(resources.get("GPU", 0) / gpus_per_run))
        if self.slots < 1:
            raise LabError(
                f"the Ray cluster has no room for a run ({_room(resources)}): add resources, or use fewer GPUs per run."
            )
        self._spares_gpus = bool(resources.get("GPU")) and not gpus_per_run
        self._store = store
        self._data = ray.put(data)
        self._counts = _start_counts()
        # max_calls=0: a process that used a GPU is kept too, so it needn't import everything again for the next run
        self._train = ray.remote(num_cpus=1, num_gpus=gpus_per_run, max_retries=0, max_calls=0)(_train)

    def submit(self, job: Job) -> Future[Trained]:  # type: ignore[override]
        """Give a job to the cluster."""
        home = str(paths.project_root())
        if self._spares_gpus and job.device == "auto":
            job = replace(job, device="cpu")
        result = self._train.remote(task(), job, self._store, self._data, self._counts, home)
        future: Future[Trained] = result.future()
        return future

    def trained(self) -> int:
        """Return the amount trained so far, on all nodes."""
        amount: int = ray.get(self._counts.total.remote())
        return amount

    def describe(self) -> str:
        """Return a description of where the runs are trained."""
        nodes = sum(node["Alive"] for node in ray.nodes())
        return f"on Ray ({nodes} node{'s' if nodes > 1 else ''}, {_room(ray.cluster_resources())})"

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Stop the remaining jobs of this program; a cluster that ran before keeps running."""
        ray.shutdown()


def start_ray(address: str | None = None) -> None:
    """Connect this process to a Ray cluster, or start Ray on this machine.

    Raises:
        LabError: there is no cluster at `address`.
    """
    if ray.is_initialized():
        ray.shutdown()
    environment: dict[str, Any] = {}
    if address:  # this code is sent to the other machines; its requirements must be installed there
        environment["py_modules"] = [str(Path(__file__).parents[2])]
    if " " in sys.executable:  # Ray uses the path in a shell command
        environment["py_executable"] = shlex.quote(sys.executable)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            _knock(address)
            ray.init(
                address=address or "local",
                namespace="cnnlab",
                runtime_env=environment or None,
                include_dashboard=None if address else False,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
        except (OSError, ValueError, RuntimeError) as error:
            raise LabError(
                f"the Ray cluster {address} can't be reached ({first_line(error)}): start one with `ray start --head`, "
                "or leave the address out to use this machine alone. If the cluster asks for a token, set "
                "RAY_AUTH_MODE=token and RAY_AUTH_TOKEN."
            ) from None


def _knock(address: str | None) -> None:
    """Raise at once if nothing listens at an address; Ray would keep trying for minutes."""
    host, _, port = (address or "").rpartition(":")
    if host and "/" not in host and port.isdigit():
        socket.create_connection((host, int(port)), timeout=10).close()


def _check_reachable(store: Store) -> None:
    """Raise a LabError if other machines of the cluster can't reach the store."""
    uri = store.uri
    hosts = {node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}
    if len(hosts) > 1 and (is_sqlite(uri) or urlparse(uri).hostname in LOCAL_HOSTS):
        raise LabError(
            f"the cluster has {len(hosts)} machines, and only this one can reach the MLflow store {uri}: set "
            "MLFLOW_TRACKING_URI to a server that all of them can reach."
        )


def _room(resources: dict[str, float]) -> str:
    gpus = resources.get("GPU", 0)
    return f"{resources.get('CPU', 0):g} CPUs" + (f", {gpus:g} GPUs" if gpus else "")


def _start_counts() -> Any:
    """Start an actor on this node that adds up the amounts that the workers have trained."""

    class Counts:  # in a function, so that Ray sends its code and the actor needn't import the whole lab
        def __init__(self) -> None:
            self._total = 0

        def add(self, amount: int) -> None:
            self._total += amount

        def total(self) -> int:
            return self._total

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(num_cpus=0)(Counts).options(scheduling_strategy=here).remote()


# In a worker process, on some node

_worker: Worker | None = None
_tally: "_Tally"
_said: Collector


class _Tally:
    """Counts what is trained, and reports to the actor about once per second."""

    def __init__(self, counts: Any) -> None:
        self._counts = counts
        self._amount = 0
        self._told_at = time.monotonic()

    def __call__(self, amount: int) -> None:
        self._amount += amount
        if time.monotonic() - self._told_at >= REPORT_EVERY_S:
            self.tell()

    def tell(self) -> None:
        self._counts.add.remote(self._amount)
        self._amount, self._told_at = 0, time.monotonic()


def _train(science: Task, job: Job, store: Store, data: Data | None, counts: Any, home: str) -> Trained:
    global _worker, _tally, _said
    if _worker is None:
        _said = only_collect()
        install(science)
        # Spools are kept in the project's folder if this machine has it, else in a separate one.
        folder = Path(home) if Path(home).exists() else Path.home() / ".cnnlab-ray"
        os.environ["CNNLAB_HOME"] = str(folder)
        deliver_leftovers()  # of a worker that died on this node
        _tally = _Tally(counts)
        _worker = Worker(store, data, _tally)
    try:
        return replace(_worker.train(job), notes=_said.take())
    finally:
        _tally.tell()

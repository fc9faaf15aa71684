"""The engine "ray": one study on a cluster of two nodes, with GPUs shared by fraction."""

import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from cnnlab.config import Config, replace
from cnnlab.data import Data
from cnnlab.inquiry.errors import LabError
from cnnlab.inquiry.record.connection import connect
from cnnlab.inquiry.record.store import Store
from cnnlab.inquiry.server import is_listening
from tests.helpers import free_port, predicted, small_study, wait_for

# The cluster and this process share a secret, as the nodes of a real cluster do.
os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32))
ray = pytest.importorskip("ray", reason="Ray is an extra: uv sync --extra ray")

from cnnlab.inquiry.run.ray_cluster import RayCluster  # noqa: E402

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="two raylets on one machine"),
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning", "ignore::FutureWarning"),
]


def start_node(folder: Path, *arguments: str) -> subprocess.Popen[bytes]:
    """Start a raylet that runs until it is stopped; its ports are fixed, so that two can run on one machine."""
    ports = [
        "dashboard-agent-grpc-port",
        "dashboard-agent-listen-port",
        "metrics-export-port",
        "runtime-env-agent-port",
    ]
    # `ray start` doesn't work from a path with a space: use another path to this environment
    environment = folder / "environment"
    if not environment.exists():
        environment.symlink_to(sys.prefix)
    command = [str(environment / "bin" / "python"), "-m", "ray.scripts.scripts", "start"]
    command += ["--block", "--num-cpus=1", "--num-gpus=1", "--disable-usage-stats"]
    command += [*(f"--{port}={free_port()}" for port in ports), *arguments]
    with (folder / "start.log").open("ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | {"RAY_USAGE_STATS_ENABLED": "0"})


def stop_node(node: subprocess.Popen[bytes]) -> None:
    processes = psutil.Process(node.pid).children(recursive=True) if node.poll() is None else []
    node.kill()
    node.wait()
    for process in processes:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(processes, timeout=10)


COUNT_NODES = """
import sys, time
import ray
ray.init(sys.argv[1], log_to_driver=False)
for _ in range(60):
    if sum(node["Alive"] for node in ray.nodes()) == int(sys.argv[2]):
        sys.exit()
    time.sleep(0.5)
sys.exit("too few nodes")
"""


def wait_for_nodes(address: str, nodes: int, folder: Path) -> None:
    """Wait until a cluster has this number of nodes; ask in another process, since Ray ends a process if it fails."""
    done = subprocess.run([sys.executable, "-c", COUNT_NODES, address, str(nodes)], capture_output=True, text=True)
    assert not done.returncode, f"{done.stderr[-2000:]}{(folder / 'start.log').read_text()[-2000:]}"


@pytest.fixture(scope="module")
def cluster() -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A head and a second node on this machine, each with one CPU and a declared GPU: the address and the node."""
    port = free_port()
    address = f"127.0.0.1:{port}"
    folder = Path(tempfile.mkdtemp(prefix="ray-"))  # short, since the paths of sockets must be short
    nodes = []
    try:
        nodes.append(
            start_node(folder, "--head", f"--port={port}", "--include-dashboard=false", f"--temp-dir={folder}")
        )
        wait_for(lambda: is_listening(port))
        nodes.append(start_node(folder, f"--address={address}"))
        wait_for_nodes(address, 2, folder)
        yield address, nodes[1]
    finally:
        for node in reversed(nodes):
            stop_node(node)
        shutil.rmtree(folder, ignore_errors=True)


def test_a_study_runs_on_a_cluster_of_two_nodes(
    running_server: str, cluster: tuple[str, subprocess.Popen[bytes]], small: Config, small_data: Data, said: list[str]
) -> None:
    address, _ = cluster
    store = connect()
    assert store.kind == "server"
    study = small_study("tiny-ray", "?", small, (0, 1), {"dropout": (0.0, 0.5)})
    said.clear()
    with RayCluster(Store(), small_data, address) as engine:
        assert engine.slots == 2
        table = predicted(study).run(store, engine, progress=False)
        assert engine.trained() == 4 * 640
    assert "Training 4 runs on Ray (2 nodes, 2 CPUs, 2 GPUs)." in said
    assert len(table) == 4
    processes = {store.client.get_run(run).data.tags["lab.process"] for run in table["run_id"]}
    assert len(processes) == 2  # one worker on each node
    for run in table["run_id"]:
        assert len(store.client.get_metric_history(run, "loss/valid")) == 2

    # the same configs in this process: nothing is trained twice, and a new owner gets the same numbers
    study.run(store, engine="here", progress=False)
    assert "4 of its runs are finished already" in said[-1]


def test_a_gpu_is_shared_by_fraction(
    home: Path, cluster: tuple[str, subprocess.Popen[bytes]], small_data: Data
) -> None:
    address, _ = cluster
    with RayCluster(Store(), small_data, address, gpus_per_run=1.0) as engine:
        assert engine.slots == 2
    with pytest.raises(LabError, match="no room for a run"):
        RayCluster(Store(), small_data, address, gpus_per_run=4.0)
    ray.shutdown()


def test_a_node_that_dies_costs_only_its_run(
    running_server: str, cluster: tuple[str, subprocess.Popen[bytes]], small: Config, small_data: Data, said: list[str]
) -> None:
    address, second = cluster
    store = connect()
    study = small_study("tiny-node", "?", replace(small, epochs=30), (0, 1), {"dropout": (0.0, 0.5)})
    said.clear()
    with RayCluster(Store(), small_data, address) as engine:

        def pull_the_plug() -> None:
            wait_for(lambda: engine.trained() > 8 * 320, seconds=300)  # both nodes are at work
            stop_node(second)

        killer = threading.Thread(target=pull_the_plug)
        killer.start()
        table = predicted(study).run(store, engine, progress=False)
        killer.join()
    assert len(table) == 4
    runs = store.client.search_runs([store.experiment_id("tiny-node")], "tags.kind = 'run'")
    statuses = [run.info.status for run in runs]
    assert statuses.count("FINISHED") == 4
    assert statuses.count("KILLED") == len(runs) - 4 >= 1
    assert any("tried once more" in line for line in said)


def test_a_store_that_other_machines_cannot_reach_is_refused(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cnnlab.inquiry.run import ray_cluster

    nodes = [{"NodeManagerAddress": f"10.0.0.{i}", "Alive": True} for i in (5, 6)]
    monkeypatch.setattr(ray_cluster.ray, "nodes", lambda: nodes)
    with pytest.raises(LabError, match=r"2 machines, and only this one can reach .* set MLFLOW_TRACKING_URI"):
        ray_cluster._check_reachable(Store())
    ray_cluster._check_reachable(Store("http://10.0.0.5:5001"))


def test_a_missing_cluster_is_named(home: Path) -> None:
    with pytest.raises(LabError, match="can't be reached"):
        RayCluster(Store(), None, f"127.0.0.1:{free_port()}")

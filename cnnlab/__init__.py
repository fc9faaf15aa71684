"""cnnlab: predict, run, confront. The names that are typed in a notebook; each is loaded at its first use."""

import importlib
import os
import warnings

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # else MLflow looks up a host on the internet
os.environ.setdefault("MLFLOW_LOG_UV_FILES", "false")  # else it copies project files into every model

# A library offers its widget bars; ours is plain text, which a saved notebook keeps.
warnings.filterwarnings("ignore", message="IProgress not found")


def _spare_this_machine() -> None:
    """Keep the traffic to this machine away from a proxy, which would look for our server on its own.

    Where no variable names a proxy, none is set: Python would then overlook the proxy that Windows or macOS is set to.
    """
    if any(name.lower() in ("http_proxy", "https_proxy", "all_proxy") for name in os.environ):
        wished = ",".join(os.environ.get(name, "") for name in ("NO_PROXY", "no_proxy"))
        direct = dict.fromkeys(host.strip() for host in f"{wished},127.0.0.1,localhost,::1".split(",") if host.strip())
        os.environ["NO_PROXY"] = os.environ["no_proxy"] = "*" if "*" in direct else ",".join(direct)


_spare_this_machine()

_HOME = {
    "BASE": "config",
    "BEST": "config",
    "Config": "config",
    "replace": "params",
    "load_data": "fashion_mnist",
    "build_model": "models",
    "layer_summary": "summary",
    "fit": "training",
    "connect": "tracking.connection",
    "load_runs": "tracking.table",
    "read_test_set": "tracking.test_set",
    "Study": "studies.study",
    "my_seeds": "studies.seeds",
    "find_profile": "studies.profiles",
    "lab_studies": "studies.lab",
    "run_search": "studies.search",
    "run_study": "studies.runner",
    "sanity_checks": "inquiry.sanity",
    "load_trials": "tracking.trials",
    "my_calibration": "inquiry.calibration",
    "report": "reporting.report",
    "run_figure": "reporting.pictures",
    "shared_engine": "studies.lab",
    "plot_calibration": "reporting.effects",
    "plot_effects": "reporting.effects",
    "plot_interaction": "reporting.effects",
    "results": "studies.results",
    "summary": "studies.results",
    "power": "inquiry.power",
    "predict": "inquiry.prediction",
    "verdict": "inquiry.verdict",
    "open_vault": "inquiry.vault",
    "confront": "reporting.confront",
    "plot_arms": "reporting.figures",
    "plot_curves": "reporting.figures",
    "plot_gaps": "reporting.figures",
    "plot_isolation": "reporting.figures",
    "plot_levels": "reporting.figures",
    "plot_probes": "reporting.figures",
    "links": "reporting.text",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> object:
    """Load a name from its module when it is first used: torch and mlflow take seconds to import."""
    if name not in _HOME:
        raise AttributeError(f"module 'cnnlab' has no attribute {name!r}")
    return getattr(importlib.import_module(f"cnnlab.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__

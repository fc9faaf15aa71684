"""cnnlab: predict, run, confront. The names that are typed in a notebook; each is loaded at its first use."""

import gc
import importlib
import os
import warnings

from cnnlab.inquiry.task import install

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # else MLflow looks up a host on the internet
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # else two lines for each run
os.environ.setdefault("MLFLOW_LOG_UV_FILES", "false")  # else it copies project files into every model

gc.set_threshold(10_000)  # with 700, Python searches all of torch and MLflow for garbage while it imports them

# A library offers its widget bars; ours is plain text, which a saved notebook keeps.
warnings.filterwarnings("ignore", message="IProgress not found")


def _spare_this_machine() -> None:
    """Keep traffic to this machine away from a proxy, which would look for our server on its own machine.

    Where no variable names a proxy, leave them alone: Python would then ignore the proxy set in Windows or macOS.
    """
    if any(name.lower() in ("http_proxy", "https_proxy", "all_proxy") for name in os.environ):
        wished = ",".join(os.environ.get(name, "") for name in ("NO_PROXY", "no_proxy"))
        direct = dict.fromkeys(host.strip() for host in f"{wished},127.0.0.1,localhost,::1".split(",") if host.strip())
        os.environ["NO_PROXY"] = os.environ["no_proxy"] = "*" if "*" in direct else ",".join(direct)


_spare_this_machine()
install("cnnlab.task:LAB")

_HOME = {
    "BASE": "config",
    "BEST": "config",
    "Config": "config",
    "replace": "inquiry.params",
    "load_data": "fashion_mnist",
    "build_model": "models",
    "layer_summary": "tables",
    "fit": "training",
    "connect": "inquiry.record.connection",
    "load_runs": "inquiry.record.runs",
    "read_test_set": "inquiry.record.vault_record",
    "Study": "inquiry.study",
    "my_seeds": "inquiry.seeds",
    "find_profile": "course.profiles",
    "trained_network": "course.renewed",
    "accuracy": "course.renewed",
    "renew_statistics": "course.renewed",
    "renewed_accuracies": "course.renewed",
    "lab_map": "course.studies",
    "lab_studies": "course.studies",
    "run_search": "course.search",
    "run_study": "inquiry.run.runner",
    "sanity_checks": "sanity",
    "search_study": "course.search",
    "load_trials": "course.trials",
    "my_calibration": "inquiry.judge.calibration",
    "quiz": "course.questions",
    "reflect": "inquiry.show.logbook",
    "report": "inquiry.show.report",
    "run_figure": "inquiry.show.pictures",
    "shared_engine": "course.studies",
    "plot_calibration": "inquiry.show.effects",
    "plot_classes": "course.pictures",
    "plot_dropout": "course.pictures",
    "plot_effects": "inquiry.show.effects",
    "plot_interaction": "inquiry.show.effects",
    "plot_intervals": "course.pictures",
    "plot_network": "course.pictures",
    "plot_norm_sets": "course.pictures",
    "results": "inquiry.run.results",
    "summary": "tables",
    "power": "inquiry.judge.power",
    "predict": "inquiry.prediction",
    "verdict": "inquiry.judge.verdict",
    "winners_curse": "course.search",
    "open_vault": "inquiry.judge.vault",
    "compare_rates": "course.rates",
    "conclusions": "inquiry.show.conclusions",
    "confront": "inquiry.show.confront",
    "plot_arms": "inquiry.show.figures",
    "plot_curves": "inquiry.show.figures",
    "plot_gaps": "course.figures",
    "plot_isolation": "inquiry.show.figures",
    "plot_levels": "inquiry.show.figures",
    "plot_predictions": "inquiry.show.predictions",
    "plot_probes": "course.figures",
    "links": "inquiry.show.text",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> object:
    """Load a name from its module when it is first used: torch and mlflow take seconds to import."""
    if name not in _HOME:
        raise AttributeError(f"module 'cnnlab' has no attribute {name!r}")
    return getattr(importlib.import_module(f"cnnlab.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__

"""The command line: `python -m benchmarks [NAME ...]`."""

import importlib
from pathlib import Path

import click
import psutil

from benchmarks.measure import ROOT, BenchmarkError, Options

RESULTS = ROOT / "benchmarks" / "results"

MODULES = {
    "throughput": "throughput",
    "study": "study",
    "overhead": "overhead",
    "accuracy": "time_to_accuracy",
    "startup": "startup",
    "engines": "engines",
    "profile": "profiling",
    "probes": "probing",
    "estimators": "estimators",
    "classroom": "classroom",
    "precision": "precision",
    "reproduction": "reproduction",
}
ONLY_WHEN_NAMED = ("precision", "reproduction")  # an hour; several if the processor must emulate bf16


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("names", nargs=-1, metavar="[NAME]...", type=click.Choice(list(MODULES)))
@click.option(
    "--repeats", type=click.IntRange(1), help="Repetitions (in precision and reproduction: seeds).  [default: its own]"
)
@click.option("--quick", is_flag=True, help="Use tiny sizes, to check that it works.")
@click.option("--write", is_flag=True, help="Write the tables to benchmarks/results instead of printing them.")
@click.option(
    "--home",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for the trained runs of precision and reproduction, to resume later.  [default: benchmarks/store]",
)
def main(names: tuple[str, ...], repeats: int | None, quick: bool, write: bool, home: Path | None) -> None:
    """Measure the lab against its peers; without a NAME, everything except precision and reproduction.

    The names are throughput, study, overhead, accuracy, startup, engines, profile, probes, estimators, classroom,
    precision and reproduction.
    """
    options = Options(quick, repeats, home, say=lambda line: click.echo(line, err=True))
    failed = []
    for name in names or [name for name in MODULES if name not in ONLY_WHEN_NAMED]:
        load = psutil.getloadavg()[0]
        options.say(f"{name}:")
        try:
            text = importlib.import_module(f"benchmarks.{MODULES[name]}").run(options).markdown(quick, load)
        except BenchmarkError as error:
            failed.append(name)
            options.say(str(error))
            continue
        if write:
            RESULTS.mkdir(exist_ok=True)
            (RESULTS / f"{name}.md").write_text(text, encoding="utf-8")
        else:
            click.echo(text)
    if failed:
        raise click.ClickException(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()

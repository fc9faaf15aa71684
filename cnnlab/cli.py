"""The command line: the same verbs as the notebook.

Every command loads what it needs when it runs, so that `cnnlab --help` answers at once.
"""

import os
import signal
import sys
from types import FrameType

import click

from cnnlab.errors import LabError


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="cnnlab")
def cli() -> None:
    """Hypothesis-driven experiments with CNNs on Fashion-MNIST, every run logged to MLflow."""


@cli.command(short_help="Train what is missing, show mean, SD and n.")
@click.argument("studies", nargs=-1)
@click.option("--profile", help="How much is trained: tiny (seconds), quick (minutes), full (hours).  [default: quick]")
@click.option("--epochs", type=click.IntRange(1), help="Epochs a run, other than the profile's.")
@click.option("--seeds", type=click.IntRange(1), help="Seeds an arm, other than the profile's.")
@click.option("--engine", default="auto", show_default=True, help="Where: auto, process, local (workers) or ray.")
@click.option("--workers", type=click.IntRange(1), help="Worker processes of --engine local.  [default: by cores]")
@click.option("--address", help="The Ray cluster of --engine ray, such as 10.0.0.5:6379.  [default: this machine]")
@click.option("--gpus-per-run", type=float, help="Share of a GPU for each run on Ray.  [default: 0.25 if any]")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or mps.")
@click.option("--quiet", is_flag=True, help="No progress bar.")
def run(
    studies: tuple[str, ...],
    profile: str | None,
    epochs: int | None,
    seeds: int | None,
    engine: str,
    workers: int | None,
    address: str | None,
    gpus_per_run: float | None,
    device: str,
    quiet: bool,
) -> None:
    """Train what is missing of STUDIES (default: all), and show mean, SD and n of every arm.

    The studies are 01-baseline and 02-dropout; "dropout" is enough of a name. Finished runs are not trained
    again: after an interruption the same command goes on.
    """
    from rich.console import Console

    from cnnlab.studies.profiles import find_profile, lab_studies, pick

    chosen = pick(lab_studies(find_profile(profile, epochs, seeds)), studies)

    from cnnlab.data import load_data
    from cnnlab.device import device_name, resolve_device
    from cnnlab.reporting.text import arms_table, links
    from cnnlab.studies.engines import choose_engine
    from cnnlab.studies.results import summary
    from cnnlab.tracking.connection import connect

    if engine != "ray":  # a cluster has its own devices
        click.echo(f"Training on {device_name(resolve_device(device))}")
    store = connect(click.echo)
    load_data(click.echo)  # workers find it in the cache
    images = sum(config.epochs * config.train_images for study in chosen for _, _, config in study.runs())
    with choose_engine(engine, store, images, device, workers, address, gpus_per_run) as where:
        for study in chosen:
            click.echo()
            runs = study.run(None, store, click.echo, where, device, progress=not quiet)
            Console().print(arms_table(f"{study.name}: validation, mean over the seeds", summary(study, runs)))
    click.echo(f"\n{links(store)}")


@cli.command(short_help="Show what `run` would do, and how long it takes.")
@click.argument("studies", nargs=-1)
@click.option("--profile", help="How much is trained: tiny (seconds), quick (minutes), full (hours).  [default: quick]")
@click.option("--epochs", type=click.IntRange(1), help="Epochs a run, other than the profile's.")
@click.option("--seeds", type=click.IntRange(1), help="Seeds an arm, other than the profile's.")
def plan(studies: tuple[str, ...], profile: str | None, epochs: int | None, seeds: int | None) -> None:
    """Show the arms of STUDIES (default: all), which runs exist, and about how long the rest takes here."""
    from cnnlab.studies.profiles import find_profile, lab_studies, pick
    from cnnlab.tracking.connection import connect

    chosen = pick(lab_studies(find_profile(profile, epochs, seeds)), studies)
    store = connect(click.echo)
    for study in chosen:
        click.echo(f"\n{study.plan(store)}")


@cli.command(short_help="Check everything the lab needs.")
def doctor() -> None:
    """Check everything the lab needs; each line is OK or says what mends it."""
    from cnnlab.doctor import examine

    if not examine(click.echo):
        raise SystemExit(1)


@cli.group(short_help="Start, stop or look at the MLflow server.")
def server() -> None:
    """Start, stop or look at the MLflow server of this folder."""


@server.command()
def start() -> None:
    """Start the server and wait until it answers."""
    from cnnlab import server as mlflow_server
    from cnnlab.tracking import leave_nothing_behind

    mlflow_server.start(click.echo)
    leave_nothing_behind(click.echo)


@server.command()
def stop() -> None:
    """Stop the server of this folder, and no other."""
    from cnnlab import server as mlflow_server

    mlflow_server.stop(click.echo)


@server.command()
def status() -> None:
    """Say whether the server runs; exit code 1 where it doesn't."""
    from cnnlab import server as mlflow_server

    now = mlflow_server.status()
    click.echo(str(now))
    if now.state != "running":
        raise SystemExit(1)


@cli.command(short_help="Open the shared views in the MLflow UI.")
@click.option("--open/--no-open", "in_browser", default=True, show_default=True, help="Open the first in a browser.")
def ui(in_browser: bool) -> None:
    """Print the links of the shared views, and open the newest; the server is started where it doesn't run."""
    from cnnlab import server as mlflow_server

    if "MLFLOW_TRACKING_URI" not in os.environ:
        mlflow_server.start(click.echo)

    from cnnlab.reporting.text import links
    from cnnlab.tracking.connection import connect
    from cnnlab.tracking.views import view_links

    store = connect(click.echo)
    click.echo(links(store))
    if in_browser:
        every = [link for views in view_links(store, store.uri).values() for link in views.values()]
        click.launch(every[0] if every else store.uri)


def main() -> None:
    """Run the command line; the exit code is 0, 1 (an error, in one sentence), 2 (usage) or 130 (Ctrl-C)."""
    signal.signal(signal.SIGTERM, _end_cleanly)
    try:
        code = cli.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except LabError as error:
        click.echo(f"Error: {error}", err=True)
        code = 1
    except (KeyboardInterrupt, click.Abort):
        click.echo("\nStopped. What was measured is kept; the same command goes on from here.", err=True)
        code = 130
    sys.exit(code)


def _end_cleanly(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt

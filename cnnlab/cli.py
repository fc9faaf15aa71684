"""The command line: the same verbs as the notebook.

Every command loads what it needs when it runs, so that `cnnlab --help` answers at once.
"""

import errno
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, get_args

import click

from cnnlab.cli_class import classroom
from cnnlab.inquiry import paths
from cnnlab.inquiry.claim import INTERACTION_WORDS, Claim, Direction
from cnnlab.inquiry.errors import LabError
from cnnlab.terminal import InOrder, say

if TYPE_CHECKING:
    from cnnlab.inquiry.record.store import Store
    from cnnlab.inquiry.study import Study


@click.group(cls=InOrder, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="cnnlab")
def cli() -> None:
    """Hypothesis-driven experiments with CNNs on Fashion-MNIST, every run logged to MLflow.

    For example: cnnlab predict dropout, then cnnlab run dropout, then cnnlab report.

    The studies: baseline, dropout, dropout-long, normalization, combined, order, learning-rates, rates-per-norm,
    tiny-batches, and search once 03_mlflow.py has run; in the full profile also dropout-short and best.
    """


def _sized(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options that say how much is trained."""
    profiles = "How much is trained: a minute, minutes or hours.  [default: quick]"
    seeds, epochs = click.IntRange(1, 1000), click.IntRange(1)
    command = click.option("--seeds", type=seeds, help="Seeds per arm, instead of the profile's.")(command)
    command = click.option("--epochs", type=epochs, help="Epochs per run, instead of the profile's.")(command)
    return click.option("--profile", type=click.Choice(["tiny", "quick", "full"]), help=profiles)(command)


def _claim_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command an option for each field of a claim."""
    directions = click.Choice([*get_args(Direction), *INTERACTION_WORDS])
    kinds: dict[str, dict[str, Any]] = {
        "direction": {"type": directions, "help": "the last three are for interactions"},
        "size": {
            "nargs": 2,
            "type": float,
            "help": "the range that you are 80 % sure of, such as 1 3; optional",
        },
        "interaction": {"nargs": 2, "help": "two changes to the control, such as norm=batch lr=0.3"},
        "confidence": {"type": float},
        "sesoi": {"type": float},
        "at_least_sesoi": {"is_flag": True, "default": None, "help": "claim at least the smallest effect of interest"},
    }
    for name, field in reversed(Claim.model_fields.items()):
        about = {"help": field.description} | kinds.get(name, {})
        command = click.option(f"--{name.replace('_', '-')}", name, **about)(command)
    return command


@cli.command(short_help="Record what you expect of a study, before its runs.")
@click.argument("study")
@_claim_options
@_sized
def predict(study: str, profile: str | None, epochs: int | None, seeds: int | None, **said: Any) -> None:
    """Record what you expect of STUDY, before its first run; it asks for what the options leave open.

    STUDY is one of those that `cnnlab --help` lists. A prediction without questions:

    \b
      cnnlab predict dropout --arm dropout=0.5 --metric loss/valid \\
          --direction higher --size 0.03 0.15 --confidence 75 \\
          --because "it takes features away" --if-refuted "it is overfitting"
    """
    from cnnlab.inquiry.contrast import changes_from_text
    from cnnlab.inquiry.prediction import predict as record
    from cnnlab.inquiry.record.connection import connect

    (chosen,) = _studies((study,), profile, epochs, seeds)
    claim = {name: value for name, value in said.items() if value is not None}
    size = {"profile": profile, "epochs": epochs, "seeds": seeds}
    if "interaction" in claim:
        claim["interaction"] = changes_from_text(claim["interaction"])
    store = connect()
    try:
        if asked := _ask_what_is_missing(chosen, claim, store):
            text = "\n".join(f"  {name}: {value}" for name, value in claim.items())
            click.confirm(f"\n{text}\nRecord this? It can't be changed afterwards", default=None, abort=True)
    except click.Abort:
        say(f"\nNothing was recorded. Your answers so far:\n{_as_command(study, claim | size)}", err=True)
        raise SystemExit(130) from None
    say(f"{chr(10) * asked}{record(chosen, store=store, **claim)}")


def _as_command(study: str, options: dict[str, Any]) -> str:
    """Return the command with all answers that were given, so that nobody has to type them again."""
    words = ["uv", "run", "cnnlab", "predict", study]
    for name, value in options.items():
        if value is not None:
            many = [f"{field}={new}" for field, new in value.items()] if isinstance(value, dict) else value
            words += [f"--{name.replace('_', '-')}", *map(str, many if isinstance(many, tuple | list) else [many])]
    return _command_line(words)


def _ask_what_is_missing(study: "Study", claim: dict[str, Any], store: "Store") -> bool:
    """Ask for what a claim lacks, and check each answer; return whether anything was asked."""
    from cnnlab.inquiry.judge.power import power
    from cnnlab.inquiry.prediction import check_so_far

    check_so_far(study, claim)
    what = {"arm": f"Arm, one of {', '.join(name for name in study.arms if name != study.control)}"}
    what |= {name: f"{name}: {field.description}" for name, field in Claim.model_fields.items() if field.is_required()}
    if {"arm", "trend", "interaction"} & set(claim):
        del what["arm"]
    missing = [name for name in what if name not in claim]
    if missing:
        say(f"{study.question}\nArms: {', '.join(study.arms)}, with {len(study.seeds)} seeds each.")
    for name in missing:
        claim[name] = _answer(study, claim, name, what[name])
        if name == "metric":
            say(f"{power(study, claim['metric'], store)}\n")
        if name == "direction" and claim["direction"] not in ("none", "additive") and not claim.get("size"):
            what_size = "size: the range that you are 80 % sure of, such as 1 3 (press Enter for no range)"
            claim["size"] = _answer(study, claim, "size", what_size)
    return bool(missing)


def _value(name: str, text: str) -> Any:
    """Return an answer in the form that the claim needs: a number, two numbers or none, or the text.

    Raises:
        LabError: it should be numbers.
    """
    try:
        if name == "size":
            return tuple(map(float, text.replace(",", " ").split())) or None
        return float(text) if name == "confidence" else text
    except ValueError:
        example = "two numbers, such as 1 3, or nothing" if name == "size" else "a number, such as 70"
        raise LabError(f"{name} is {text!r}, and should be {example}.") from None


def _answer(study: "Study", claim: dict[str, Any], name: str, question: str) -> Any:
    """Ask until an answer is possible, and say why one isn't."""
    from cnnlab.inquiry.prediction import check_so_far

    while True:
        text = click.prompt(question, default="" if name == "size" else None, show_default=False)
        try:
            answer = _value(name, text)
            check_so_far(study, claim | {name: answer})
            return answer
        except LabError as error:
            say(str(error), err=True)


@cli.command(short_help="Train what is missing, show mean, SD, n and the verdicts.")
@click.argument("studies", nargs=-1)
@click.option("--examples", is_flag=True, help="Record the example predictions first, as the owner 'example'.")
@_sized
@click.option("--engine", type=click.Choice(["auto", "here", "workers", "ray"]), default="auto", show_default=True)
@click.option("--workers", type=click.IntRange(1), help="How many worker processes.  [default: by cores]")
@click.option("--address", help="The Ray cluster of --engine ray, such as 10.0.0.5:6379.  [default: this machine]")
@click.option("--gpus-per-run", type=float, help="Share of a GPU for each run on Ray.  [default: 0.25 if any]")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda", "mps"]), default="auto", show_default=True)
@click.option("--quiet", is_flag=True, help="No progress bar.")
def run(
    studies: tuple[str, ...],
    examples: bool,
    engine: str,
    workers: int | None,
    address: str | None,
    gpus_per_run: float | None,
    device: str,
    quiet: bool,
    **size: Any,
) -> None:
    """Train the missing runs of STUDIES (default: all), show mean, SD and n of every arm, then the verdicts.

    A study is run only after you have predicted something about it (`cnnlab predict`). With --examples the
    predictions that ship with the lab are recorded first, as the owner "example"; yours start from nothing.
    Part of a name is enough, such as "dropout". Finished runs are not trained again: rerun the command to resume.
    """
    if engine in ("auto", "workers"):
        from cnnlab.inquiry.run.start import worker_context

        worker_context()  # they import at the same time as this process

    from rich.console import Console

    from cnnlab.inquiry.record.environment import EXAMPLE

    if examples:
        os.environ["CNNLAB_OWNER"] = EXAMPLE
    chosen = _studies(studies, **size)

    from cnnlab.course.examples import predict_examples
    from cnnlab.device import device_name, resolve_device
    from cnnlab.fashion_mnist import load_data
    from cnnlab.inquiry.record.connection import connect
    from cnnlab.inquiry.record.environment import owner
    from cnnlab.inquiry.record.heads import my_head
    from cnnlab.inquiry.run.choose import choose_engine
    from cnnlab.inquiry.show.confront import confront
    from cnnlab.inquiry.show.text import links
    from cnnlab.tables import arms_table, summary

    if engine != "ray":  # a cluster has its own devices
        say(f"Training on {device_name(resolve_device(device))}")
    store = connect()
    if examples:
        say(f'Recording the example predictions that ship with the lab, as the owner "{EXAMPLE}":')
        for study in chosen:
            for prediction in predict_examples(study, store):
                say(f"  {prediction.sentence()}")
    load_data()  # workers find it in the cache
    images = sum(config.epochs * config.train_images for study in chosen for _, _, config in study.runs())
    with choose_engine(engine, store, images, device, workers, address, gpus_per_run) as where:
        for study in chosen:
            say("")
            runs = study.run(store, where, device, progress=not quiet)
            Console().print(arms_table(f"{study.name}: validation, mean over the seeds", summary(study, runs)))
            say(f"\n{confront(study, store)}")
    say(f"\n{links(store, [study.name for study in chosen])}")
    say(f"\nHead of everything that {owner()} has on record (note it, or hand it in): {my_head(store, owner())}")


@cli.command(short_help="Confront predictions with the runs.")
@click.argument("studies", nargs=-1)
@_sized
def verdict(studies: tuple[str, ...], **size: Any) -> None:
    """Compute and record the verdicts on your predictions about STUDIES (default: all that you predicted)."""
    from cnnlab.inquiry.record.connection import connect
    from cnnlab.inquiry.record.environment import owner
    from cnnlab.inquiry.record.ledger import load_records
    from cnnlab.inquiry.show.confront import confront

    chosen = _studies(studies, **size)
    store = connect()
    predicted = {record.content.get("study") for record in load_records(store, owner=owner())}
    asked = chosen if studies else [study for study in chosen if study.name in predicted]
    if not asked:
        if not predicted:
            raise LabError(f"{owner()} has predicted nothing yet: begin with `uv run cnnlab predict dropout`.")
        raise LabError(
            f"{owner()} has predicted nothing about the lab's studies at this size, but about "
            f"{', '.join(sorted(map(str, predicted)))}: give the --profile, --epochs and --seeds that you predicted "
            "with. The verdicts on a study of your own come from confront(study), in Python."
        )
    for study in asked:
        say(f"\n{study.name}\n{confront(study, store)}")


@cli.command(short_help="Write your report: one page and an annex.")
def report() -> None:
    """Write your report into experiment_log, as Markdown, HTML and, where a browser can print it, PDF.

    Page one (A4) has your predictions beside what came out, and your calibration; an annex has them in a table, and
    your reflections from the logbooks. While a reflection is empty, there is no report: its file and line are named.
    """
    from cnnlab.inquiry.record.connection import connect
    from cnnlab.inquiry.show.report import report as write

    write(connect())


@cli.command(short_help="Look at a store as an instructor does, without changing it.")
@click.argument("store", required=False)
@click.option("--all", "everything", is_flag=True, help="Include the reference predictions.")
@click.option("--head", help="A head that was handed in earlier: checks that everything it covers is unchanged.")
@click.option("--reproduce", "again", type=click.IntRange(1), help="Retrain this many runs, chosen at random.")
@click.option("--database", help="The server's PostgreSQL database, if it logs when records arrived.")
def review(store: str | None, everything: bool, head: str | None, again: int | None, database: str | None) -> None:
    """Show what was predicted, run and judged in STORE, and whether its records are intact.

    STORE is a folder with an mlflow.db, such a file, or the address of a server (default: this project's store). It may
    be anybody's: for runs made without this lab, the output says what can't be known. Exit code 1 if records don't fit.
    """
    from cnnlab.inquiry.judge.review import review as look
    from cnnlab.inquiry.record.entries import empty_reflections
    from cnnlab.inquiry.record.environment import REFERENCE
    from cnnlab.inquiry.record.received import load_received
    from cnnlab.inquiry.record.snapshot import snapshot
    from cnnlab.inquiry.show.text import review_text

    folder, is_well = _project_of(store), True
    with snapshot(store or _own_store()) as opened:
        found = look(opened, folder, load_received(database) if database else None)
        hide = None if everything or set(found.heads) <= {REFERENCE} else REFERENCE
        say(review_text(found, min(100, shutil.get_terminal_size().columns), hide))
        if folder and (empty := empty_reflections(folder / "experiment_log")):
            say(f"\nReflections that are empty: {', '.join(empty)}")
        if head:
            said = found.find_head(head)
            say(f"\n{said or 'This head is unknown in this store: something before it was changed or is missing.'}")
            is_well = bool(said)
        if again:
            from cnnlab.inquiry.judge.reproduce import reproduce_random

            for one in reproduce_random(opened, again):
                say(f"\n{one}")
                is_well = is_well and (isinstance(one, str) or one.is_reproduced)
    if not (found.is_intact and is_well):
        raise SystemExit(1)


@cli.command(short_help="Show the reference results, if the store has them.")
@click.option("--write", is_flag=True, help="Write them into README.md, and their figure into experiment_log.")
def results(write: bool) -> None:
    """Show the predictions, verdicts and effects of the reference runs, from the store."""
    from cnnlab.course.overview import Results, write_results
    from cnnlab.inquiry.record.connection import connect

    store = connect()
    if write:
        readme = paths.project_root() / "README.md"
        if not readme.is_file():
            raise LabError(
                f"there is no {readme} to write into: run this in the lab's own folder, without CNNLAB_HOME."
            )
        write_results(store, readme)
    say(f"\n{Results(store)}")


@cli.command(short_help="Register a run's model as models:/fashion-cnn@champion.")
@click.argument("run")
def champion(run: str) -> None:
    """Register the model of RUN, named by its id in MLflow, as models:/fashion-cnn@champion, with a model card."""
    from cnnlab.course.champion import register_champion
    from cnnlab.inquiry.record.connection import connect

    say(f"\n{register_champion(run, connect())}")


@cli.command(short_help="Train recorded runs again, and compare.")
@click.argument("runs", nargs=-1)
def reproduce(runs: tuple[str, ...]) -> None:
    """Retrain RUNS, named by their ids in MLflow, from their params, and compare with what was recorded.

    Without an id: one run of each reference study in the store. Nothing is recorded. On the same kind of
    processor the numbers are the same to the last bit, elsewhere within a bound that was measured. Exit code 1 if
    they are not.
    """
    from cnnlab.fashion_mnist import load_data
    from cnnlab.inquiry.judge.reproduce import one_run_of_each
    from cnnlab.inquiry.judge.reproduce import reproduce as train_again
    from cnnlab.inquiry.record.connection import connect

    store = connect()
    wanted = runs or one_run_of_each(store)
    if not wanted:
        raise LabError("this store has no reference runs: name a run by its id, which the MLflow UI shows.")
    data, failed = load_data(), 0
    for run_id in wanted:
        found = train_again(run_id, store, data)
        say(f"\n{found}")
        failed += not found.is_reproduced
    if failed:
        raise SystemExit(1)


@cli.command(short_help="Show what `run` would do, and how long it takes.")
@click.argument("studies", nargs=-1)
@_sized
def plan(studies: tuple[str, ...], **size: Any) -> None:
    """Show the arms of STUDIES (default: all), which runs exist, and about how long the rest takes here."""
    from cnnlab.inquiry.record.connection import connect

    chosen = _studies(studies, **size)
    store = connect()
    say("Looking for finished runs; this machine's speed is measured once, which takes a few seconds ...")
    for study in chosen:
        say(f"\n{study.plan(store)}")


def _studies(names: tuple[str, ...], profile: str | None, epochs: int | None, seeds: int | None) -> "list[Study]":
    from cnnlab.course.profiles import find_profile
    from cnnlab.course.studies import lab_studies, pick

    size = find_profile(profile, epochs, seeds)
    studies = lab_studies(size)
    if not names or any("search" in name for name in names):
        from cnnlab.course.search import search_study
        from cnnlab.course.trials import NoTrials
        from cnnlab.inquiry.record.connection import default_store

        try:
            search = search_study(size, default_store())
            studies[search.name] = search
        except NoTrials:
            if names:
                raise
    return pick(studies, names)


def _own_store() -> str:
    return os.environ.get("MLFLOW_TRACKING_URI") or str(paths.database())


def _project_of(store: str | None) -> Path | None:
    """Return the project's folder that a store belongs to, with its files and logbooks; None for a server's."""
    from cnnlab.inquiry.record.store import is_address

    where = store or _own_store()
    if is_address(where):
        return None
    file = Path(where.removeprefix("sqlite:///")).expanduser()
    return file if file.is_dir() else paths.project_root() if store is None else file.parent


@cli.command(short_help="Check everything the lab needs.")
def doctor() -> None:
    """Check everything the lab needs; each line is OK or says how to fix it."""
    from cnnlab.doctor import examine

    all_well = True
    for is_well, line in examine():
        say(line)
        all_well = all_well and is_well
    if not all_well:
        raise SystemExit(1)


@cli.group(short_help="Start, stop or look at the MLflow server.")
def server() -> None:
    """Start, stop or look at the MLflow server of this folder."""


@server.command()
def start() -> None:
    """Start the server and wait until it answers."""
    from cnnlab.inquiry import server as mlflow_server
    from cnnlab.inquiry.record.spool import is_waiting

    mlflow_server.start()
    if is_waiting():
        from cnnlab.inquiry.record.courier import deliver_leftovers

        deliver_leftovers()


@server.command()
def stop() -> None:
    """Stop the server of this folder, and no other."""
    from cnnlab.inquiry import server as mlflow_server

    mlflow_server.stop()


@server.command()
def status() -> None:
    """Say whether the server is running; exit code 1 if it isn't."""
    from cnnlab.inquiry import server as mlflow_server

    now = mlflow_server.status()
    say(str(now))
    if now.state != "running":
        raise SystemExit(1)


@server.command("command")
def by_hand() -> None:
    """Print the command that starts the server of this folder by hand, in any terminal."""
    from cnnlab.inquiry import server as mlflow_server

    say(_command_line(mlflow_server.command()))


def _command_line(words: list[str]) -> str:
    """Return a command as this system's terminal takes it."""
    return subprocess.list2cmdline(words) if os.name == "nt" else shlex.join(words)


@cli.command(short_help="Open the page of the lab in a browser.")
@click.option("--open/--no-open", "in_browser", default=True, show_default=True, help="Open it, or just print it.")
def ui(in_browser: bool) -> None:
    """Print and open the page of the lab, /lab on its MLflow server, which is started if it isn't running.

    With MLFLOW_TRACKING_URI it is the page of that server.
    """
    from cnnlab.inquiry import server as mlflow_server

    if not os.environ.get("MLFLOW_TRACKING_URI"):
        mlflow_server.start()

    from cnnlab.inquiry.record.connection import ask
    from cnnlab.inquiry.record.elsewhere import lab_address
    from cnnlab.inquiry.record.store import find_store

    store = find_store()
    if store.file and store.chosen:
        raise LabError(
            f"MLFLOW_TRACKING_URI is the file {store.file}, which no server shows: name a server, or unset it."
        )
    ask(store)
    page = lab_address(store.uri) or store.uri
    say(page)
    if in_browser:
        click.launch(page)


cli.add_command(classroom)


def main() -> None:
    """Run the command line; the exit code is 0, 1 (an error, in one sentence), 2 (usage) or 130 (Ctrl-C)."""
    signal.signal(signal.SIGTERM, _end_cleanly)
    try:
        code = cli.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except (KeyboardInterrupt, click.Abort):
        say("\nStopped. What was measured is kept; rerun the command to continue.", err=True)
        code = 130
    except Exception as error:
        said = str(error) if isinstance(error, LabError) else _of_the_surroundings(error)
        if said is None:
            raise
        say(f"Error: {said}", err=True)
        code = 1
    sys.exit(code)


def _of_the_surroundings(error: Exception) -> str | None:
    """Return in a sentence what the disk or the database refused; None where an error is of another kind."""
    if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC):
        return (
            f"{error.filename or 'a file'} can't be written or read ({error.strerror}): fix that, then repeat the "
            "command."
        )
    if "(sqlite3.OperationalError)" not in str(error):
        return None
    from cnnlab.inquiry.record.schema import in_plain_words
    from cnnlab.inquiry.record.store import find_store

    store = find_store()
    return in_plain_words(error, store.file) if store.file else None


def _end_cleanly(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt

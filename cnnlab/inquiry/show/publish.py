"""What the MLflow UI shows of verdicts: names and columns of the predictions, and a note above their table."""

from cnnlab.inquiry.judge.review import effect_of, labelled, outcome_of
from cnnlab.inquiry.prediction import say_claim
from cnnlab.inquiry.record.ledger import FOUND, NOTE, PREDICTED, Record, load_records
from cnnlab.inquiry.record.store import Store
from cnnlab.inquiry.show.effects import say_outcomes


def publish_outcomes(store: Store, experiment: str, question: str, owner: str) -> None:
    """Name the predictions of an owner by their last verdicts, and write these above the experiment's table.

    The UI shows the first line of the note, with the outcomes in few words, and the rest when it is unfolded.

    Raises:
        LabError: the store doesn't answer.
    """
    judged = [one for one in load_records(store, experiment, owner) if one.verdicts and not one.deleted]
    if not judged:
        return
    outcomes = [one.verdicts[-1].content["outcome"] for one in judged]
    for record, outcome in zip(judged, outcomes, strict=True):
        content = record.content
        claim = f"{content['metric']} {content['direction']}, {content['contrast']}"
        store.client.update_run(record.run_id, name=f"{outcome}: {claim}")
        store.client.set_tag(record.run_id, PREDICTED, f"{say_claim(content)}, {content['confidence']} % sure")
        store.client.set_tag(record.run_id, FOUND, _found(record, outcome))
    said = say_outcomes(outcomes)
    lines = [f"- {one.content['contrast']}, {one.content['metric']}: {_found(one, outcome_of(one))}" for one in judged]
    note = "\n".join([f"{said[:1].upper()}{said[1:]}. {question}", "", *lines])
    store.client.set_experiment_tag(store.experiment_id(experiment), NOTE, note)


def _found(record: Record, outcome: str) -> str:
    """Return the last verdict in one line: the outcome with its effect, or with the first reason why there is none."""
    if effect := effect_of(record):
        return f"{labelled(outcome, record)}: {effect}"
    first, _, _ = record.verdicts[-1].content.get("said", outcome).partition(". ")
    return f"{first.rstrip('.')}."

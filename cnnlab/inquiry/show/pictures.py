"""Pictures from the store: the figures of one run."""

from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from cnnlab.inquiry.errors import LabError
from cnnlab.inquiry.record.store import Store, first_line


@dataclass(frozen=True)
class Picture:
    """A PNG file; a notebook shows it."""

    name: str
    png: bytes = field(repr=False)

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, bytes], dict[str, dict[str, str]]]:
        return {"image/png": self.png}, {"image/png": {"alt": self.name.replace("_", " ")}}


def run_figure(store: Store, run_id: str, name: str) -> Picture:
    """Return a figure of a run: learning_curves, confusion_matrix or confident_mistakes.

    A run that was taken over from another study has the figures of the original run.

    Raises:
        LabError: there is no such figure in the store.
    """
    try:
        tags = store.client.get_run(run_id).data.tags
        with TemporaryDirectory(prefix="cnnlab-", ignore_cleanup_errors=True) as folder:
            of = tags.get("reused_from", run_id)
            return Picture(name, Path(store.client.download_artifacts(of, f"figures/{name}.png", folder)).read_bytes())
    except Exception as error:  # MLflow raises whatever the library below it raises
        raise LabError(f"the run {run_id} has no figure {name!r} in the store ({first_line(error)}).") from None

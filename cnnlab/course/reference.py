"""The studies of the reference runs, which ship with the lab."""

from cnnlab.course.profiles import PROFILES
from cnnlab.course.studies import lab_studies
from cnnlab.inquiry.record.environment import REFERENCE as OWNER
from cnnlab.inquiry.study import Study


def reference_studies() -> dict[str, Study]:
    """Return the studies of the reference runs by name: those of the full profile."""
    return lab_studies(PROFILES["full"], OWNER)


def reference_study(name: str) -> Study | None:
    """Return the reference study that corresponds to a study of another profile: 02-dropout for quick-02-dropout."""
    fitting = [study for known, study in reference_studies().items() if name == known or name.endswith(f"-{known}")]
    return fitting[0] if fitting else None

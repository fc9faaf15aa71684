"""One rule for the names of studies, arms and owners, which become names of files, folders and records."""

from cnnlab.inquiry.errors import LabError

MARKS = "-_.,=+()@' "  # besides letters and digits
DEVICES = {"CON", "PRN", "AUX", "NUL", *(f"{port}{i}" for port in ("COM", "LPT") for i in range(1, 10))}  # of Windows
LONGEST = {"study": 64, "owner": 64, "arm": 200}  # characters


def check_name(kind: str, name: object, hint: str = "") -> str:
    """Return the name of a study, arm or owner (its `kind`) unchanged if it is valid.

    Raises:
        LabError: it isn't a valid name; `hint` says what to do, if that isn't obvious.
    """
    longest = LONGEST[kind]
    if (
        isinstance(name, str)
        and 0 < len(name) <= longest
        and all(char.isalnum() or char in MARKS for char in name)
        and name.strip(" .") == name
        and not name.startswith("-")
        and name.partition(".")[0].upper() not in DEVICES
    ):
        return name
    shown = repr(name) if len(repr(name)) <= 80 else f"{repr(name)[:77]}..."
    raise LabError(
        f"{shown} can't be the name of {'an' if kind[0] in 'ao' else 'a'} {kind}: use letters, digits and "
        f"{' '.join(MARKS.strip())} or spaces, at most {longest} characters, neither a dot nor a space at either end, "
        "no hyphen at the beginning, and no name of a device such as NUL or COM1." + (f" {hint}" if hint else "")
    )

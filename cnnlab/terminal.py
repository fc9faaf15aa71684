"""What the commands print, and in which order they are listed."""

import os
import re
import sys

import click

from cnnlab.inquiry.printable import on_screen

COLOURS = {
    "supported": "green",
    "refuted": "red",
    "practically equivalent": "blue",
    "inconclusive": "yellow",
    "withheld": "magenta",
}
# An outcome at the beginning of a line, or of a row of a table, or after an arrow.
OUTCOME = re.compile(rf"(?m)^((?: *\d+ +| *=> )?)((?:direction )?({'|'.join(COLOURS)}))\b")


class InOrder(click.Group):
    """A group whose commands are listed in the order in which one works."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names as they were defined."""
        return list(self.commands)


def say(text: object, err: bool = False) -> None:
    """Print a text, with nothing in it that could hide something on a terminal; there, outcomes have their colours."""
    shown = on_screen(str(text), sys.stderr if err else sys.stdout)
    coloured = OUTCOME.sub(lambda found: found[1] + click.style(found[2], fg=COLOURS[found[3]]), shown)
    click.echo(coloured, err=err, color=False if "NO_COLOR" in os.environ else None)

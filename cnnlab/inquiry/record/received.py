"""When a server's database received a record, by its own clock: the table that `class/received.sql` fills.

It has the time at which a run, a prediction or a verdict was created. What was added later to a run that existed
already, such as its results after a deadline, it can't show.
"""

from sqlalchemy import create_engine, text
from sqlalchemy.exc import ProgrammingError, SQLAlchemyError

from cnnlab.inquiry.errors import LabError
from cnnlab.inquiry.record.store import first_line

# In ms since 1970, by the id of a run, and "run" or the name of the param that seals a verdict.
Received = dict[tuple[str, str], float]


def load_received(database: str) -> Received:
    """Read the table from a PostgreSQL database, such as "postgresql+psycopg:///mlflow".

    Raises:
        LabError: it isn't PostgreSQL, can't be reached, or has no such table.
    """
    if not database.startswith("postgresql"):
        raise LabError(
            f"{database.partition(':')[0]!r} isn't PostgreSQL, and no other database has the table cnnlab_received, "
            "with the times at which the server received records: give postgresql://user:password@host/mlflow, or "
            "leave --database out."
        )
    try:
        engine = create_engine(database)
        with engine.connect() as connection:
            rows = connection.execute(text("SELECT run_uuid, what, received FROM cnnlab_received")).all()
        engine.dispose()
    except ProgrammingError:
        raise LabError(
            "this database has no table cnnlab_received, so it doesn't keep when it receives records: run "
            "class/received.sql on it, or leave --database out."
        ) from None
    except (SQLAlchemyError, ImportError) as error:  # without the class extra there is no driver
        raise LabError(
            f"the database can't be read ({first_line(error)}): set PGHOST, PGUSER and PGPASSWORD, name it as "
            "postgresql+psycopg:///mlflow, and run `uv sync --extra class`."
        ) from None
    return {(run_id, what): 1000 * received.timestamp() for run_id, what, received in rows}

"""When a server's database received a record, by its own clock: the table that `class/received.sql` fills."""

from sqlalchemy import create_engine, text
from sqlalchemy.exc import ProgrammingError, SQLAlchemyError

from cnnlab.inquiry.errors import LabError
from cnnlab.inquiry.record.store import first_line

# In ms since 1970, by the id of a run, and "run" or the name of the param that seals a verdict.
Received = dict[tuple[str, str], float]


def load_received(database: str) -> Received:
    """Read the table from a PostgreSQL database, such as "postgresql+psycopg:///mlflow".

    Raises:
        LabError: it can't be reached, or has no such table.
    """
    try:
        engine = create_engine(database)
        with engine.connect() as connection:
            rows = connection.execute(text("SELECT run_uuid, what, received FROM cnnlab_received")).all()
        engine.dispose()
    except ProgrammingError:
        raise LabError("this database doesn't keep when it receives: run class/received.sql on it.") from None
    except (SQLAlchemyError, ImportError) as error:  # without the class extra there is no driver
        raise LabError(
            f"the database can't be read ({first_line(error)}): set PGHOST, PGUSER and PGPASSWORD, name it as "
            "postgresql+psycopg:///mlflow, and run `uv sync --extra class`."
        ) from None
    return {(run_id, what): 1000 * received.timestamp() for run_id, what, received in rows}

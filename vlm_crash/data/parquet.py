"""Parquet files, in and out; the only module that knows pyarrow.

Enters: a Parquet file, or the lines of a predictions.jsonl. Leaves: rows; or files of predictions, so many rows each.
Must hold: neither is in memory as a whole; what cannot be done without pyarrow says so in one message.
"""

import importlib
import json
import re
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from vlm_crash.data.files import whole_file

#: Rows of a file of predictions.
ROWS_PER_FILE = 100_000
#: Rows that are in memory at once.
ROWS_AT_ONCE = 5_000
SHARD = "predictions-{:05d}.parquet"
SHARDS = "predictions-[0-9]*.parquet"
_OWN_SHARD = re.compile(r"predictions-\d{5,}\.parquet")


def pyarrow() -> Any:
    """pyarrow with its `parquet`.

    Raises:
        ValueError: it is not installed.
    """
    try:
        importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise ValueError(
            f"Parquet files need the package pyarrow ({error}); install it (pip install pyarrow), or use CSV or JSONL"
        ) from error
    return importlib.import_module("pyarrow")


def parquet_rows(path: Path, choose: Callable[[list[str]], list[str]]) -> Iterator[tuple[Any, ...]]:
    """Rows of the columns that are chosen among those of the file.

    Raises:
        ValueError: it is no Parquet file, or pyarrow is not installed.
    """
    arrow = pyarrow()
    try:
        file = arrow.parquet.ParquetFile(path)
        names = choose(list(file.schema_arrow.names))
        for batch in file.iter_batches(batch_size=ROWS_AT_ONCE, columns=names):
            columns = batch.to_pydict()
            yield from zip(*(columns[name] for name in names), strict=True)
    except (arrow.ArrowInvalid, arrow.ArrowTypeError) as error:
        raise ValueError(f"{path}: it cannot be read as Parquet ({error}); write it again") from error


def own_shards(folder: Path) -> set[Path]:
    """Files of a folder with the names that `write_predictions` gives."""
    return {path for path in folder.glob(SHARDS) if _OWN_SHARD.fullmatch(path.name)}


def _prediction_schema(arrow: Any) -> Any:
    """Columns of a prediction: the keys of its line; what is an object there is a map here."""
    text, number = arrow.string(), arrow.float64()
    numbers = arrow.map_(text, number)
    kinds = {
        "video": text,
        "event": text,
        "event_probability": number,
        "fields": arrow.map_(text, text),
        "field_probabilities": arrow.map_(text, numbers),
        "response": text,
        "status": text,
        "error": text,
        "seconds": number,
        "provenance": text,
        "path": text,
        "source_event": text,
        "event_probabilities": numbers,
        "text_log_probabilities": numbers,
    }
    return arrow.schema(list(kinds.items()))


def write_predictions(lines: Iterable[bytes], folder: Path, rows_per_file: int = ROWS_PER_FILE) -> list[Path]:
    """Lines of a predictions.jsonl as predictions-00000.parquet, predictions-00001.parquet, ...

    Each is whole and on the disk when it has its name; files of an earlier run are removed.

    Raises:
        ValueError: a line has a key or value that has no column.
        OSError: a file cannot be written; with its path and a remedy.
    """
    arrow = pyarrow()
    schema = _prediction_schema(arrow)
    rest = iter(lines)
    written: list[Path] = []
    while first := list(islice(rest, min(ROWS_AT_ONCE, rows_per_file))):
        path = folder / SHARD.format(len(written))
        with whole_file(path) as file, arrow.parquet.ParquetWriter(file, schema) as writer:
            num_rows = 0
            chunk = first
            while chunk:
                writer.write_table(_table(arrow, schema, chunk))
                num_rows += len(chunk)
                chunk = list(islice(rest, min(ROWS_AT_ONCE, rows_per_file - num_rows)))
        written.append(path)
    for old in own_shards(folder) - set(written):
        old.unlink()
    return written


def _table(arrow: Any, schema: Any, lines: list[bytes]) -> Any:
    rows = [json.loads(line) for line in lines]
    unknown = sorted({key for row in rows for key in row} - set(schema.names))
    if unknown:
        raise ValueError(f"predictions have the keys {unknown}, which have no column; a newer version wrote them")
    columns = {name: [_pairs(row.get(name)) for row in rows] for name in schema.names}
    try:
        return arrow.table({name: arrow.array(columns[name], schema.field(name).type) for name in schema.names})
    except (arrow.ArrowInvalid, arrow.ArrowTypeError) as error:
        raise ValueError(f"predictions do not fit the columns of Parquet ({error})") from error


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Predictions of a Parquet file as the objects of a line; columns that nothing was written into are left out."""
    columns: list[str] = []

    def all_of(names: list[str]) -> list[str]:
        columns.extend(names)
        return names

    for row in parquet_rows(path, all_of):
        named = dict(zip(columns, row, strict=True))
        yield {name: _plain(value) for name, value in named.items() if value is not None or name in _NULLABLE}


#: Keys of a line that may be null.
_NULLABLE = frozenset({"event", "event_probability", "error", "source_event"})


def _pairs(value: Any) -> Any:
    """pyarrow takes a map as a list of pairs."""
    return [(key, _pairs(inner)) for key, inner in value.items()] if isinstance(value, dict) else value


def _plain(value: Any) -> Any:
    """And gives it so."""
    return {key: _plain(inner) for key, inner in value} if isinstance(value, list) else value

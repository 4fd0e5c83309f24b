"""What is asked of the readers: the columns that a shape takes, and their types. Pure."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from entrypoint.data import shapes
from entrypoint.data.arrays import numpy
from entrypoint.data.batches import Batch
from entrypoint.data.columns import is_number
from entrypoint.data.shapes import Shape
from entrypoint.errors import DataError

WORDS = (
    (pa.types.is_binary, "lists or objects"),
    (pa.types.is_struct, "objects"),
    (pa.types.is_nested, "lists"),
    (pa.types.is_temporal, "times"),
)


def wanted_schema(schema: pa.Schema, shape: Shape, where: str) -> pa.Schema:
    """The columns of a shape, each with its type as readers are to give it.

    Numbers keep theirs, which tells readers to make text of them.

    Raises:
        DataError: a column holds what is no text.
    """
    names = dict.fromkeys(shape.columns.values())
    return pa.schema([_wanted(schema.field(name), shape, where) for name in names])


def _wanted(column: pa.Field, shape: Shape, where: str) -> pa.Field:
    if column.name == shape.columns.get("tools"):
        return column.with_type(pa.string())
    type_ = column.type
    if pa.types.is_list(type_) and pa.types.is_struct(type_.value_type):
        inner = [f for f in type_.value_type if f.name in ("role", "content", "from", "value")]
        return column.with_type(pa.list_(pa.struct([(f.name, pa.string()) for f in inner])))
    if is_number(type_) or pa.types.is_boolean(type_):
        return column
    if pa.types.is_string(type_) or pa.types.is_null(type_):
        return column.with_type(pa.string())
    held = next((word for is_it, word in WORDS if is_it(type_)), str(type_))
    raise DataError(
        f"the column {column.name} holds {held}, not text or a list of messages",
        where=where,
        hint="--columns FIELD=COLUMN names another column",
    )


def refuse_mixed(batch: Batch, shape: Shape) -> None:
    """Find rows that lack a column because they have another shape.

    Raises:
        DataError: names the first.
    """
    table = batch.table
    lacking = np.zeros(table.num_rows, bool)
    for column in shape.required.values():
        if column not in table.column_names:
            lacking[:] = True
        elif table[column].null_count:
            lacking |= numpy(pc.is_null(table[column]))
    for row in np.flatnonzero(lacking):
        there = {n for n in table.column_names if table[n][int(row)].is_valid}
        other = shapes.fits(there, shape.format)
        if other or not there & set(shape.columns.values()):
            raise DataError(
                f"mixed shapes: the row has {', '.join(sorted(there)) or 'no value'}"
                + (f" ({other})" if other else "")
                + f", the first rows have {', '.join(shape.columns.values())} ({shape.format})",
                where=batch.where(int(row)),
                hint="prepare each shape by itself, or mend the row",
            )

"""Which shape rows have: known from the names and types of their columns. Pure."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import pyarrow as pa

from entrypoint.errors import DataError, SettingsError

Task = Literal["sft", "preference", "text"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Format:
    """A shape by name; its fields, each with the column names that are taken for it."""

    task: Task
    required: Mapping[str, tuple[str, ...]]
    optional: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def fields(self) -> dict[str, tuple[str, ...]]:
        return {**self.required, **self.optional}


CHOICES = {"choices", "options"}
SYSTEM = {"system": ("system", "system_prompt")}
TOOLS = {"tools": ("tools",)}
FORMATS: Mapping[str, Format] = {
    "messages": Format(
        task="sft", required={"messages": ("messages",)}, optional={**SYSTEM, **TOOLS}
    ),
    "sharegpt": Format(
        task="sft",
        required={"conversations": ("conversations", "conversation")},
        optional={**SYSTEM, **TOOLS},
    ),
    "preference": Format(
        task="preference",
        required={
            "chosen": ("chosen", "chosen_conversations"),
            "rejected": ("rejected", "rejected_conversations"),
        },
        optional={"prompt": ("prompt", "question", "instruction"), **SYSTEM},
    ),
    "alpaca": Format(
        task="sft",
        required={"instruction": ("instruction",), "output": ("output", "response")},
        optional={"input": ("input", "context"), **SYSTEM},
    ),
    "prompt-completion": Format(
        task="sft",
        required={
            "prompt": ("prompt", "input"),
            "completion": ("completion", "response", "output"),
        },
        optional=SYSTEM,
    ),
    "question-answer": Format(
        task="sft",
        required={"question": ("question", "query"), "answer": ("answer", "response")},
        optional=SYSTEM,
    ),
    "text": Format(task="text", required={"text": ("text",)}),
}
"""In the order in which they are tried."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """A format and the column that each of its fields is read from."""

    format: str
    columns: Mapping[str, str]

    @property
    def task(self) -> Task:
        return FORMATS[self.format].task

    @property
    def required(self) -> dict[str, str]:
        return {name: self.columns[name] for name in FORMATS[self.format].required}


@dataclass(frozen=True, kw_only=True, slots=True)
class Preset:
    """A published data set and how the torchtune-on-Azure-ML tutorial reads it."""

    data: str
    split: str
    format: str
    columns: Mapping[str, str]
    eval_fraction: float = 0.2


PRESETS: Mapping[str, Preset] = {
    "helpful-instructions": Preset(
        data="HuggingFaceH4/helpful_instructions:self_instruct",
        split="train[:10%]",
        format="alpaca",
        columns={"instruction": "prompt", "output": "completion"},
    ),
    "truthy-dpo": Preset(
        data="jondurbin/truthy-dpo-v0.1",
        split="train",
        format="preference",
        columns={"prompt": "prompt", "chosen": "chosen", "rejected": "rejected"},
    ),
}


def detect(
    schema: pa.Schema, format_name: str | None, columns: Mapping[str, str], *, where: str
) -> Shape:
    """The shape of rows with these columns.

    Args:
        format_name: the user's choice; None tries all.
        columns: field -> column, as the user says.

    Raises:
        DataError: a column is missing, or no shape fits.
        SettingsError: `columns` names a field that the format does not have.
    """
    there = schema.names
    lower = {name.lower(): name for name in reversed(there)} | {name: name for name in there}
    candidates = {format_name: FORMATS[format_name]} if format_name else FORMATS
    if unknown := [
        name for name in columns if not any(name in found.fields for found in candidates.values())
    ]:
        known = list(dict.fromkeys(name for found in candidates.values() for name in found.fields))
        raise SettingsError(
            f"no format has a field {unknown[0]}{_nearest(unknown[0], known)}"
            if not format_name
            else f"the format {format_name} has no field {unknown[0]}{_nearest(unknown[0], known)}",
            where="--columns or TRAIN_COLUMNS",
            hint=f"fields are: {', '.join(known)}; write FIELD=COLUMN",
        )
    for name, column in columns.items():
        if column not in there:
            raise _missing(f"no column {column} for {name}", column, there, where)
    for name, found in candidates.items():
        if not set(columns) <= set(found.fields):
            continue
        mapped = {
            wanted: columns.get(wanted) or next((lower[one] for one in aliases if one in lower), "")
            for wanted, aliases in found.fields.items()
        }
        if all(mapped[wanted] for wanted in found.required):
            shape = Shape(
                format=name, columns={key: value for key, value in mapped.items() if value}
            )
            _refuse(shape, schema, format_name, where)
            return shape
        if format_name:
            lacking = next(wanted for wanted in found.required if not mapped[wanted])
            raise _missing(f"no column for {lacking} (format {name})", lacking, there, where)
    near = [
        (wanted, match[0])
        for found in sorted(candidates.values(), key=lambda one: -_present(one, there))
        for wanted, aliases in found.required.items()
        if not set(aliases) & set(there)
        and (match := difflib.get_close_matches(wanted, there, n=1, cutoff=0.7))
    ]
    hint = (
        "say which columns hold what: train prepare --columns instruction=COLUMN,output=COLUMN; "
        "files of separated values begin with a line of column names"
    )
    if nested := [
        field.name
        for field in schema
        if pa.types.is_nested(field.type) or pa.types.is_binary(field.type)
    ]:
        hint = (
            f"{nested[0]} holds lists or objects; if rows lie within, bring them to the top: "
            f"jq -c '.{nested[0]}', or '.{nested[0]}[]'"
        )
    elif near:
        wanted, column = near[0]
        hint = f"is {column} meant as {wanted}? train prepare --columns {wanted}={column}"
    raise DataError(
        f"columns {', '.join(there)} are of no known shape ({', '.join(FORMATS)})",
        where=where,
        hint=hint,
    )


def _present(found: Format, there: list[str]) -> int:
    return sum(bool(set(aliases) & set(there)) for aliases in found.required.values())


def fits(names: set[str], but: str) -> str | None:
    """Another format that rows with these columns have."""
    names = {name.lower() for name in names}
    for name, found in FORMATS.items():
        if name != but and all(names & set(aliases) for aliases in found.required.values()):
            return name
    return None


def _refuse(shape: Shape, schema: pa.Schema, format_name: str | None, where: str) -> None:
    """Stop at rows that would be trained on as what they are not, unless the format was named."""
    there = {name.lower() for name in schema.names}
    if format_name is None and shape.format == "prompt-completion" and "label" in there:
        raise DataError(
            "the rows are KTO ratings (prompt, completion, label), which no objective here trains",
            where=where,
            hint="make preference pairs of them (prompt, chosen, rejected), or train on good rows "
            "alone: remove the others and say --format prompt-completion",
        )
    if format_name is None and shape.format == "question-answer" and there & CHOICES:
        raise DataError(
            f"the rows are multiple choice ({', '.join(sorted(there & CHOICES))}), and the answer "
            "alone may be no more than a number or a letter",
            where=where,
            hint="write the choices into the question, or say --format question-answer if the "
            "answers are whole",
        )
    if shape.format == "preference" and "prompt" not in shape.columns:
        answer = schema.field(shape.columns["chosen"])
        if pa.types.is_string(answer.type) or pa.types.is_large_string(answer.type):
            raise DataError(
                f"{answer.name} is text, and no column has the question",
                where=where,
                hint=f"the columns are: {', '.join(schema.names)}; name it with --columns "
                "prompt=COLUMN, or make the answers lists of messages that begin with it",
            )


def _nearest(name: str, names: list[str]) -> str:
    found = difflib.get_close_matches(name, names, n=1)
    return f"; did you mean {found[0]}?" if found else ""


def _missing(what: str, wanted: str, there: list[str], where: str) -> DataError:
    return DataError(
        f"there is {what}{_nearest(wanted, there)}",
        where=where,
        hint=f"the columns are: {', '.join(there)}; train prepare --columns FIELD=COLUMN maps them",
    )

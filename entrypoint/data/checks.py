"""What is looked for in every row, and what happens to a row that has it. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from entrypoint.data import arrays
from entrypoint.data.arrays import bounds, numpy
from entrypoint.data.rows import ROLES
from entrypoint.errors import DataError, SettingsError

Policy = Literal["error", "drop", "keep"]
EXAMPLES = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """One thing that can be wrong with a row."""

    what: str
    """After "row 7": "has an empty text"."""
    hint: str
    default: Policy
    allowed: tuple[Policy, ...] = ("error", "drop", "keep")


CHECKS: Mapping[str, Check] = {
    "empty": Check(
        what="has an empty question, answer or text",
        hint="fill it, or leave such rows out with --policy empty=drop",
        default="error",
        allowed=("error", "drop"),
    ),
    "roles": Check(
        what=f"has a role that is none of {', '.join(ROLES)}, or does not end with the assistant",
        hint="mend it, or leave such rows out with --policy roles=drop",
        default="error",
        allowed=("error", "drop"),
    ),
    "order": Check(
        what="has a system message in mid-conversation, an answer without a question, or the same "
        "side twice in a row",
        hint="many chat templates refuse this; --policy order=drop leaves such rows out, "
        "order=keep keeps them",
        default="error",
    ),
    "same": Check(
        what="has a chosen answer that equals its rejected one",
        hint="nothing can be learnt from it; --policy same=drop leaves such rows out",
        default="error",
        allowed=("error", "drop"),
    ),
    "encoding": Check(
        what="holds the replacement character U+FFFD: its text was once decoded wrongly",
        hint="repair the source, or leave such rows out with --policy encoding=drop",
        default="keep",
    ),
    "unread": Check(
        what="has messages with keys that are not read",
        hint="nothing of them is trained on; --policy unread=drop leaves such rows out",
        default="keep",
    ),
    "duplicates": Check(
        what="repeats an earlier row",
        hint="--policy duplicates=drop keeps the first of each",
        default="keep",
    ),
    "near-duplicates": Check(
        what="nearly repeats an earlier row",
        hint="--policy near-duplicates=drop keeps the first of each",
        default="keep",
    ),
    "overlap": Check(
        what="is an evaluation row whose question is among the training rows",
        hint="scores on it say little; --policy overlap=drop leaves it out",
        default="keep",
    ),
    "untrained": Check(
        what="has no token to learn from within the sequence length",
        hint="raise --max-seq-len, or leave such rows out with --policy untrained=drop",
        default="error",
    ),
    "long": Check(
        what="is longer than the sequence length and will be cut",
        hint="raise --max-seq-len, or leave such rows out with --policy long=drop",
        default="keep",
    ),
    "leakage": Check(
        what="shares a long run of words with the evaluation tasks",
        hint="scores on these tasks will be too good; --policy leakage=drop leaves such rows out",
        default="keep",
    ),
}
"""By the name that --policy takes, in the order in which they are made."""


def policies(given: Iterable[str]) -> dict[str, Policy]:
    """`name=policy` of each check, over the defaults.

    Raises:
        SettingsError: no such check, or it does not take the policy.
    """
    found = {name: check.default for name, check in CHECKS.items()}
    for item in given:
        name, _, policy = item.partition("=")
        if name not in CHECKS:
            raise SettingsError(
                f"there is no check {name}",
                where=f"--policy {item}",
                hint=f"the checks are: {', '.join(CHECKS)}",
            )
        if policy not in CHECKS[name].allowed:
            raise SettingsError(
                f"{name} cannot be {policy or 'nothing'}",
                where=f"--policy {item}",
                hint=f"it takes {', '.join(CHECKS[name].allowed)}",
            )
        found[name] = policy
    return found


@dataclass(kw_only=True, slots=True)
class Finding:
    """How often a check met something, and where first."""

    policy: Policy
    count: int = 0
    examples: list[str] = field(default_factory=list)


class Findings:
    """What the checks have met so far."""

    def __init__(self, policies: Mapping[str, Policy]) -> None:
        self.by_check = {name: Finding(policy=policy) for name, policy in policies.items()}

    def note(self, name: str, met: Any, where: Any) -> Any:
        """Count rows that a check has met and return which of them are to be left out.

        Args:
            met: true where a row has it.
            where: row -> its place, in words.

        Raises:
            DataError: the policy is `error`.
        """
        rows = np.flatnonzero(met)
        finding, check = self.by_check[name], CHECKS[name]
        if len(rows) and finding.policy == "error":
            raise DataError(f"a row {check.what} ({name})", where=where(rows[0]), hint=check.hint)
        finding.count += len(rows)
        for row in rows[: max(EXAMPLES - len(finding.examples), 0)]:
            finding.examples.append(where(row))
        return met if finding.policy == "drop" else np.zeros(len(met), bool)


def structure(table: pa.Table) -> dict[str, Any]:
    """Which canonical rows break a rule that a row breaks alone: check -> bool for each row."""
    if "text" in table.column_names:
        column = table["text"].combine_chunks()
        return {"empty": _blank(column), "encoding": _garbled(column)}
    if "messages" in table.column_names:
        return _conversation(table["messages"].combine_chunks(), ends=True)
    prompt, chosen, rejected = (
        table[name].combine_chunks() for name in ("prompt", "chosen", "rejected")
    )
    first = _conversation(arrays.join([prompt, chosen]), ends=True)
    second = _conversation(arrays.join([prompt, rejected]), ends=True)
    found = {name: first[name] | second[name] for name in first}
    for answer in (chosen, rejected):
        found["empty"] |= numpy(pc.equal(pc.list_value_length(answer), 0))
    found["empty"] |= numpy(pc.equal(pc.list_value_length(prompt), 0))
    found["same"] = arrays.combined(
        arrays.json_messages(chosen)[1], *bounds(chosen)
    ) == arrays.combined(arrays.json_messages(rejected)[1], *bounds(rejected))
    return found


def _blank(column: pa.StringArray) -> Any:
    """Missing, empty or white space alone."""
    blank = ~numpy(column.is_valid())
    _, offsets, data = column.buffers()
    limits = np.frombuffer(offsets, np.int32)[column.offset : column.offset + len(column) + 1]
    filled = np.flatnonzero(limits[1:] > limits[:-1])
    blank |= limits[1:] == limits[:-1]
    if len(filled):
        first = np.frombuffer(data, np.uint8)[limits[filled]]
        # white space begins with these; only such texts have to be looked into
        suspects = filled[(first <= 32) | (first >= 0x80)]
        texts = column.take(pa.array(suspects))
        blank[suspects] |= numpy(pc.fill_null(pc.equal(pc.utf8_trim_whitespace(texts), ""), True))
    return blank


def _garbled(column: pa.StringArray) -> Any:
    if "\ufffd".encode() not in arrays.content_bytes(column):
        return np.zeros(len(column), bool)
    return numpy(pc.fill_null(pc.match_substring(column, "\ufffd"), False))


def _conversation(lists: pa.ListArray, *, ends: bool) -> dict[str, Any]:
    starts, stops = bounds(lists)
    lengths = stops - starts
    flat = lists.values
    content = flat.field("content")
    empty = _blank(content) & ~numpy(flat.field("tool_calls").is_valid())
    code = numpy(pc.fill_null(pc.index_in(flat.field("role"), pa.array(ROLES)), -1))
    system, user, assistant = (
        code == ROLES.index(name) for name in ("system", "user", "assistant")
    )
    position = np.arange(len(code)) - np.repeat(starts, lengths)
    before = np.concatenate(([-2], code[:-1]))
    before[position == 0] = -2
    misplaced = (system & (position > 0)) | ((user | assistant) & (before == code))
    misplaced |= assistant & ((before == -2) | (before == ROLES.index("system")))
    last = np.where(lengths > 0, stops - 1, 0)
    ended = code[last] == ROLES.index("assistant") if len(code) else np.zeros(len(lengths), bool)
    return {
        "empty": _any(empty, starts, lengths) | (lengths == 0),
        "roles": _any(code == -1, starts, lengths) | (~ended & (lengths > 0)),
        "order": _any(misplaced, starts, lengths),
        "encoding": _any(_garbled(content), starts, lengths),
    }


def _any(flags: Any, starts: Any, lengths: Any) -> Any:
    """For each row, whether one of its messages has the flag."""
    counts = np.concatenate(([0], np.cumsum(flags)))
    return counts[starts + lengths] > counts[starts]

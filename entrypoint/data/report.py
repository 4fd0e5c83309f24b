"""What `train prepare` shows of a data set, in a terminal or as JSON."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from entrypoint.data.folder import Prepared

if TYPE_CHECKING:
    from entrypoint.data.chat import Chat, Encoded
    from entrypoint.data.tokens import Statistics

KEPT = {"keep": "kept", "drop": "left out"}
BAR_WIDTH = 40
TRAINED, MASKED, CUT = "bold green", "dim", "red strike"


def show(prepared: Prepared, statistics: "Statistics | None", console: Console) -> None:
    """Counts, findings and token lengths."""
    held_out = prepared.evaluation
    columns = ", ".join(f"{field}={column}" for field, column in prepared.shape.columns.items())
    console.print(
        f"rows    {prepared.rows:,} read, {prepared.shape.format} ({columns})", markup=False
    )
    if prepared.unread:
        console.print(f"unread  columns {', '.join(prepared.unread)}", markup=False)
    console.print(
        f"train   {prepared.train.rows:,} rows"
        + (f"\neval    {held_out.rows:,} rows" if held_out else "")
    )
    for name, item in prepared.findings.by_check.items():
        if item.count:
            many = "row" if item.count == 1 else "rows"
            console.print(
                f"{name}: {item.count:,} {many}, {KEPT[item.policy]}; {item.examples[0]}",
                markup=False,
            )
    if statistics:
        _show_tokens(statistics, console)


def _show_tokens(found: "Statistics", console: Console) -> None:
    console.print(
        f"tokens  {found.tokens:,}; median {found.median:,}, longest {found.longest:,} "
        f"(cut at {found.max_seq_len:,})\n"
        f"trained {found.trained_share:.1%} of them\n"
        f"packed  {found.packed:,} sequence{'s' if found.packed != 1 else ''} of "
        f"{found.max_seq_len:,}: "
        f"{found.packing_efficiency:.1%} filled; one row each: {found.padding_efficiency:.1%}"
    )
    most = max(rows for _, _, rows in found.histogram) or 1
    for low, high, rows in found.histogram:
        bar = "█" * round(BAR_WIDTH * rows / most)
        console.print(f"{low:>7,} to {high:>6,} {rows:>9,} {bar}")


def preview(
    rows: "Sequence[Sequence[Encoded]]", chat: "Chat", max_seq_len: int, console: Console
) -> None:
    """The tokens of rows in colour: what is trained, what is not, what is cut away."""
    legend = Text("\n")
    for words, style in (("trained", TRAINED), ("not trained", MASKED), ("cut away", CUT)):
        legend.append(words, style).append("  ")
    console.print(legend)
    for number, row in enumerate(rows, start=1):
        for encoded in row:
            console.print(f"-- row {number}: {len(encoded.ids)} tokens")
            console.print(coloured(encoded, chat, max_seq_len))


def coloured(encoded: "Encoded", chat: "Chat", max_seq_len: int) -> Text:
    """One sequence, run by run of tokens with the same fate."""
    trained = [False] * len(encoded.ids)
    for start, end in encoded.trained:
        trained[start:end] = [True] * (end - start)
    styles = [
        CUT if at >= max_seq_len else TRAINED if learnt else MASKED
        for at, learnt in enumerate(trained)
    ]
    text, start = Text(), 0
    for at in range(1, len(styles) + 1):
        if at == len(styles) or styles[at] != styles[start]:
            # runs, since a character may be several tokens
            text.append(chat.tokenizer.decode(encoded.ids[start:at]), styles[start])
            start = at
    return text


def as_dict(described: dict[str, Any], statistics: "Statistics | None") -> dict[str, Any]:
    """The same as plain values."""
    if statistics is None:
        return described
    found = statistics
    return described | {
        "tokens": {
            "max_seq_len": found.max_seq_len,
            "sequences": found.rows,
            "total": found.tokens,
            "trained": found.trained,
            "trained_share": round(found.trained_share, 4),
            "median": found.median,
            "longest": found.longest,
            "histogram": [
                {"from": low, "to": high, "rows": rows} for low, high, rows in found.histogram
            ],
            "packed_sequences": found.packed,
            "packing_efficiency": round(found.packing_efficiency, 4),
            "padding_efficiency": round(found.padding_efficiency, 4),
        }
    }

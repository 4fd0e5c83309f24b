"""docs/messages.md: every error message with its exit code and remedy, from the code. Pure but for
reading it."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from entrypoint import errors, gate

CLASSES = {
    **{name: one for name, one in vars(errors).items() if isinstance(one, type)},
    "GateError": gate.GateError,
}
OF_CHILD = "ChildError"
"""Its first argument is the exit code of the process that said what is wrong."""
SIGNALS = "Interrupted"
GAP = "…"
"""Stands where a message names a file, a number or a name."""

HEAD = """# Messages

Every error message of `train`, by exit code; … stands for what a message names. The second column
is what it says to do, where it does. [Troubleshooting](troubleshooting.md) explains the codes. The
file is written from the code by `make golden`.
"""
TITLES = {
    1: "A bug", 3: "Settings, recipe or output folder", 4: "Data", 5: "Model", 6: "Does not fit",
    7: "Training", 8: "Quality gate", 130: "Interrupted",
}  # fmt: skip
PASSED_ON = "The code of the process that failed"
INTERRUPTED = "130 and 143: interrupted"


@dataclass(frozen=True, kw_only=True, slots=True, order=True)
class Message:
    """What one place of the code can say."""

    title: str
    what: str
    hint: str


def render(package: Path) -> str:
    """The page.

    Args:
        package: the folder of `entrypoint`.
    """
    found = sorted({one for path in sorted(package.rglob("*.py")) for one in messages(path)})
    lines = [HEAD]
    for title in dict.fromkeys(one.title for one in found):
        lines += [f"## {title}", "", "| message | to do |", "|---|---|"]
        lines += [f"| {one.what} | {one.hint} |" for one in found if one.title == title]
        lines.append("")
    return "\n".join(lines)


def messages(path: Path) -> Iterator[Message]:
    """What a module can say: each call of an error's class whose words stand there."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        name = getattr(node.func, "id", getattr(node.func, "attr", ""))
        kind = CLASSES.get(name)
        if kind is None or not issubclass(kind, errors.TrainError):
            continue
        position = 1 if name in (OF_CHILD, SIGNALS) else 0
        if len(node.args) <= position:
            continue
        hints = [word.value for word in node.keywords if word.arg == "hint"]
        for what in words(node.args[position]):
            if what.strip(f"{GAP} :,") == "":
                continue  # another place has put the words together
            hint = " / ".join(filter(None, words(hints[0]))) if hints else ""
            yield Message(title=title_of(name, kind), what=cell(what), hint=cell(hint))


def title_of(name: str, kind: type) -> str:
    if name == OF_CHILD:
        return PASSED_ON
    if name == SIGNALS:
        return INTERRUPTED
    code = int(kind.exit_code)  # type: ignore[attr-defined]
    return f"{code}: {TITLES[code]}"


def words(node: ast.expr) -> list[str]:
    """The texts that an expression can become, with GAP for what is put in."""
    match node:
        case ast.Constant(value=str(text)):
            return [text]
        case ast.JoinedStr(values=parts):
            made = [""]
            for part in parts:
                more = words(part) if isinstance(part, ast.Constant) else [GAP]
                made = [before + after for before in made for after in more]
            return made
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return [before + after for before in words(left) for after in words(right)]
        case ast.IfExp(body=body, orelse=other):
            return list(dict.fromkeys((*words(body), *words(other))))
        case ast.Constant(value=None):
            return [""]
    return [GAP]


def cell(text: str) -> str:
    """Text for one cell of a table: code as it is, nothing that Markdown would take as markup."""
    one_line = " ".join(text.split())
    for letter in "|<>*[]":
        one_line = one_line.replace(letter, f"\\{letter}")
    return one_line

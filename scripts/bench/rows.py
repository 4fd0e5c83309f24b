"""Rows that every contestant trains on: words to be sorted, of widely differing length."""

import json
import random
from dataclasses import dataclass
from pathlib import Path

COUNT = 512
WORDS = """
able acid aged also area army away baby back ball bank base bath bear beat been beer bell belt
best bill bird blow blue boat body bomb bond bone book boom born boss both bowl bulk burn bush
busy call calm came camp card care case cash cast cell chat chip city club coal coat code cold
come cook cool cope copy core cost crew crop dark data date dawn days dead deal dean dear debt
deep deny desk dial diet disc disk does done door dose down draw drew drop drug dual duke dust
duty each earn ease east easy edge else even ever evil exit face fact fail fair fall farm fast
fate fear feed feel feet fell felt file fill film find fine fire firm fish five flat flow food
foot ford form fort four free from fuel full fund gain game gate gave gear gene gift girl give
glad goal goes gold golf gone good gray grew grey grow gulf hair half hall hand hang hard harm
hate have head hear heat held help here hero high hill hire hold hole holy home hope host hour
huge hung hunt hurt idea inch into iron item jack join jump jury just keen keep kept kick kill
kind king knee knew know lack lady laid lake land lane last late lead left less life lift like
line link list live load loan lock logo long look lose loss lost love luck made mail main make
male many mark mass matt
""".split()


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One exercise, its solution, and a wrong one for preference training."""

    question: str
    answer: str
    wrong: str


def generate(count: int = COUNT) -> list[Row]:
    """The same rows each time; lengths are log-normal, a third of the tokens are the answer's."""
    chance = random.Random(5)
    rows = []
    for _ in range(count):
        size = min(max(round(chance.lognormvariate(2.75, 0.65)), 3), 72)
        words = chance.choices(WORDS, k=size)
        ordered = sorted(words)
        wrong = ordered.copy()
        first, second = chance.sample(range(size), 2)
        wrong[first], wrong[second] = wrong[second], wrong[first]
        if wrong == ordered:
            wrong.reverse()
        rows.append(
            Row(
                question=f"Sort these words: {', '.join(words)}.",
                answer=", ".join(ordered),
                wrong=", ".join(wrong),
            )
        )
    return rows


def largest_first(rows: list[Row], rows_per_step: int, steps: int) -> list[Row]:
    """The same steps, the one with the most text first: what memory is asked for the first time in
    it is there when steps count. A virtual machine's host takes milliseconds for each huge page."""
    groups = [rows[start : start + rows_per_step] for start in range(0, len(rows), rows_per_step)]
    largest = max(
        range(min(steps, len(groups))),
        key=lambda step: sum(len(row.question + row.answer) for row in groups[step]),
    )
    groups.insert(0, groups.pop(largest))
    return [row for group in groups for row in group]


def write(rows: list[Row], folder: Path, *, preference: bool) -> None:
    """`train.jsonl` and `eval.jsonl` in Tunecask's canonical form."""
    folder.mkdir(parents=True)
    lines = []
    for row in rows:
        question = {"role": "user", "content": row.question}
        answer = {"role": "assistant", "content": row.answer}
        line = {"messages": [question, answer]}
        if preference:
            wrong = {"role": "assistant", "content": row.wrong}
            line = {"prompt": [question], "chosen": [answer], "rejected": [wrong]}
        lines.append(json.dumps(line) + "\n")
    (folder / "train.jsonl").write_text("".join(lines))
    (folder / "eval.jsonl").write_text("".join(lines[-16:]))

"""Write the embedded data set: booking requests in free text, answered by one line of JSON.

    python -m entrypoint.data.embedded.generate [FOLDER]

The shipped files are exactly what this generator writes; a test holds them together. Everything
is drawn from one seeded generator, so a change here is visible as a diff of the JSONL files.

A row asks for four facts (name, date, amount, place). Most requests also mention a second
person, date, amount or place that must not be picked up, and dates are written in several ways
but always answered in ISO 8601. No full name of the evaluation rows occurs in the training rows,
and no combination of date, amount and place does either.
"""

import calendar
import datetime
import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

SEED = 20260711
TRAIN_ROWS = 1_000
EVAL_ROWS = 200

SYSTEM = "Reply in one line of JSON: name, date, amount, place."

FIRST_NAMES = """Ada Alma Amir Anna Aron Bea Boris Carla Chen Clara Dario Diana Edith Elena Emil Erik
Fatima Felix Fiona Frida Gita Hana Henry Hugo Ida Igor Ines Iris Ivan Jana Jin Jonas Judith Kai Karim
Lara Leo Lena Linus Lucia Maja Marco Marta Mina Nadia Nils Nora Olga Omar Oscar Paula Pedro Petra
Rafael Ravi Rosa Ruth Samir Sara Selma Simon Stella Tara Theo Tomas Vera Victor Yuki Zara Zoe""".split()
LAST_NAMES = """Adler Almeida Bauer Berg Blanc Brandt Castro Costa Cruz Dahl Diaz Dubois Eklund Engel
Farkas Fischer Fontaine Garcia Haas Hansen Horvat Ito Jansen Kaplan Keller Kim Klein Kovacs Kruger
Lang Larsen Lopez Lund Marino Mendes Meyer Moreau Nagy Novak Okafor Olsen Park Patel Pereira Petrov
Quinn Ramos Reyes Rossi Roth Russo Sato Schmidt Silva Singh Sokolov Stein Suzuki Tanaka Torres Vargas
Vogel Walsh Weber Wolf Young Zeman Ziegler""".split()
PLACES = """Athens Austin Bergen Berlin Bogota Boston Bristol Budapest Cairo Chicago Cork Delhi Denver
Dublin Geneva Ghent Hamburg Hanoi Helsinki Jakarta Kyoto Lagos Leeds Lima Lisbon London Lyon Madrid
Malaga Manila Milan Montreal Mumbai Munich Nairobi Naples Nice Osaka Oslo Paris Porto Prague Quito Rome
Seattle Seoul Seville Sofia Sydney Tampa Tokyo Toronto Turin Vienna Warsaw Zurich""".split()
MONTHS = tuple(calendar.month_name)[1:]


class Booking(NamedTuple):
    """The four facts that a row asks for."""

    name: str
    date: datetime.date
    amount: int
    place: str

    def facts(self) -> dict[str, object]:
        return self._asdict() | {"date": self.date.isoformat()}


def spoken_date(date: datetime.date, rng: random.Random) -> str:
    """One of the ways in which people write a date, never ambiguous between day and month."""
    month = MONTHS[date.month - 1]
    return rng.choice(
        (
            f"{date.day} {month} {date.year}",
            f"{month} {date.day}, {date.year}",
            f"{date.day} {month[:3]} {date.year}",
            f"{date.isoformat()}",
        )
    )


def spoken_amount(amount: int, rng: random.Random) -> str:
    return rng.choice((f"{amount} euros", f"EUR {amount}", f"{amount} EUR", f"€{amount}"))


REQUESTS = (
    "Book {place} for {name} on {date}, {amount}.",
    "{name} goes to {place} on {date} for {amount}.",
    "A room in {place} for {name}, {date}, at most {amount}.",
    "On {date} {name} needs a desk in {place}, {amount}.",
    "Send {name} to {place} for {amount} on {date}.",
    "{name}: {place}, {date}, {amount}.",
    "We agreed on {amount} for {name} in {place} on {date}.",
    "A table in {place} on {date} for {name}; deposit {amount}.",
    "{amount} paid by {name} for the course in {place} on {date}.",
    "The talk of {name} in {place} on {date} costs {amount}.",
)
DISTRACTORS = (
    ("name", "{name} takes the call."),
    ("name", "Please tell {name} too."),
    ("amount", "It was {amount} last year."),
    ("amount", "Forget the old offer of {amount}."),
    ("place", "Not {place}, as I said."),
    ("place", "I am writing from {place}."),
    ("date", "Please answer by {date}."),
    ("date", "Ordered on {date}."),
)


def draw_booking(rng: random.Random, names: tuple[str, ...]) -> Booking:
    year = rng.choice((2026, 2027, 2028))
    month = rng.randint(1, 12)
    day = rng.randint(1, calendar.monthrange(year, month)[1])
    amount = rng.choice(
        (rng.randint(20, 99), rng.randrange(100, 1_000, 5), rng.randrange(1_000, 5_000, 50))
    )
    return Booking(rng.choice(names), datetime.date(year, month, day), amount, rng.choice(PLACES))


def in_words(sentence: str, booking: Booking, rng: random.Random) -> str:
    return sentence.format(
        name=booking.name,
        place=booking.place,
        date=spoken_date(booking.date, rng),
        amount=spoken_amount(booking.amount, rng),
    )


def write_request(booking: Booking, other: Booking, rng: random.Random) -> tuple[str, str | None]:
    """The request in words, and which of `other`'s facts it mentions as a distractor, if any."""
    request = in_words(rng.choice(REQUESTS), booking, rng)
    if rng.random() < 0.25:
        return request, None
    key, sentence = rng.choice(DISTRACTORS)
    distractor = in_words(sentence, other, rng)
    order = (request, distractor) if rng.random() < 0.5 else (distractor, request)
    return " ".join(order), key


def one_line(facts: dict[str, object]) -> str:
    return json.dumps(facts, separators=(",", ":"))


def wrong_answer(
    booking: Booking, other: Booking, distractor: str | None, rng: random.Random
) -> str:
    """A plausible mistake: the distractor taken for the fact, prose around it, a missing key."""
    facts = booking.facts()
    match rng.choice((distractor or "prose", distractor or "missing", "prose", "missing")):
        case "prose":
            return f"Sure! Here is the JSON: {one_line(facts)}"
        case "missing":
            dropped = rng.choice(sorted(facts))
            return one_line({key: value for key, value in facts.items() if key != dropped})
        case key:
            return one_line(facts | {key: other.facts()[key]})


class Example(NamedTuple):
    request: str
    answer: str
    mistake: str

    def sft_row(self) -> dict[str, object]:
        return {"messages": [*self._prompt(), {"role": "assistant", "content": self.answer}]}

    def preference_row(self) -> dict[str, object]:
        return {
            "prompt": self._prompt(),
            "chosen": [{"role": "assistant", "content": self.answer}],
            "rejected": [{"role": "assistant", "content": self.mistake}],
        }

    def _prompt(self) -> list[dict[str, str]]:
        return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": self.request}]


def draw_examples(
    rng: random.Random, names: tuple[str, ...], taken: set[tuple[object, ...]]
) -> Iterator[Example]:
    """Endless examples over `names`, none with a (date, amount, place) that is in `taken`."""
    while True:
        booking, other = draw_booking(rng, names), draw_booking(rng, names)
        combination = tuple(booking)[1:]
        if combination in taken or any(
            left == right for left, right in zip(booking, other, strict=True)
        ):
            continue
        taken.add(combination)
        request, distractor = write_request(booking, other, rng)
        yield Example(
            request, one_line(booking.facts()), wrong_answer(booking, other, distractor, rng)
        )


def generate(seed: int = SEED) -> dict[str, list[dict[str, object]]]:
    """Every shipped file's rows by file name; the same seed gives the same rows."""
    rng = random.Random(seed)
    names = [f"{first} {last}" for first in FIRST_NAMES for last in LAST_NAMES]
    rng.shuffle(names)
    held_out = len(names) // 5
    taken: set[tuple[object, ...]] = set()
    evaluation = draw_examples(rng, tuple(names[:held_out]), taken)
    training = draw_examples(rng, tuple(names[held_out:]), taken)
    splits = {
        "eval": [next(evaluation) for _ in range(EVAL_ROWS)],
        "train": [next(training) for _ in range(TRAIN_ROWS)],
    }
    return {
        f"{kind}/{split}.jsonl": [getattr(example, row)() for example in examples]
        for kind, row in (("sft", "sft_row"), ("preference", "preference_row"))
        for split, examples in splits.items()
    }


def main(folder: Path) -> None:
    for name, rows in generate().items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(
            "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8"
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)

"""Held-out rows of a data set as a task of the lm-eval harness."""

import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.task import Task
from lm_eval.config.task import TaskConfig
from lm_eval.filters import build_filter_ensemble

from entrypoint.data.chat import Chat, Span
from entrypoint.data.rows import to_messages, to_tools
from entrypoint.errors import DataError
from entrypoint.evaluation import metrics
from entrypoint.evaluation.request import ANSWERS, METRICS, Rows

Message = dict[str, Any]
MARGIN = 8
"""Tokens that an answer may be longer than the longest expected one, so that one that does not end
is not taken for right."""
LONGEST_ANSWER = 512
"""Tokens, unless --max-new-tokens says otherwise."""


class Lines(Sequence[dict[str, Any]]):
    """Rows of a JSON Lines file, read when they are asked for."""

    def __init__(self, path: Path) -> None:
        self._lines = [line for line in path.read_bytes().split(b"\n") if line.strip()]

    def __len__(self) -> int:
        return len(self._lines)

    def __getitem__(self, index: Any) -> Any:
        return json.loads(self._lines[index])


class RowTask(Task):  # type: ignore[misc]
    """Loss, perplexity and answers of SFT rows; preference accuracy; loss of texts.

    Losses are those of the tokens that training learns from, by the same masks. Answers are greedy,
    to the conversation up to its last turn.

    Args:
        chat: writes conversations; without a chat template texts follow each other plainly.
        max_new_tokens: of an answer; None finds the longest expected one; 0 asks for none.
        stop: texts that end an answer.
    """

    VERSION = 1
    OUTPUT_TYPE = "generate_until"

    def __init__(
        self, rows: Rows, chat: Chat, *, max_new_tokens: int | None, stop: tuple[str, ...]
    ) -> None:
        self.rows, self.chat = rows, chat
        self.stop, self.max_new_tokens = stop, max_new_tokens
        self.documents = Lines(rows.path)
        self._config = TaskConfig(
            task=rows.name, output_type="generate_until", num_fewshot=None, repeats=1
        )
        self._instances: list[Instance] | None = None
        self._filters = [build_filter_ensemble("none", [["take_first", None]])]
        self.fewshot_rnd = random.Random()
        self.generates = rows.kind == "sft" and max_new_tokens != 0
        self.metrics = {
            name: metric
            for name, metric in METRICS[rows.kind].items()
            if self.generates or name not in ANSWERS
        }

    # -- what lm-eval asks of a task

    @property
    def task_name(self) -> str:
        return self.rows.name

    @property
    def eval_docs(self) -> Sequence[dict[str, Any]]:
        return self.documents

    def has_training_docs(self) -> bool:
        return False

    def has_validation_docs(self) -> bool:
        return False

    def has_test_docs(self) -> bool:
        return True

    def test_docs(self) -> Sequence[dict[str, Any]]:
        return self.documents

    def dump_config(self) -> dict[str, Any]:
        config: dict[str, Any] = self._config.to_dict()
        return config | {
            "dataset_path": str(self.rows.path),
            "metric_list": [
                {"metric": name, "aggregation": metric.aggregation,
                 "higher_is_better": metric.higher_is_better}
                for name, metric in self.metrics.items()
            ],
        }  # fmt: skip

    def doc_to_text(self, doc: dict[str, Any]) -> str:
        return self._text(self._prompt(doc), doc, prompts=True)

    def doc_to_target(self, doc: dict[str, Any]) -> str:
        if self.rows.kind == "text":
            return str(doc["text"])
        return content(doc["chosen"] if self.rows.kind == "preference" else doc["messages"])

    def construct_requests(self, doc: dict[str, Any], ctx: Any, **_: Any) -> list[Instance]:
        doc_id: int = ctx
        asked: list[tuple[str, tuple[Any, ...]]] = []
        if self.rows.kind == "text":
            asked = [("answer_loss", (doc["text"], None))]
        elif self.rows.kind == "preference":
            for side in ("chosen", "rejected"):
                messages = _messages([*doc["prompt"], *doc[side]])
                asked.append(("answer_loss", self._masked(doc, messages, len(doc[side]))))
        else:
            messages = to_messages(doc)
            asked = [("answer_loss", self._masked(doc, messages, len(messages)))]
            if self.generates and self.doc_to_target(doc).strip():
                settings = {
                    "until": list(self.stop),
                    "do_sample": False,
                    "max_gen_toks": self.longest_answer(),
                }
                asked.append(("generate_until", (self.doc_to_text(doc), settings)))
        return [
            Instance(
                request_type=kind, doc=doc, arguments=arguments, idx=index,
                metadata=(self.rows.name, doc_id, 1),
            )
            for index, (kind, arguments) in enumerate(asked)
        ]  # fmt: skip

    def build_all_requests(
        self,
        *,
        limit: int | None = None,
        samples: list[int] | None = None,
        rank: int = 0,
        world_size: int = 1,
        **_: Any,
    ) -> None:
        if self._config.num_fewshot and self.rows.examples is None:
            raise DataError(
                "there are no other rows to draw examples from",
                where="--fewshot or TRAIN_FEWSHOT",
                hint="give --data a folder with train.jsonl and eval.jsonl",
            )
        self._limit = limit
        documents: Iterator[tuple[int, Any]] = self.doc_iterator(
            rank=rank, limit=limit, samples=samples, world_size=world_size
        )
        self._instances = [
            request for doc_id, doc in documents for request in self.construct_requests(doc, doc_id)
        ]
        if not self._instances:
            raise DataError("there are fewer rows than processes", where=self.rows.path)

    def process_results(self, doc: dict[str, Any], results: list[Any]) -> dict[str, Any]:
        chosen = (results[0].total, results[0].tokens)
        scores: dict[str, Any] = {"loss": chosen, "perplexity": chosen}
        if self.rows.kind == "preference":
            margin = results[1].total - results[0].total
            scores |= {"preference_accuracy": float(margin > 0), "preference_margin": margin}
        elif len(results) > 1:
            scores = metrics.answer_scores(self.doc_to_target(doc), results[1]) | scores
        return scores

    def aggregation(self) -> dict[str, Callable[[Sequence[Any]], float]]:
        def by(name: str) -> Callable[[Sequence[Any]], float]:
            return lambda values: metrics.aggregate(name, values)

        return {name: by(metric.aggregation) for name, metric in self.metrics.items()}

    def higher_is_better(self) -> dict[str, bool]:
        return {name: metric.higher_is_better for name, metric in self.metrics.items()}

    # -- texts

    def longest_answer(self) -> int:
        """Most tokens of an answer."""
        if self.max_new_tokens is None:
            documents = range(min(self._limit or len(self.documents), len(self.documents)))
            answers = [self.doc_to_target(self.documents[row]) for row in documents]
            encoded = self.chat.encode_texts(answers, [()] * len(answers))
            longest = max(len(one.ids) for one in encoded)
            self.max_new_tokens = min(longest + MARGIN, LONGEST_ANSWER)
        return self.max_new_tokens

    def _prompt(self, doc: dict[str, Any]) -> list[Message]:
        """What the model answers: all before the last answer."""
        if self.rows.kind == "preference":
            return _messages(doc["prompt"])
        return to_messages(doc)[:-1]

    def _text(self, messages: list[Message], doc: dict[str, Any], *, prompts: bool) -> str:
        messages = self._with_examples(messages, doc)
        if self.chat.tokenizer.chat_template:
            return self.chat.render(messages, to_tools(doc), add_generation_prompt=prompts)
        return "".join(f"{content([message])}\n" for message in messages)

    def _masked(
        self, doc: dict[str, Any], messages: list[Message], own: int
    ) -> tuple[str, list[Span]]:
        """The conversation, and the ranges of characters of its last `own` messages' answers."""
        turns = sum(message["role"] == "assistant" for message in messages[-own:])
        examples = self._with_examples(messages, doc)
        if self.chat.tokenizer.chat_template:
            texts, spans = self.chat.render_all([(examples, to_tools(doc))])
            return texts[0], list(spans[0])[-turns:]
        text, spans_ = "", []
        for message in examples:
            start = len(text)
            text += f"{content([message])}\n"
            if message["role"] == "assistant":
                spans_.append((start, len(text)))
        return text, spans_[-turns:]

    def _with_examples(self, messages: list[Message], doc: dict[str, Any]) -> list[Message]:
        """The conversation with examples before its first question."""
        if not self._config.num_fewshot:
            return messages
        assert self.rows.examples is not None
        if not hasattr(self, "_examples"):
            self._examples = Lines(self.rows.examples)
        # the same examples for a row whatever the others are
        draw = random.Random(json.dumps(doc, sort_keys=True))
        count = min(self._config.num_fewshot, len(self._examples))
        drawn = [self._examples[row] for row in draw.sample(range(len(self._examples)), count)]
        turns = [
            message
            for example in drawn
            for message in (
                _messages([*example["prompt"], *example["chosen"]])
                if self.rows.kind == "preference"
                else to_messages(example)
            )
            if message["role"] != "system"
        ]
        first = next((at for at, message in enumerate(messages) if message["role"] != "system"), 0)
        return [*messages[:first], *turns, *messages[first:]]


def _messages(found: Sequence[Any]) -> list[Message]:
    return to_messages({"messages": found})


def content(messages: Sequence[Mapping[str, Any]]) -> str:
    """The text of the last message; parts of it one after the other."""
    found = messages[-1].get("content") or ""
    if isinstance(found, str):
        return found
    return "".join(part.get("text", "") for part in found)

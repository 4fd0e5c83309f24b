"""A model as the lm-eval harness asks it, with batches of our own making."""

import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from accelerate.utils.memory import should_reduce_batch_size
from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils import (
    handle_stop_sequences,
    normalize_gen_kwargs,
    postprocess_generated_text,
)
from tqdm import tqdm

from entrypoint.data.chat import Chat
from entrypoint.errors import DoesNotFitError
from entrypoint.evaluation.batches import Batch, Limits, Scored, cheapest, cut
from entrypoint.evaluation.generation import arguments_of, can_share, greedy
from entrypoint.evaluation.likelihood import Score, likelihoods
from entrypoint.evaluation.memory import limits_of
from entrypoint.evaluation.ranks import Ranks

ROLLING_WINDOWS = 64
"""Windows of a long text that lm-eval hands over at once."""
HARMLESS = {
    "bos_token_id", "eos_token_id", "pad_token_id", "transformers_version", "_from_model_config",
    "do_sample", "temperature", "top_p", "top_k", "min_p", "max_length", "max_new_tokens",
    "cache_implementation", "use_cache", "output_attentions",
    "output_hidden_states", "output_scores", "output_logits", "return_dict_in_generate",
}  # fmt: skip
"""Settings of generation_config.json that change no greedy answer."""


@dataclass(kw_only=True, slots=True)
class Work:
    """What was computed, in tokens that exist and seconds."""

    scored_tokens: int = 0
    scoring_seconds: float = 0.0
    generated_tokens: int = 0
    generation_seconds: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class AnswerLoss:
    """Of one text: the loss of its trained tokens."""

    total: float
    """Sum of the negative log-likelihoods."""
    tokens: int


class Model(HFLM):  # type: ignore[misc]
    """lm-eval's own model class, in which we choose the batches.

    Requests are batched by length and memory, a beginning that all sequences of a batch share is
    computed once, logits are made only where one is asked for, and answers that are over leave
    their batch. What lm-eval asks for and gets is unchanged.

    Args:
        model: a causal language model of transformers.
        batch_size: rows that go through together; None finds out.
        chat: writes conversations and marks the trained tokens; for rows.
        max_seq_len: tokens after which rows are cut.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        batch_size: int | None,
        ranks: Ranks,
        chat: Chat | None = None,
        max_seq_len: int | None = None,
    ) -> None:
        super().__init__(
            pretrained=model, tokenizer=tokenizer, batch_size=batch_size or ROLLING_WINDOWS
        )
        self._rank, self._world_size = ranks.rank, ranks.size
        self.ranks = ranks
        self.chat = chat
        self.max_seq_len = max_seq_len
        self.work = Work()
        self.batch_sizes: dict[int, int] = {}
        self._wanted_batch = batch_size
        self._keeps_logits = "logits_to_keep" in arguments_of(model)

    def limits(self, new_tokens: int = 0) -> Limits:
        """What a batch may take on this machine now."""
        return limits_of(
            self.model, rows=self._wanted_batch, processes=self.ranks.size, new_tokens=new_tokens
        )

    # -- what lm-eval asks of the other processes

    def all_gather(self, tensor: torch.Tensor) -> torch.Tensor:
        """lm-eval counts requests to even out passes, which ours need not."""
        return tensor.expand(self.ranks.size) if self.ranks.size > 1 else tensor

    def gather_object(self, obj: Any, dst: int = 0) -> list[Any] | None:
        return self.ranks.gather(obj)

    def barrier(self) -> None:
        self.ranks.wait()

    def get_model_info(self) -> dict[str, Any]:
        """lm-eval's own asks the hub about a local folder."""
        # not a sum of numbers: bitsandbytes' hold two weights each
        parameters = self.model.num_parameters()
        return {"model_num_parameters": parameters, "model_dtype": str(self.model.dtype)}

    # -- log-likelihoods

    def _loglikelihood_tokens(
        self,
        requests: Sequence[tuple[Any, list[int], list[int]]],
        disable_tqdm: bool = False,
        override_bs: int | None = None,
    ) -> list[tuple[float, bool]]:
        sequences = []
        for _, context, continuation in requests:
            # as lm-eval cuts: what is too long loses its beginning; the last token is no input
            ids = (context + continuation)[-(self.max_length + 1) :]
            start = max(len(ids) - len(continuation), 1)
            sequences.append(Scored(ids=tuple(ids), targets=tuple(range(start, len(ids)))))
        return self._scores(sequences, disable_tqdm)

    def answer_loss(self, requests: Sequence[Any]) -> list[AnswerLoss]:
        """Loss of the trained tokens of texts: a request's arguments are the text and the ranges of
        characters that carry loss, or None for plain text. Cut and masked as training does."""
        assert self.chat is not None
        sequences = []
        for text, spans in (request.args for request in requests):
            (encoded,) = (
                self.chat.encode_documents([text])
                if spans is None
                else self.chat.encode_texts([text], [spans])
            )
            ids = tuple(encoded.ids[: self.max_seq_len])
            targets = tuple(
                at for start, end in encoded.trained for at in range(max(start, 1), end)
                if at < len(ids)
            )  # fmt: skip
            sequences.append(Scored(ids=ids, targets=targets))
        asked = [row for row, sequence in enumerate(sequences) if sequence.targets]
        scores = self._scores([sequences[row] for row in asked], disable=False)
        found = {row: -score for row, (score, _) in zip(asked, scores, strict=True)}
        return [
            AnswerLoss(total=found.get(row, 0.0), tokens=len(sequence.targets))
            for row, sequence in enumerate(sequences)
        ]

    def _scores(self, sequences: Sequence[Scored], disable: bool) -> list[tuple[float, bool]]:
        """Log-likelihood of each sequence's targets, and whether all of them are the likeliest."""
        if not sequences:
            return []
        start = time.perf_counter()
        # choices that differ in their last token only are one input
        same: dict[tuple[tuple[int, ...], tuple[int, ...]], list[int]] = defaultdict(list)
        for row, sequence in enumerate(sequences):
            same[sequence.ids[:-1], sequence.targets].append(row)
        asked = list(same.values())
        unique = [sequences[rows[0]] for rows in asked]
        results: dict[int, tuple[float, bool]] = {}
        with self._bar("log-likelihoods", len(sequences), disable) as bar:
            plan = cheapest(unique, self.limits(), share=self._shares(unique))
            for batch in plan:
                for row, score in self._halving(self._pass, batch, unique):
                    for of in asked[row]:
                        results[of] = score(sequences[of])
                    bar.update(len(asked[row]))
        self.work.scored_tokens += sum(len(sequence.ids) for sequence in sequences)
        self.work.scoring_seconds += time.perf_counter() - start
        return [results[row] for row in range(len(sequences))]

    def _pass(self, batch: Batch, sequences: Sequence[Scored]) -> list[tuple[int, Score]]:
        return likelihoods(self.model, batch, sequences, keeps_logits=self._keeps_logits)

    # -- answers

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """Answers to prompts. What is not greedy is left to transformers."""
        start = time.perf_counter()
        groups: dict[str, list[int]] = defaultdict(list)
        for row, request in enumerate(requests):
            groups[repr(sorted(request.args[1].items()))].append(row)
        answers: dict[int, str] = {}
        for rows in groups.values():
            asked = [requests[row] for row in rows]
            settings = normalize_gen_kwargs(asked[0].args[1], self.max_gen_toks)
            until = handle_stop_sequences(
                settings.pop("until", None),
                eos=self.tok_decode(self.eot_token_id, skip_special_tokens=False),
            )
            new_tokens = settings.pop("max_gen_toks")
            plain = not settings.pop("do_sample", False) and not settings.pop("temperature", 0.0)
            if plain and not settings and self._is_greedy():
                found = self._answers([one.args[0] for one in asked], new_tokens, until)
            else:
                found = super().generate_until(asked, disable_tqdm)
                self.work.generated_tokens += sum(len(self.tok_encode(one)) for one in found)
            answers.update(zip(rows, found, strict=True))
        self.work.generation_seconds += time.perf_counter() - start
        return [answers[row] for row in range(len(requests))]

    def _is_greedy(self) -> bool:
        """Whether transformers would do nothing but take the likeliest token."""
        said = set(self.model.generation_config.to_diff_dict())
        return can_share(self.model, 0) and said <= HARMLESS

    def _answers(self, prompts: Sequence[str], new_tokens: int, until: list[str]) -> list[str]:
        room = self.max_length - new_tokens
        if room <= 0:
            raise DoesNotFitError(
                f"answers of {new_tokens} tokens do not fit into the context of {self.max_length}",
                where="--max-new-tokens, or the task's max_gen_toks",
            )
        # the last token of a prompt is the target of nothing: targets say where a prefix must end
        sequences = []
        for prompt in prompts:
            ids = tuple(self.tok_encode(prompt, left_truncate_len=room))
            sequences.append(Scored(ids=ids, targets=(len(ids),)))
        ends = self.model.generation_config.eos_token_id
        ends = {self.eot_token_id, *(ends if isinstance(ends, list) else [ends])} - {None}
        texts = [text for text in until if text not in self.tokenizer.all_special_tokens]
        tail = max((len(self.tok_encode(text)) for text in texts), default=0) + 2

        def is_over(tokens: list[int]) -> bool:
            return bool(texts) and any(
                text in self.tok_decode(tokens[-tail:], skip_special_tokens=False) for text in texts
            )

        def work(batch: Batch, sequences: Sequence[Scored]) -> list[tuple[int, list[int]]]:
            found = greedy(
                self.model,
                [sequences[row].ids for row in batch.rows],
                shared=batch.shared,
                new_tokens=new_tokens,
                ends=frozenset(ends),
                is_over=is_over,
            )
            return list(zip(batch.rows, found, strict=True))

        answers: dict[int, str] = {}
        order = sorted(range(len(sequences)), key=lambda row: -len(sequences[row].ids))
        limits = self.limits(new_tokens)
        plan = cut(order, sequences, limits, share=self._shares(sequences, new_tokens))
        with self._bar("answers", len(prompts), False) as bar:
            for batch in plan:
                for row, tokens in self._halving(work, batch, sequences):
                    self.work.generated_tokens += len(tokens)
                    text = self.tok_decode(tokens)
                    answers[row] = postprocess_generated_text(text, until, None)
                    bar.update()
        return [answers[row] for row in range(len(prompts))]

    # -- both

    def _shares(self, sequences: Sequence[Scored], new_tokens: int = 0) -> bool:
        longest = max(len(sequence.ids) for sequence in sequences) + new_tokens
        return can_share(self.model, longest)

    def _halving(self, work: Any, batch: Batch, sequences: Sequence[Scored]) -> list[Any]:
        """Do the work of a batch; when memory runs out, in halves."""
        try:
            found = work(batch, sequences)
            self.batch_sizes[len(self.batch_sizes)] = len(batch.rows)
            return list(found)
        except RuntimeError as error:
            if not should_reduce_batch_size(error):
                raise
            if len(batch.rows) == 1:
                raise DoesNotFitError(
                    "memory does not suffice for one row",
                    where=f"a row of {batch.width} tokens",
                    hint="use a shorter --max-seq-len, or a machine with more memory",
                ) from error
        limits = Limits(rows=-(-len(batch.rows) // 2))
        halves = cut(batch.rows, sequences, limits, share=batch.shared > 0)
        return [one for half in halves for one in self._halving(work, half, sequences)]

    def _bar(self, what: str, total: int, disable: bool) -> Any:
        return tqdm(total=total, desc=what, disable=disable or self.ranks.rank > 0)

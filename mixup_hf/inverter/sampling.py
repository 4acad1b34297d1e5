"""Sampling sentences in this process: constant-length prompts in, token ids and sentences out."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from mixup_hf import errors, runtime
from mixup_hf.inverter.ending import EndSearch, EndTokens
from mixup_hf.inverter.engines.base import DecodeSettings, Engine
from mixup_hf.runtime import counter_rng

_In = TypeVar("_In")
_Out = TypeVar("_Out")


class LocalWriter:
    """Decodes in this process.

    Args:
        engine: Runs the LLM.
        tokenizer: The LLM's.
        end_ids: Token ids that end a sentence.

    Attributes:
        matches_length: Wanted lengths can be given to `write`.
    """

    matches_length = True

    def __init__(
        self, engine: Engine, tokenizer: PreTrainedTokenizerBase, end_ids: Sequence[int]
    ) -> None:
        self._engine, self._tokenizer, self._end_ids = engine, tokenizer, end_ids

    @property
    def name(self) -> str:
        """The engine's name."""
        return self._engine.name

    @cached_property
    def _end_tokens(self) -> EndTokens:
        return EndTokens.of(self._tokenizer, self._end_ids)

    def write(
        self,
        prompts: Tensor,
        settings: DecodeSettings,
        streams: Sequence[tuple[int, ...]],
        lengths: Sequence[int] | None = None,
        favour: Tensor | None = None,
    ) -> list[str]:
        """Decode one sentence per prompt (B, P, H); row r draws from the stream `streams[r]`.

        `favour` is as for `decode`.
        """
        uniforms = None
        if settings.temperature > 0:
            length = settings.max_new_tokens
            uniforms = np.stack([counter_rng(*stream).random(length) for stream in streams])
        cut = np.array_split(np.arange(len(prompts)), self._engine.parts(len(prompts)))
        parts = [part.tolist() for part in cut]
        barred: dict[str, Tensor] = {}
        if not settings.questions:
            known = self._end_tokens.to(prompts.device)
            barred = {"never": known.asking, "never_first": known.questions}

        def run(rows: list[int]) -> list[list[int]]:
            search = None
            if lengths is not None:
                wanted = torch.tensor([lengths[row] for row in rows], device=prompts.device)
                search = EndSearch(wanted, self._end_tokens.to(prompts.device))
            return decode(
                self._engine,
                prompts[rows],
                end_ids=self._end_ids,
                settings=settings,
                uniforms=None if uniforms is None else uniforms[rows],
                search=search,
                **barred,
                favour=None if favour is None else favour[rows],
            )

        found = [row for part in _side_by_side(run, parts) for row in part]
        texts: list[str] = self._tokenizer.batch_decode(found, skip_special_tokens=True)
        return texts


def _side_by_side(run: Callable[[_In], _Out], parts: Sequence[_In]) -> list[_Out]:
    """Call `run` on each part, in parallel on separate cores where there are several.

    Two batches on one core each synchronize once; one batch on two cores synchronizes at every
    matrix product, thousands of times. The parts do not depend on the number of cores.
    """
    threads = torch.get_num_threads()
    workers = min(threads, len(parts))
    if workers < 2:
        return [run(part) for part in parts]
    found: dict[int, _Out] = {}
    failures: list[BaseException] = []

    def work(first: int) -> None:
        torch.set_num_threads(threads // workers)
        try:
            for at in range(first, len(parts), workers):
                found[at] = run(parts[at])
        except BaseException as error:  # raised again by the caller
            failures.append(error)

    # Daemons: a Trainer that dies must not be kept alive by its decoding threads.
    crew = [threading.Thread(target=work, args=(each,), daemon=True) for each in range(workers)]
    for thread in crew:
        thread.start()
    for thread in crew:
        thread.join()
    # The caller's setting has not changed, but threads started later inherit the last one set.
    torch.set_num_threads(threads)
    if failures:
        raise failures[0]
    return [found[at] for at in range(len(parts))]


@torch.inference_mode()
def decode(
    engine: Engine,
    prompts: Tensor,
    *,
    end_ids: Sequence[int],
    settings: DecodeSettings,
    uniforms: np.ndarray | None = None,
    search: EndSearch | None = None,
    never: Sequence[int] | Tensor = (),
    never_first: Sequence[int] | Tensor = (),
    favour: Tensor | None = None,
) -> list[list[int]]:
    """Decode one sentence per prompt.

    All prompts have the same length, so there is neither padding nor a mask. Randomness is passed
    in: row r, step t uses `uniforms[r, t]` whatever else is in the batch.

    Args:
        engine: Runs the LLM.
        prompts: Prompt embeddings (B, P, H), all P positions real.
        end_ids: Token ids that end a sentence; never chosen first, so every sentence has a token.
        settings: How to sample.
        uniforms: Numbers in [0, 1), (B, max_new_tokens); needed unless `temperature` is 0.
        search: Finds where sentences of a wanted length end best.
        never: Token ids that are not chosen.
        never_first: Token ids that are not chosen first.
        favour: Nats (B, V) added to the logits; those of a token only until it has been chosen.

    Returns:
        B lists of token ids, without the end token.
    """
    if settings.temperature > 0 and uniforms is None:
        raise errors.InvalidInput("`uniforms` must be given when `temperature` > 0, but got None.")
    ends = torch.tensor(list(end_ids), device=prompts.device)
    draws = None if uniforms is None else torch.as_tensor(uniforms, device=prompts.device)
    output = torch.full((len(prompts), settings.max_new_tokens), -1, device=prompts.device)
    batch = engine.decoding(len(prompts), prompts.shape[1] + settings.max_new_tokens)
    rows = torch.arange(len(prompts), device=prompts.device)  # which prompts the batch still holds
    alive = torch.ones_like(rows, dtype=torch.bool)
    tokens = None
    logits = batch.start(prompts)
    if favour is not None:
        favour = favour.to(logits, copy=True)  # loses what has been chosen
        logits = logits + favour
    logits[:, ends] = -torch.inf
    logits[:, torch.as_tensor(never_first, dtype=torch.long)] = -torch.inf
    unwanted = torch.as_tensor(never, dtype=torch.long)
    for step in range(settings.max_new_tokens):
        logits[:, unwanted] = -torch.inf
        if search is not None:
            search.look(logits, rows, step, tokens, alive)
        tokens = choose(logits, settings, None if draws is None else draws[rows, step])
        alive &= ~torch.isin(tokens, ends)
        if search is not None:
            alive &= ~search.over(rows, step)
        output[rows[alive], step] = tokens[alive]
        runtime.step_done()
        if step + 1 == settings.max_new_tokens or not alive.any():
            break
        size = engine.size_for(int(alive.sum()), len(alive))
        if size < len(alive):
            keep = _staying(alive, size)
            batch.keep(keep)
            rows, tokens, alive = rows[keep], tokens[keep], alive[keep]
            favour = None if favour is None else favour[keep]
        logits = batch.step(tokens)
        if favour is not None:
            favour.scatter_(1, tokens[:, None], favour.gather(1, tokens[:, None]).clamp_max(0))
            logits = logits + favour
    sentences = [[token for token in row if token >= 0] for row in output.tolist()]
    if search is None:
        return sentences
    return [search.cut(row, sentence) for row, sentence in enumerate(sentences)]


def _staying(alive: Tensor, size: int) -> Tensor:
    """Rows (size,) of a batch to keep: all unfinished, the last ones moved into finished slots."""
    rows = torch.arange(size, device=alive.device)
    moving = alive[size:].nonzero()[:, 0] + size
    rows[(~alive[:size]).nonzero()[: len(moving), 0]] = moving
    return rows


def choose(logits: Tensor, settings: DecodeSettings, draws: Tensor | None) -> Tensor:
    """Pick one token per row of `logits` (B, V): greedily, or by inverse CDF at `draws` (B,).

    `topk` comes first: sorting the whole vocabulary, or converting it to float32, costs more than
    the model itself on a CPU.
    """
    if settings.temperature == 0 or draws is None:
        return logits.max(-1).indices
    values, ids = logits.topk(min(settings.top_k, logits.shape[-1]), dim=-1)
    probabilities = (values.float() / settings.temperature).softmax(-1)
    before = probabilities.cumsum(-1) - probabilities
    probabilities = probabilities * (before < settings.top_p)
    cumulative = probabilities.cumsum(-1)
    target = draws.to(cumulative.dtype)[:, None] * cumulative[:, -1:]
    # Never past the last kept token: rounding can put `target` on the very end of the sum.
    last = (probabilities > 0).sum(-1, keepdim=True) - 1
    index = torch.minimum((cumulative <= target).sum(-1, keepdim=True), last)
    return ids.gather(1, index)[:, 0]

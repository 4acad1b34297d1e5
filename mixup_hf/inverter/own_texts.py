"""An aligner trained on over a training set's own texts, so that it writes as they are written.

Stage 2 of arXiv 2601.21543 with the encoder as it is: `L_GEN` on the task's texts, projector and
LoRA. Sentences get the length and the style of the texts. What was trained is kept in the cache,
by the texts and all that it depends on: other runs on the same texts load it.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from torch.optim import AdamW

from mixup_hf import errors, runtime
from mixup_hf.data.sources import CACHE_VARIABLE, default_cache_dir, resolve
from mixup_hf.inverter.aligner import Aligner
from mixup_hf.inverter.batches import TokenBudgetBatches
from mixup_hf.inverter.checkpoint import load_aligner, save_checkpoint
from mixup_hf.inverter.loading import hub_revision, load_parts
from mixup_hf.inverter.lora import load_lora
from mixup_hf.inverter.model import Inverter
from mixup_hf.inverter.objective import AlignmentModel
from mixup_hf.inverter.prompt import SoftPrompt
from mixup_hf.inverter.quantization import bf16_is_fast, load_llm
from mixup_hf.inverter.refinement import (
    descend,
    generation_loss,
    parameter_groups,
    rate_factor,
    set_trainable,
)

FEWEST = 300  # texts; fewer are learned by heart before their style is (RESULTS.md, "Own texts")
_WORDS = (2, 20)
_MOST_CHARACTERS = 200  # some "words" are long: addresses, scripts without spaces
_LEAST_SHARE = 0.5  # of the texts: sentences are to be like most of them
_HELD_OUT = 48  # texts that show whether it has paid
_LEAST_GAIN = 0.05  # nats per token on the held-out texts
_PASSES = 1.6  # with many more, texts are learned by heart
_MOST_TEXTS = 1000  # more than the steps can read
_MOST_STEPS = 24
_BATCH_TOKENS = 600
_PROJECTOR_RATE, _LORA_RATE = 1.2e-3, 8e-4
_WARM_UP_STEPS = 5
_DECAY_SHARE = 0.8  # of the steps, at the end
_VERSION = 1  # to be raised when the above, or how it is used, changes
_SEED = 15  # not the run's: runs that differ in their seed alone share what was trained
_RESULT = "own_texts.json"


def usable_texts(texts: Sequence[str]) -> list[str]:
    """Those of the texts that an aligner can be trained on, once each; empty if it would not pay.

    Args:
        texts: The training texts (N).
    """
    least, most = _WORDS
    short = (text for text in dict.fromkeys(texts) if len(text) <= _MOST_CHARACTERS)
    fitting = [text for text in short if least <= len(text.split()) <= most]
    enough = len(fitting) >= max(FEWEST, _LEAST_SHARE * len(set(texts)))
    return fitting if enough else []


def why_not(inverter: Inverter) -> str | None:
    """Why this inverter cannot be trained on; None if it can."""
    if inverter.folder is None:
        return "it was not loaded from an aligner's folder"
    if (inverter.folder / _RESULT).is_file():
        return "it has been trained on over texts already"
    if not getattr(inverter.writer, "matches_length", False):
        return f"the engine {inverter.engine!r} has the LLM's weights elsewhere"
    return None


def trained_on(inverter: Inverter, texts: Sequence[str]) -> Inverter:
    """The inverter, trained on over texts of one kind, or as it is where that does not pay.

    It pays if there are some 300 short texts, and held-out ones are then more likely. Of many
    texts, a random part is read, the same one in every run. Processes that need the same training
    wait for the one that does it.

    Args:
        inverter: Not modified. Its encoder is shared.
        texts: The training texts (N).

    Returns:
        An inverter with a fingerprint of its own.

    Raises:
        InvalidState: The cache cannot be written.
    """
    usable = usable_texts(texts)
    if not usable or why_not(inverter) is not None:
        return inverter
    identity = _identity(inverter, usable)
    folder = default_cache_dir() / "own-texts" / identity
    try:
        if not (folder / _RESULT).is_file():  # a finished one is read where nothing can be written
            folder.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(folder.with_suffix(".lock")):
                if not (folder / _RESULT).is_file():
                    _train(inverter, usable, folder)
            runtime.free_memory()  # models refer to themselves: their memory is not free yet
    except torch.OutOfMemoryError as error:
        raise errors.InvalidState(
            f"Training the aligner on over your texts needs more memory than {inverter.device} has "
            "left. Set `own_texts: off`, or attach before other models are loaded."
        ) from error
    except OSError as error:
        raise errors.InvalidState(
            f"The aligner trained on your texts cannot be kept in {folder.parent} ({error}). Free "
            f"disk space, set {CACHE_VARIABLE} to a folder that you can write to, or set "
            "`own_texts: off`."
        ) from error
    result = json.loads((folder / _RESULT).read_text(encoding="utf-8"))
    if result["before"] - result["after"] < _LEAST_GAIN:
        runtime.log("training the aligner on over these texts does not pay: it stays as it is")
        return inverter
    runtime.log(f"decoding with the aligner that was trained on over these texts: {folder}")
    return _reloaded(inverter, folder)


def _reloaded(inverter: Inverter, folder: Path) -> Inverter:
    """An inverter like this one, with another aligner of the same encoder and LLM."""
    engine, dtype, server = inverter.made_with
    parts = load_parts(
        str(folder),
        revision=None,
        quantization=inverter.quantization,
        device=inverter.device,
        dtype=dtype,
        engine=engine,
    )
    return Inverter(
        inverter.encoder,
        parts.aligner,
        parts.llm,
        parts.tokenizer,
        name=inverter.name,
        # Of the weights: trained on another machine, the same texts give others.
        fingerprint=f"{inverter.fingerprint}+{parts.fingerprint[:8]}",
        folder=folder,
        engine=engine,
        dtype=dtype,
        quantization=inverter.quantization,
        server=server,
    )


def _identity(inverter: Inverter, texts: Sequence[str]) -> str:
    config = inverter.aligner.config.to_dict()
    known = (_VERSION, inverter.fingerprint, inverter.quantization, config)
    found = hashlib.sha256(json.dumps(known, sort_keys=True, default=str).encode())
    for text in texts:
        found.update(json.dumps(text).encode())
    return found.hexdigest()[:16]


def _train(inverter: Inverter, texts: list[str], folder: Path) -> None:
    """Train, and publish the checkpoint with its figures."""
    started = time.monotonic()
    shuffled = [texts[at] for at in runtime.counter_rng(_SEED).permutation(len(texts))]
    held_out, rest = shuffled[:_HELD_OUT], shuffled[_HELD_OUT:][:_MOST_TEXTS]
    with torch.random.fork_rng(devices=[]), torch.inference_mode(False):  # loading draws
        aligner, model = _trainable(inverter)
    batches, check = (_batches(inverter, part, model) for part in (rest, held_out))
    order = _order(len(batches))
    with (
        torch.inference_mode(False),  # whatever the caller is in
        torch.enable_grad(),
        torch.autocast(inverter.device.type, torch.bfloat16, bf16_is_fast(inverter.device)),
        runtime.progress_bar(len(order), "the aligner reads your texts", leave=False) as bar,
    ):
        before = generation_loss(model, check)
        set_trainable(model, projector=True, lora=True)
        optimizer = AdamW(parameter_groups(model, _PROJECTOR_RATE, _LORA_RATE), weight_decay=0.0)
        descend(model, batches, order, optimizer, partial(_rate, len(order)), bar.update)
        after = generation_loss(model, check)
    figures = {"before": before, "after": after, "steps": len(order), "texts": len(rest)}
    partial_folder = folder.with_suffix(".partial")
    for each in (partial_folder, folder):  # of a run that was killed, or by another version
        shutil.rmtree(each, ignore_errors=True)
    save_checkpoint(partial_folder, aligner, model.llm)
    _write_card(inverter, partial_folder, len(rest))
    (partial_folder / _RESULT).write_text(json.dumps(figures) + "\n", encoding="utf-8")
    partial_folder.replace(folder)  # whole or absent
    runtime.announce(
        f"the aligner was trained on over {len(rest)} of your texts in "
        f"{time.monotonic() - started:.0f} s, and is kept for further runs: L_GEN of "
        f"{len(held_out)} others {before:.2f} -> {after:.2f} nats/token"
    )


def _write_card(inverter: Inverter, folder: Path, texts: int) -> None:
    """The card of the aligner that was trained on over, with a word about it: it may be pushed."""
    card = inverter.folder / "README.md" if inverter.folder is not None else None
    if card is None or not card.is_file():
        return
    note = (
        f"\n## Trained on over a user's own texts\n\nThis copy has also read {texts} texts of one "
        "task, of which it may repeat some. The figures above are of the aligner before that.\n"
    )
    (folder / "README.md").write_text(card.read_text(encoding="utf-8") + note, encoding="utf-8")


def _trainable(inverter: Inverter) -> tuple[Aligner, AlignmentModel]:
    """A copy of the inverter's aligner and of its LLM, as they are trained."""
    device, folder = inverter.device, inverter.folder
    assert folder is not None  # see `why_not`
    aligner = load_aligner(folder)
    config = aligner.config
    llm = load_llm(
        resolve(config.llm, revision=hub_revision(config.llm_revision)).path,
        quantization=inverter.quantization,
        dtype=torch.bfloat16 if bf16_is_fast(device) else torch.float32,
        device=device,
        base_grid=config.base_grid,
    )
    if device.type == "cpu":
        # For sentences this short the fused kernel's backward pass is the slower one there.
        llm.set_attn_implementation("eager")
    prompt = SoftPrompt.build(aligner, llm, inverter.tokenizer)
    with_lora = load_lora(llm, folder, merge=False)
    for name, value in with_lora.named_parameters():
        if "lora_" in name:
            value.data = value.data.float()  # bf16 is too coarse for small updates
    guided = aligner if config.guidance else None
    # In eval mode: without dropout, nothing is drawn.
    return aligner, AlignmentModel(prompt, with_lora, guided=guided).to(device).eval()


def _batches(inverter: Inverter, texts: list[str], model: AlignmentModel) -> TokenBudgetBatches:
    return TokenBudgetBatches(
        texts,
        inverter.encode(texts).numpy(),
        inverter.tokenizer,
        prompt_length=model.prompt.length,
        batch_tokens=_BATCH_TOKENS,
        end_id=int(inverter.tokenizer.eos_token_id),
        seed=_SEED,
    )


def _order(count: int) -> list[int]:
    """Which of `count` batches is read at each step: whole passes, each in another order."""
    steps = min(_MOST_STEPS, math.ceil(_PASSES * count))
    rng = runtime.counter_rng(_SEED, 1)
    passes = [rng.permutation(count) for _ in range(math.ceil(steps / count))]
    return [int(index) for index in np.concatenate(passes)[:steps]]


def _rate(steps: int, step: int) -> float:
    return rate_factor(step, step / steps, warmup_steps=_WARM_UP_STEPS, decay_share=_DECAY_SHARE)

"""The model that is fine-tuned: all of it, or a part."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForSequenceClassification, PreTrainedTokenizerBase

from mixup_hf import errors
from mixup_hf.config import LoraConfig
from mixup_hf.data.targets import Targets
from mixup_hf.inverter import pretrained


def load_tokenizer(path: str | Path) -> PreTrainedTokenizerBase:
    """Load a model's tokenizer. Where it has no padding token, it pads with end-of-sequence.

    Raises:
        InvalidInput: There is no end-of-sequence token either.
    """
    tokenizer = pretrained.load_tokenizer(path)
    if tokenizer.pad_token is None:
        if tokenizer.eos_token is None:
            raise errors.InvalidInput(
                f"The tokenizer in {str(path)!r} has neither a padding nor an end-of-sequence "
                "token, so texts of different length fit no batch. Set one of them."
            )
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_student(
    path: str | Path,
    targets: Targets,
    tokenizer: PreTrainedTokenizerBase,
    *,
    lora: LoraConfig | None = None,
    freeze_embeddings: bool = False,
) -> Any:
    """Load a classifier; its head is drawn from the global generator.

    A decoder classifies by the last token that is no padding, so it is told the padding token.

    Weights that are trained are float32, whatever type they are stored in: in bf16, which most
    decoders are stored in, steps of a usual size are rounded away. Beside a LoRA, frozen weights
    stay in the type they are stored in.

    Args:
        path: Folder of the model.
        targets: The training labels, which fix the classes.
        tokenizer: The model's tokenizer, from `load_tokenizer`.
        lora: Train a LoRA and the head only. Default: train all weights.
        freeze_embeddings: Leave the table of token embeddings as it is.
    """
    names = targets.names
    model = pretrained.load_model(
        AutoModelForSequenceClassification,
        path,
        complete=False,
        dtype="auto" if lora is not None else torch.float32,
        num_labels=len(names),
        problem_type=targets.problem_type,
        id2label=dict(enumerate(names)),
        label2id={name: index for index, name in enumerate(names)},
    )
    if model.config.pad_token_id is None:
        model.config.pad_token_id = tokenizer.pad_token_id
    if lora is not None:
        model = _with_lora(model, lora)
    if freeze_embeddings:
        model.get_input_embeddings().requires_grad_(False)
    return model


def _with_lora(model: Any, lora: LoraConfig) -> Any:
    import peft

    modules = lora.target_modules
    wrapped = peft.get_peft_model(
        model,
        peft.LoraConfig(
            task_type=peft.TaskType.SEQ_CLS,
            r=lora.r,
            lora_alpha=lora.lora_alpha,
            lora_dropout=lora.lora_dropout,
            target_modules=modules if isinstance(modules, str) else list(modules),
        ),
    )
    for module in wrapped.modules():
        weights = list(module.parameters(recurse=False))
        if any(each.requires_grad and each.dtype != torch.float32 for each in weights):
            module.float()  # the head: peft makes the LoRA alone float32
            module.register_forward_pre_hook(_in_type_of_weights)
    return wrapped


def _in_type_of_weights(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Give a float32 head states of the bf16 layers before it."""
    states, *others = args
    return (states.to(next(module.parameters()).dtype), *others)

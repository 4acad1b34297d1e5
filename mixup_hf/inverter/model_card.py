"""The model card of an aligner: intended use, training and evaluation results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

from mixup_hf.inverter.aligner import AlignerConfig

_BODY = """---
{front}
---

# An aligner for {encoder} and {llm}

Decodes sentence embeddings of {encoder} into text with {llm}: {hints}a projector maps the embedding
to {soft} soft tokens, and the LLM, adapted with LoRA, generates a sentence from them. Made for
inverted mixup with `mixup_hf`: mix the embeddings of two texts, decode the mix, train on the
result.

```python
from mixup_hf import Inverter

inverter = Inverter.from_pretrained("{name}")
inverter.interpolate("Dollar slides against the euro", "Henman out of Davis Cup", [0.0, 0.5, 1.0])
```

## Base models

| | name | revision | fingerprint |
|---|---|---|---|
| encoder | {encoder} ({how}) | {encoder_revision} | {encoder_print} |
| LLM | {llm} (weights on the {grid} grid) | {llm_revision} | {llm_print} |

The base models are not included in this checkpoint; their fingerprints are verified on load.

## Training

{training}

## Evaluation

{figures}

## Held-out examples

| original | decoded from its embedding |
|---|---|
{samples}

## Limits

Topic, tone and mixing ratio are preserved; exact words, names and numbers often are not, and the
output may state facts that are in neither text. The aligner was trained on sentences of {words}
words; longer texts are decoded to short ones. At ratios near 0 or 1 it reconstructs a training row
as closely as it can: do not treat its output as anonymized.
"""

_HINTS = """a bag-of-words network predicts the {count} words
most likely to be in the text, """


def aligner_card(
    config: AlignerConfig,
    *,
    name: str,
    training: Mapping[str, Any],
    figures: Mapping[str, Any],
    samples: Sequence[Sequence[str]],
    words: str,
    licence: str = "apache-2.0",
) -> ModelCard:
    """Generate the model card.

    Args:
        config: The aligner's config.
        name: The name or path users load the aligner from.
        training: Details of the run (data, budget, command, ...), one line each.
        figures: Measured scores, one line each.
        samples: Pairs of a sentence and its reconstruction.
        words: Sentence lengths it was trained on, in words, such as "4 to 20".
        licence: SPDX license identifier.
    """
    front = ModelCardData(
        license=licence,
        library_name="mixup_hf",
        tags=["mixup_hf", "embedding-inversion", "data-augmentation"],
        base_model=[config.encoder, config.llm],
    )
    rows = ["| " + " | ".join(text.replace("|", "/") for text in pair) + " |" for pair in samples]
    return ModelCard(
        _BODY.format(
            front=front.to_yaml(),
            name=name,
            encoder=config.encoder,
            llm=config.llm,
            soft=config.num_soft_tokens,
            hints=_HINTS.format(count=config.num_hints) if config.num_hints else "",
            how=f"{config.pooling} pooling" + (", unit length" if config.normalize else ""),
            grid=config.base_grid or "original",
            encoder_revision=config.encoder_revision or "local",
            encoder_print=config.encoder_fingerprint or "not recorded",
            llm_revision=config.llm_revision or "local",
            llm_print=config.llm_fingerprint or "not recorded",
            training=_table("fact", training),
            figures=_table("measure", figures),
            samples="\n".join(rows),
            words=words,
        )
    )


def _table(head: str, content: Mapping[str, Any]) -> str:
    lines = [f"| {head} | value |", "|---|---|"]
    lines += [f"| {key} | {_shown(value)} |" for key, value in content.items()]
    return "\n".join(lines)


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)

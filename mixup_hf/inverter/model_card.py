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

It lets {llm} say what is in an embedding of {encoder}: {hints}a projector turns it into {soft} soft
tokens, and a LoRA on the LLM reads them. Made for inverted mixup with `mixup_hf`: mix two texts'
embeddings, decode the mix to a sentence, train on it.

```python
from mixup_hf import Inverter

inverter = Inverter.from_pretrained("{name}")
inverter.interpolate("Dollar slides against the euro", "Henman out of Davis Cup", [0.0, 0.5, 1.0])
```

## Partners

| | name | revision | fingerprint |
|---|---|---|---|
| encoder | {encoder} ({how}) | {encoder_revision} | {encoder_print} |
| LLM | {llm} (weights on the {grid} grid) | {llm_revision} | {llm_print} |

The base models are not part of this checkpoint; their fingerprints are checked on load.

## Training

{training}

## Scores

{figures}

## Sentences it had not seen

| sentence | decoded from its embedding |
|---|---|
{samples}

## Limits

Topic, tone and ratio come across; exact words, names and numbers often do not, and facts are
invented. It was trained on sentences of {words} words and decodes longer texts to short ones. Near
a ratio of 0 or 1 the decoder tries to reconstruct a training row: do not publish its output as
anonymised.
"""

_HINTS = """a bag-of-words network names the {count} words
that the embedding most likely speaks of, """


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

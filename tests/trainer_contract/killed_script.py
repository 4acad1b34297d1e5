"""A training with sentences of a tiny inverter; with `kill`, it dies in the middle of a refill.

    python killed_script.py OUTPUT_DIR [kill]

Writes what a test compares to OUTPUT_DIR/result.json.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from tiny import make_dataset, make_inverter, make_rows, word_tokenizer
from trainer_runs import LABELS, make_arguments, sharp_classifier
from transformers import Trainer

from mixup_hf import InversedMixup, MixupConfig
from mixup_hf.types import MixedExample

REFILL, CHUNK = 2, 1


def main(folder: Path, kill: bool) -> None:
    texts, labels = make_rows(12, LABELS)
    config = MixupConfig(chunk_size=4, max_new_tokens=4, intrusion="off", label_source="parents")
    mixup = InversedMixup(make_inverter(), texts, labels, config=config)
    if kill:
        die_while_decoding(mixup)
    trainer = Trainer(
        model=sharp_classifier(),
        args=make_arguments(folder, num_train_epochs=4, save_strategy="epoch"),
        train_dataset=make_dataset(texts, labels),
        processing_class=word_tokenizer(classifier=True),
        **mixup.trainer_kwargs(word_tokenizer(classifier=True)),
    )
    trainer.train(resume_from_checkpoint=any(folder.glob("checkpoint-*")))
    state = {name: value.tolist() for name, value in trainer.model.state_dict().items()}
    digest = hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()
    producer = mixup.producer
    found = {"weights": digest, "decoded": producer.decoded, "reused": producer.reused}
    (folder / "result.json").write_text(json.dumps(found))


def die_while_decoding(mixup: InversedMixup) -> None:
    """SIGKILL: nothing is flushed, nothing is cleaned up."""
    chunk = mixup.producer.chunk

    def killed(epoch: int, number: int, num_rows: int) -> list[MixedExample]:
        if (epoch, number) == (REFILL, CHUNK):
            os.kill(os.getpid(), signal.SIGKILL)
        return chunk(epoch, number, num_rows)

    changed: Any = mixup.producer
    changed.chunk = killed


if __name__ == "__main__":
    main(Path(sys.argv[1]), "kill" in sys.argv[2:])

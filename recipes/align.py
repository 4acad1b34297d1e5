"""Train an aligner (projector, then LoRA) on unlabelled sentences.

    accelerate launch recipes/align.py recipes/configs/align/small.yaml --data sentences.txt

The same as `mixup-hf align`. Killed and started again, it goes on from its last checkpoint.
"""

from __future__ import annotations

import logging
import sys

from mixup_hf import AlignConfig, load_config
from mixup_hf.align import align


def main() -> None:
    """Read the config and train."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    path, *overrides = sys.argv[1:]
    align(load_config(AlignConfig, path, overrides))


if __name__ == "__main__":
    main()

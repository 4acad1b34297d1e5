"""Fine-tune a classifier with inverted mixes, on whatever accelerate finds.

    accelerate launch recipes/finetune.py recipes/configs/bbc/mixup.yaml
    accelerate launch --config_file recipes/accelerate_configs/cpu_two_processes.yaml \
        recipes/finetune.py recipes/configs/bbc/mixup.yaml --data.shots 20

The same as `mixup-hf finetune`; every key of the config can be given as an option.
"""

from __future__ import annotations

import logging
import sys

from mixup_hf import FinetuneConfig, finetune, load_config


def main() -> None:
    """Read the config, fine-tune, print the metrics once."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    path, *overrides = sys.argv[1:]
    config = load_config(FinetuneConfig, path, overrides)
    metrics = finetune(config)
    print({name: metrics[name] for name in ("test_accuracy", "test_macro_f1", "processes")})


if __name__ == "__main__":
    main()

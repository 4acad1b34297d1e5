"""Hostile checkpoints and rows: refused with the reason; nothing executed, nothing written outside.

Every trial takes a tiny checkpoint (an aligner with a LoRA, its encoder and its LLM) or a file of
rows, damages it in one way, and reads it. Beside it lies bait: a folder in which a payload that ran
would leave a file, and that no trial may change.
"""

from __future__ import annotations

import hostile_configs
import hostile_paths
import hostile_weights
from trials import Trial

KINDS: dict[str, Trial] = {
    each.__name__: each
    for each in (*hostile_weights.TRIALS, *hostile_configs.TRIALS, *hostile_paths.TRIALS)
}

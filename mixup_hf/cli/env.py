"""`mixup-hf env`: versions, device, what is cached, which aligner would be used."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

from rich.console import Console
from rich.markup import escape
from rich.table import Table

_PACKAGES = (
    "mixup_hf",
    "torch",
    "transformers",
    "accelerate",
    "peft",
    "bitsandbytes",
    "datasets",
    "evaluate",
    "huggingface_hub",
)


def command() -> None:
    """Print what a bug report needs."""
    import torch

    from mixup_hf.inverter.model import EMBEDDED_ALIGNER, describe_aligner
    from mixup_hf.inverter.quantization import default_dtype, default_quantization
    from mixup_hf.inverter.sources import EMBEDDED, cached_embedded, default_cache_dir

    table = Table("what", "value", title="mixup-hf env")
    table.add_row("python", f"{platform.python_version()} on {platform.platform()}")
    for name in _PACKAGES:
        table.add_row(name, _version(name))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    table.add_row("device", torch.cuda.get_device_name() if device.type == "cuda" else "cpu")
    table.add_row("compute type", str(default_dtype(device)).removeprefix("torch."))
    table.add_row("quantization", default_quantization(device))
    table.add_row("cache", str(default_cache_dir()))
    for name in EMBEDDED:
        folder = cached_embedded(name)
        table.add_row(f"  {name}", "cached" if folder else "not cached; fetched on first use")
    table.add_row("aligner", escape(describe_aligner(EMBEDDED_ALIGNER)))
    Console().print(table)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"

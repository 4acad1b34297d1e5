"""`mixup-hf env`: versions, device, what is cached, which aligner would be used."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mixup_hf.registry import register

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


@register("command", "env", help="versions, device and caches, for a bug report")
def command(
    method: Annotated[str | None, typer.Option(help="Only print what this method sets.")] = None,
) -> None:
    """Print versions, device, caches and registered names; or what a method sets."""
    if method is not None:
        _print_method(method)
        return
    import torch

    from mixup_hf import registry
    from mixup_hf.data.embedded import EMBEDDED
    from mixup_hf.data.sources import cached_embedded, default_cache_dir
    from mixup_hf.inverter.loading import EMBEDDED_ALIGNER, describe_aligner
    from mixup_hf.inverter.quantization import default_dtype, default_quantization

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
    for kind in registry.HOMES:
        if kind != "command":
            table.add_row(f"{kind} names", escape(", ".join(registry.names(kind))))
    Console().print(table)


def _print_method(method: str) -> None:
    from mixup_hf import registry
    from mixup_hf.config import MixupConfig
    from mixup_hf.mixing.methods import PROMPT
    from mixup_hf.mixing.weights import parse_weights, variance_factor

    paper = registry.get("method", method).paper
    mixing = MixupConfig(method=method).mixing
    table = Table("key", "value", title=f"{method} ({paper})")
    for name in ("weights", "pairing", "interpolation", "source"):
        table.add_row(name, getattr(mixing, name))
    factor = variance_factor(parse_weights(mixing.weights))
    table.add_row("variance that mixes keep", f"{factor:.1%}")
    table.add_row("prompt", PROMPT)
    Console().print(table)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"

"""Who may import whom. The code is read, not run: imports inside functions count as well."""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import mixup_hf

ROOT = Path(__file__).parents[1]
PACKAGE = "mixup_hf"

# A module may import modules of lower layers.
LAYERS: dict[int, tuple[str, ...]] = {
    0: ("_checks", "_fields", "records"),
    1: (
        "calibration",
        "intervals",
        "weights",
        "mixing",
        "neighbours",
        "partners",
        "pairing",
        "leaks",
        "losses",
        "presets",
        "sides",
        "tasks",
        "distributed",
    ),
    2: ("encoders", "inverter", "intrusion"),
    3: ("ahead", "pool", "producer", "recorded", "store"),
    4: (
        "config",
        "loading",
        "collator",
        "hooks",
        "watch",
        "callback",
        "attach",
        "offline",
        "plugin",
    ),
    5: ("align", "metrics", "structure", "tables", "provenance", "finetuning", "proof", "cli"),
}

# Within its layer a module may import these, and nothing else.
BESIDE: dict[str, tuple[str, ...]] = {
    "partners": ("neighbours",),
    "pairing": ("distributed", "partners", "weights"),
    "tasks": ("mixing",),
    "inverter.prompting": ("inverter.checkpoint",),
    "inverter.checkpoint": (
        "encoders",
        "inverter.lexicon",
        "inverter.projector",
        "inverter.sources",
    ),
    "inverter.engines": ("inverter.packed",),
    "inverter.generation": ("inverter.engines",),
    "inverter.served": ("inverter.generation",),
    "inverter.model_card": ("inverter.checkpoint",),
    "inverter.model": (
        "encoders",
        "inverter.checkpoint",
        "inverter.engines",
        "inverter.generation",
        "inverter.likelihood",
        "inverter.parts",
        "inverter.prompting",
        "inverter.quantization",
        "inverter.served",
    ),
    "inverter.parts": (
        "encoders",
        "inverter.checkpoint",
        "inverter.packed",
        "inverter.quantization",
        "inverter.sources",
    ),
    "ahead": ("producer",),
    "producer": ("store",),
    "hooks": ("collator",),
    "collator": ("config",),
    "config": ("config.alignment", "config.finetuning", "config.mixing"),
    "config.finetuning": ("config.mixing",),
    "callback": ("collator", "hooks", "watch"),
    "attach": ("callback", "collator", "config"),
    "offline": ("attach", "config"),
    "plugin": ("attach", "config"),
    "intrusion": (
        "intrusion.events",
        "intrusion.gate",
        "intrusion.judges",
        "intrusion.report",
    ),
    "intrusion.events": ("intrusion.judges",),
    "intrusion.gate": ("intrusion.events", "intrusion.judges"),
    "intrusion.report": ("intrusion.events", "intrusion.judges"),
    "align": ("align.data", "align.fidelity", "align.train"),
    "align.batches": ("align.data",),
    "align.objective": ("align.batches",),
    "align.fidelity": ("align.text_scores",),
    "align.following": ("align.batches", "align.objective", "align.stages"),
    "align.joined": ("align.data", "align.fidelity"),
    "align.session": (
        "align.batches",
        "align.data",
        "align.joined",
        "align.objective",
        "align.warmup",
        "tables",
    ),
    "align.warmup": ("tables",),
    "align.speed": ("align.batches", "align.objective"),
    "align.stages": ("align.batches", "align.objective", "align.speed"),
    "align.ratio": ("align.fidelity",),
    "align.train": (
        "align.batches",
        "align.fidelity",
        "align.ratio",
        "align.session",
        "align.stages",
        "align.text_scores",
    ),
    "metrics.lambda_recovery.lambda_recovery": ("align.fidelity",),
    "provenance": ("tables",),
    "finetuning": ("tables",),
    "proof.arms": (
        "finetuning",
        "proof.config",
        "proof.embedding_mixup",
        "proof.models",
        "proof.rewriting",
        "tables",
    ),
    "proof.experiment": ("finetuning", "proof.arms", "proof.config", "proof.models", "tables"),
    "proof.quality": ("align.fidelity", "proof.text_quality"),
    "proof.rewriting": ("proof.models",),
    "proof.measured": ("proof.pages",),
    "proof.report": (
        "proof.measured",
        "proof.pages",
        "proof.plots",
        "proof.summary",
        "proof.text_quality",
    ),
    "proof.summary": ("proof.experiment", "proof.statistics"),
}
# A higher layer, imported inside a function: training code that only `source: task` needs.
ABOVE: dict[str, tuple[str, ...]] = {"plugin": ("align.following",)}
# Commands are the outermost edge: they may use all of their layer.
BESIDE_ANYTHING = "cli"

# What a layer may use besides the standard library, at module level or inside functions.
BASIC = {"numpy", "torch", "tqdm"}
TRANSFORMERS = BASIC | {"transformers", "huggingface_hub"}
THIRD_PARTY: dict[str, set[str]] = {
    "_checks": set(),
    "_fields": set(),
    "records": {"torch"},
    "distributed": BASIC | {"accelerate"},
    "loading": {"yaml", "pydantic"},
    "leaks": BASIC | {"datasketch"},
    "neighbours": BASIC | {"faiss"},
    "pairing": BASIC | {"imblearn"},
    "inverter.sources": TRANSFORMERS | {"filelock", "sklearn"},
    "inverter.checkpoint": TRANSFORMERS | {"peft", "safetensors"},
    "inverter.parts": TRANSFORMERS | {"peft"},
    "intervals": BASIC | {"scipy"},
    "watch": BASIC | {"scipy"},
    "inverter.served": BASIC | {"requests", "urllib3"},
    "intrusion.judges": BASIC | {"sklearn"},
    "inverter.quantization": TRANSFORMERS | {"bitsandbytes"},
}
BY_LAYER: dict[int, set[str]] = {
    0: set(),
    1: BASIC,
    2: TRANSFORMERS,
    3: BASIC,
    4: TRANSFORMERS,
    5: TRANSFORMERS
    | {
        "datasets",
        "evaluate",
        "peft",
        "filelock",
        "jinja2",
        "matplotlib",
        "rich",
        "rouge_score",
        "sacrebleu",
        "safetensors",
        "scipy",
        "sklearn",
        "typer",
    },
}
ONLY_INSIDE_FUNCTIONS = {"peft", "bitsandbytes", "faiss", "imblearn", "datasketch"}
FORBIDDEN = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}

# The pool and its producer see encoder and inverter through the protocols of `records` only.
SEEN_BY_LAYER_3 = {
    "_checks",
    "distributed",
    "mixing",
    "pairing",
    "producer",
    "records",
    "sides",
    "store",
}


@dataclass(frozen=True)
class Import:
    """`module` is dotted; for a module of the package it is without the package's name."""

    module: str
    own: bool
    names: tuple[str, ...]
    inside_function: bool
    line: int


@cache
def modules() -> dict[str, ast.Module]:
    """Dotted name of every module of the package, and its code. The facade is ''."""
    found = {}
    for path in sorted((ROOT / PACKAGE).rglob("*.py")):
        parts = path.relative_to(ROOT / PACKAGE).with_suffix("").parts
        name = ".".join(part for part in parts if part != "__init__")
        found[name] = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    return found


def walk(node: ast.AST, inside: bool = False) -> Iterator[tuple[ast.AST, bool]]:
    """All nodes, each with whether it runs only when a function is called."""
    for child in ast.iter_child_nodes(node):
        yield child, inside
        deeper = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        yield from walk(child, inside or deeper)


def imports(tree: ast.Module) -> list[Import]:
    found = []
    for node, inside in walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                found.append(_import(alias.name, (), inside, node.lineno))
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: write the import in full"
            names = tuple(alias.name for alias in node.names)
            # `from mixup_hf import pool` names a module, `from mixup_hf.pool import X` does not.
            submodules = [name for name in names if f"{node.module}.{name}" in _full_names()]
            for name in submodules:
                found.append(_import(f"{node.module}.{name}", (), inside, node.lineno))
            rest = tuple(name for name in names if name not in submodules)
            if rest:
                found.append(_import(str(node.module), rest, inside, node.lineno))
    return found


def _import(module: str, names: tuple[str, ...], inside: bool, line: int) -> Import:
    own = module == PACKAGE or module.startswith(f"{PACKAGE}.")
    return Import(
        module.removeprefix(PACKAGE).lstrip(".") if own else module, own, names, inside, line
    )


@cache
def _full_names() -> frozenset[str]:
    return frozenset(f"{PACKAGE}.{name}" for name in modules())


def layer(name: str) -> int:
    top = name.split(".")[0]
    return next(number for number, members in LAYERS.items() if top in members)


def real_modules() -> list[str]:
    """All modules but the facade and folders that hold no code of their own."""
    return [name for name in modules() if name]


def test_every_module_has_a_place_in_the_table() -> None:
    placed = {top for members in LAYERS.values() for top in members}
    assert {name.split(".")[0] for name in real_modules()} == placed


def test_the_reader_sees_imports_wherever_they_stand() -> None:
    code = """
import peft.tuners
from mixup_hf import _checks, Inverter

class A:
    def f(self):
        if True:
            from mixup_hf.pool import MixupPool
"""
    seen = {(each.module, each.own, each.inside_function) for each in imports(ast.parse(code))}
    assert seen == {
        ("peft.tuners", False, False),
        ("_checks", True, False),
        ("", True, False),
        ("pool", True, True),
    }
    assert sum(len(imports(tree)) for tree in modules().values()) > 100


@pytest.mark.parametrize("name", real_modules())
def test_a_module_imports_lower_layers_or_what_it_may_beside_it(name: str) -> None:
    for each in imports(modules()[name]):
        if not each.own:
            continue
        assert each.module in modules(), f"{name}:{each.line} imports no module: {each.module!r}"
        assert each.module, f"{name}:{each.line} imports from the facade instead of the module"
        beside = BESIDE.get(name, ())
        free = name.split(".")[0] == BESIDE_ANYTHING
        assert (
            layer(each.module) < layer(name)
            or each.module in beside
            or (each.module in ABOVE.get(name, ()) and each.inside_function)
            or (free and layer(each.module) == layer(name))
        ), f"{name}:{each.line} (layer {layer(name)}) may not import {each.module}"


def test_what_is_allowed_beside_a_module_is_really_beside_it() -> None:
    for name, allowed in BESIDE.items():
        used = {each.module for each in imports(modules()[name]) if each.own}
        assert set(allowed) <= used, f"{name} no longer imports {set(allowed) - used}"
        assert {layer(other) for other in allowed} == {layer(name)}


def test_there_are_no_cycles() -> None:
    graph = {
        name: {each.module for each in imports(tree) if each.own}
        for name, tree in modules().items()
        if name
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"import cycle: {' -> '.join(error.args[1])}")


@pytest.mark.parametrize("name", LAYERS[3])
def test_the_pool_side_knows_encoder_and_inverter_as_protocols_only(name: str) -> None:
    assert {each.module for each in imports(modules()[name]) if each.own} <= SEEN_BY_LAYER_3


@pytest.mark.parametrize("name", real_modules())
def test_a_module_uses_only_the_third_party_code_of_its_layer(name: str) -> None:
    allowed = THIRD_PARTY.get(name, BY_LAYER[layer(name)])
    for each in imports(modules()[name]):
        top = each.module.split(".")[0]
        if each.own or top in sys.stdlib_module_names:
            continue
        assert top in allowed, f"{name}:{each.line} may not import {top}"


@pytest.mark.parametrize("name", modules())
def test_slow_or_optional_packages_are_imported_inside_functions(name: str) -> None:
    for each in imports(modules()[name]):
        if each.module.split(".")[0] in ONLY_INSIDE_FUNCTIONS:
            assert each.inside_function, f"{name}:{each.line} imports {each.module} at once"


def test_accelerate_is_read_in_one_place() -> None:
    users = {
        name
        for name, tree in modules().items()
        for each in imports(tree)
        if each.module.split(".")[0] == "accelerate"
    }
    assert users == {"distributed"}


def nodes(kind: type) -> Iterator[tuple[str, ast.AST]]:
    for name, tree in modules().items():
        for node in ast.walk(tree):
            if isinstance(node, kind):
                yield name, node


def test_trainer_is_subclassed_nowhere() -> None:
    for name, node in nodes(ast.ClassDef):
        bases = [ast.unparse(base) for base in node.bases]
        assert not [base for base in bases if base.endswith("Trainer")], f"{name}:{node.lineno}"


def test_no_code_from_a_model_repository_is_run() -> None:
    for name, node in nodes(ast.keyword):
        assert node.arg not in ("trust_remote_code", "allow_pickle"), f"{name}:{node.value.lineno}"
    for name, node in nodes(ast.Constant):
        assert node.value != "trust_remote_code", f"{name}:{node.lineno}"


def test_nothing_is_pickled() -> None:
    for name, tree in modules().items():
        used = {each.module.split(".")[0] for each in imports(tree)}
        assert not used & FORBIDDEN, name
        from_torch = [
            each
            for each in imports(tree)
            if each.module == "torch" and {"load", "save"} & {*each.names}
        ]
        assert not from_torch, name
    for name, node in nodes(ast.Attribute):
        # A vLLM server takes prompt embeddings in this format only, and reads nothing but tensors.
        allowed = {"torch.save"} if name == "inverter.served" else set()
        used = {"torch.load", "torch.save"} & {ast.unparse(node)}
        assert used <= allowed, f"{name}:{node.lineno}"


def test_nothing_is_printed() -> None:
    for name, node in nodes(ast.Call):
        assert ast.unparse(node.func) not in ("print", "pprint", "sys.stdout.write"), (
            f"{name}:{node.lineno}"
        )


def test_modules_define_and_do_nothing_when_imported() -> None:
    allowed = (
        ast.Import,
        ast.ImportFrom,
        ast.Assign,
        ast.AnnAssign,
        ast.FunctionDef,
        ast.ClassDef,
    )
    for name, tree in modules().items():
        for node in tree.body:
            if isinstance(node, ast.If):
                assert ast.unparse(node.test) in ("TYPE_CHECKING", "__name__ == '__main__'"), (
                    f"{name}:{node.lineno}"
                )
                continue
            if isinstance(node, ast.Expr):
                registers = name == "cli.main" and ast.unparse(node).startswith("app.command(")
                is_docstring = isinstance(node.value, ast.Constant)
                assert registers or is_docstring, f"{name}:{node.lineno} does something"
                continue
            assert isinstance(node, allowed), f"{name}:{node.lineno}"


RECIPES = sorted((ROOT / "recipes").rglob("*.py"))
# It tries another engine in the place of ours, so it needs what engines are plugged into.
ENGINE_TRIALS = {
    "openvino_decoding": ("inverter.engines", "inverter.generation", "inverter.prompting")
}


@pytest.mark.parametrize("path", RECIPES, ids=[path.stem for path in RECIPES])
def test_recipes_use_public_names_only(path: Path) -> None:
    used = [each for each in imports(ast.parse(path.read_text(encoding="utf-8"))) if each.own]
    assert used
    for each in used:
        if each.module in ENGINE_TRIALS.get(path.stem, ()):
            continue
        assert each.module in ("", "align"), f"line {each.line} reaches into {each.module}"
        home = mixup_hf if not each.module else importlib.import_module("mixup_hf.align")
        assert set(each.names) <= set(home.__all__), f"line {each.line}: {each.names}"

"""The house: its layers, its size, and rules that no linter knows. Code is read, not run."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

import mixup_hf

ROOT = Path(__file__).parents[1]
PACKAGE = "mixup_hf"
MODULES_AT_THE_ROOT = 8
LONGEST_MODULE = 300  # lines
LONGEST_FUNCTION = 60  # lines, without its docstring
ONLY_INSIDE_FUNCTIONS = {"peft", "bitsandbytes", "faiss", "imblearn", "datasketch", "gradio"}
FORBIDDEN = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}


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
            # `from mixup_hf import errors` names a module, `from mixup_hf.errors import X` no.
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


def test_the_reader_sees_imports_wherever_they_stand() -> None:
    code = """
import peft.tuners
from mixup_hf import Inverter, errors

class A:
    def f(self):
        if True:
            from mixup_hf.training.pool import MixupPool
"""
    seen = {(each.module, each.own, each.inside_function) for each in imports(ast.parse(code))}
    assert seen == {
        ("peft.tuners", False, False),
        ("errors", True, False),
        ("", True, False),
        ("training.pool", True, True),
    }
    assert sum(len(imports(tree)) for tree in modules().values()) > 100


@pytest.mark.parametrize("name", modules())
def test_slow_or_optional_packages_are_imported_inside_functions(name: str) -> None:
    for each in imports(modules()[name]):
        if each.own or name == "imblearn.text_smote":  # a class of imbalanced-learn's, loaded late
            continue
        if each.module.split(".")[0] in ONLY_INSIDE_FUNCTIONS:
            assert each.inside_function, f"{name}:{each.line} imports {each.module} at once"


def test_accelerate_is_read_in_one_place() -> None:
    users = {
        name
        for name, tree in modules().items()
        for each in imports(tree)
        if each.module.split(".")[0] == "accelerate"
    }
    assert users == {"runtime"}


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
        refused = node.arg == "trust_remote_code" and ast.unparse(node.value) == "False"
        assert refused or node.arg not in ("trust_remote_code", "allow_pickle"), (
            f"{name}:{node.value.lineno}"
        )
    for name, node in nodes(ast.Constant):
        assert node.value != "trust_remote_code", f"{name}:{node.lineno}"


def test_models_are_read_in_one_place() -> None:
    """`pretrained` refuses pickles, code of the model's own, and weights that are missing."""
    kinds = ("AutoModel", "AutoTokenizer")
    for name, node in nodes(ast.Call):
        called = ast.unparse(node.func)
        if called.startswith(kinds) and called.endswith(".from_pretrained"):
            # Unpacking the embedded LLM reads a GGUF file that is pinned by its content.
            assert name in ("inverter.pretrained", "data.embedded"), f"{name}:{node.lineno}"


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
        allowed = {"torch.save"} if name == "inverter.engines._vllm_server" else set()
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


# The campaigns of recipes/reliability try the package from the inside, as tests do.
RECIPES = sorted(
    path for path in (ROOT / "recipes").rglob("*.py") if path.parent.name != "reliability"
)
# What recipes use beside public names: one tries another engine in the place of ours, so it needs
# what engines are plugged into; one shows all settings and commands in the documentation.
NOT_PUBLIC = {
    "align_ablation": ("inverter.lexicon",),
    "hooks": ("cli.main", "config", "evaluation.experiment.config"),
    "hints": ("evaluation.ratio_recovery", "evaluation.text_scores"),
    "openvino_decoding": (
        "inverter.engines",
        "inverter.engines.base",
        "inverter.sampling",
        "inverter.prompt",
    ),
    # It times the stages of a run one by one.
    "scale": (
        "data.tables",
        "data.targets",
        "generation.generator",
        "generation.labelling",
        "judging",
        "training.committee",
        "training.pool",
    ),
}


# Parts of a recipe that leave the package to the others.
WITHOUT_THE_PACKAGE = {"openvino_llm", "speed"}


@pytest.mark.parametrize("path", RECIPES, ids=[path.stem for path in RECIPES])
def test_recipes_use_public_names_only(path: Path) -> None:
    used = [each for each in imports(ast.parse(path.read_text(encoding="utf-8"))) if each.own]
    assert bool(used) == (path.stem not in WITHOUT_THE_PACKAGE)
    for each in used:
        if each.module in NOT_PUBLIC.get(path.stem, ()):
            continue
        assert each.module in ("", "align", "registry"), f"line {each.line}: {each.module}"
        if each.module == "registry":
            continue
        home = mixup_hf if not each.module else importlib.import_module("mixup_hf.align")
        assert set(each.names) <= set(home.__all__), f"line {each.line}: {each.names}"


def test_folders_import_to_the_left_only() -> None:
    """The contracts stand in pyproject.toml, under [tool.importlinter]."""
    command = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([command, "--no-cache"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_root_holds_few_modules() -> None:
    assert len(list((ROOT / PACKAGE).glob("*.py"))) <= MODULES_AT_THE_ROOT


def sized() -> dict[str, str]:
    """Path and text of every module whose size is limited: the package's and the recipes'."""
    paths = [path for folder in (PACKAGE, "recipes") for path in (ROOT / folder).rglob("*.py")]
    return {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in sorted(paths)}


def test_no_module_is_long() -> None:
    lengths = {path: len(text.splitlines()) for path, text in sized().items()}
    assert {path for path, length in lengths.items() if length > LONGEST_MODULE} == set()


def _length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function; a docstring that lists many arguments is no fault."""
    lines = (function.end_lineno or 0) - function.lineno + 1
    if ast.get_docstring(function) is not None:
        docstring = function.body[0]
        lines -= (docstring.end_lineno or 0) - docstring.lineno + 1
    return lines


def test_no_function_is_long() -> None:
    long = [
        f"{path}:{node.lineno} {node.name}"
        for path, text in sized().items()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and _length(node) > LONGEST_FUNCTION
    ]
    assert long == []

"""What the documentation site takes from the package, for mkdocs and mkdocstrings.

A page has comments that are replaced when the site is built, and links to files of the repository:

- `<!-- settings: MixupConfig -->`: every setting of the class, with type, default and meaning;
- `<!-- table: KIND -->`: everything of that kind that is registered;
- `<!-- commands -->`: the commands with their options;
- `<!-- api: rest -->`: docstrings of the public names that the page does not mention;
- `<!-- file: NAME -->` above a block of code: the name becomes the block's title;
- `../../benchmarks/RESULTS.md` and other files of `recipes/`: they become part of the site.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import griffe
import mkdocs.structure.files
import typer

import mixup_hf
from mixup_hf import config, registry
from mixup_hf.cli.main import app
from mixup_hf.evaluation.experiment.config import ExperimentConfig

_RECIPES = Path(__file__).parents[1]
# Files of recipes/ that are shown on the site, at the same place below its root.
_SHOWN = (
    "benchmarks/*.md",
    "benchmarks/*.png",
    "benchmarks/*.jsonl",
    "notebooks/*.ipynb",
    "SCALING.md",
)
_COMMENT = re.compile(r"<!-- (settings|table|commands|api)(?:: (\w+))? -->")
_LINK = re.compile(r"\]\(\.\./\.\./((?:\.\./)*(?:benchmarks|notebooks)/|(?:\.\./)*SCALING\.md)")
_LOADED = re.compile(
    r"<(?:script|img|iframe)[^>]*\ssrc=\"(?:https?:)?//[^>]*>"
    r"|<link[^>]*rel=\"(?:stylesheet|preconnect|icon)\"[^>]*\shref=\"(?:https?:)?//[^>]*>"
)
_FILE = re.compile(r"^<!-- file: (\S+) -->\n```(\w+)$", re.MULTILINE)
_EXAMPLE = re.compile(r"^Example:\n((?:    .*\n|\n)+)", re.MULTILINE)


def on_files(files: Any, config: Any) -> Any:
    """Add the files of `recipes/` that pages link to."""
    for pattern in _SHOWN:
        for path in sorted(_RECIPES.glob(pattern)):
            name = path.relative_to(_RECIPES).as_posix()
            files.append(
                mkdocs.structure.files.File.generated(config, name, abs_src_path=str(path))
            )
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Fill in what is rendered from the package."""
    named = _FILE.sub(r'```\2 title="\1"', render(markdown))
    return _LINK.sub(r"](\1", named)


def on_post_page(output: str, page: Any, **_: Any) -> str:
    """Refuse pages that would load something from another host.

    Raises:
        ValueError: A script, a style sheet or an image is not part of the site.
    """
    found = _LOADED.search(output)
    if found:
        raise ValueError(f"{page.file.src_uri} loads from another host: {found[0]}")
    return output


def render(markdown: str) -> str:
    """A page with every comment of the module's list replaced."""

    def replaced(found: re.Match[str]) -> str:
        return _RENDER[found[1]](found[2] or "", markdown)

    return _COMMENT.sub(replaced, markdown)


def _settings(name: str, _: str) -> str:
    kind = ExperimentConfig if name == "ExperimentConfig" else getattr(config, name)
    lines = ["| setting | meaning |", "|---|---|"]
    for key in config.describe(kind):
        type_ = f"{key.type}, {key.bounds}" if key.bounds else key.type
        default = (
            "required" if key.default is None else f"default: <code>{_cell(key.default)}</code>"
        )
        anchor = re.sub(r"\W+", "-", f"{name}-{key.name}").lower()
        lines.append(
            f'| <code id="{anchor}">{key.name}</code> '
            f"| {_cell(key.help)}<br><small>{_cell(type_)}; {default}</small> |"
        )
    return "\n".join(lines)


def _cell(text: str) -> str:
    """A text in a cell of a table: nothing in it is markup."""
    for sign, entity in (
        ("&", "&amp;"),
        ("<", "&lt;"),
        ("|", "&#124;"),
        ("*", "&#42;"),
        ("[", "&#91;"),
    ):
        text = text.replace(sign, entity)
    return text


def _commands(_: str, __: str) -> str:
    return "\n\n".join(_command(name, each) for name, each in sorted(_click_app().commands.items()))


def _click_app() -> Any:
    return typer.main.get_command(app)


def _command(name: str, command: Any) -> str:
    summary = re.sub(r"[\b\f]", "", command.help or "").strip()
    parts = [f"### {name}", summary]
    options = [each for each in command.params if not _is_setting(each)]
    if options:
        lines = ["| option | meaning |", "|---|---|"]
        lines += [f"| `{_spelled(each)}` | {_cell(_help(each))} |" for each in options]
        parts.append("\n".join(lines))
    if len(options) < len(command.params):
        parts.append("All [settings](settings.md) of the command are options too.")
    return "\n\n".join(parts)


def _is_setting(parameter: Any) -> bool:
    return (getattr(parameter, "rich_help_panel", None) or "").startswith("Settings")


def _spelled(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return str(parameter.name).upper()
    flag = getattr(parameter, "is_flag", False)
    return " ".join([*parameter.opts, *parameter.secondary_opts, *([] if flag else ["VALUE"])])


def _help(parameter: Any) -> str:
    default = parameter.default
    shown = default not in (None, False, True, ()) and not callable(default)
    return f"{parameter.help or ''} Default: {default}." if shown else parameter.help or ""


def _rest(_: str, markdown: str) -> str:
    named = set(re.findall(r"^::: mixup_hf\.(\w+)$", markdown, re.MULTILINE))
    return "\n\n".join(f"::: mixup_hf.{name}" for name in mixup_hf.__all__ if name not in named)


_RENDER: dict[str, Callable[[str, str], str]] = {
    "settings": _settings,
    "table": lambda kind, _: registry.table(kind),
    "commands": _commands,
    "api": _rest,
}


class ExamplesAreCode(griffe.Extension):
    """Sets the `Example:` sections of docstrings as code, which Google's style takes for prose."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Fence the examples of one docstring."""
        if obj.docstring is not None:
            value = f"{obj.docstring.value}\n"
            obj.docstring.value = _EXAMPLE.sub(_fenced, value).rstrip("\n")


def _fenced(found: re.Match[str]) -> str:
    return f"Example:\n    ```python\n{found[1].rstrip()}\n    ```\n\n"

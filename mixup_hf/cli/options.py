"""Options: one spelling for all commands, and the keys of a config as options of its command."""

from __future__ import annotations

import errno
import inspect
from collections.abc import Callable, Iterable, Sequence, Set
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table
from typer.core import TyperCommand

from mixup_hf import errors
from mixup_hf.config import describe

Aligner = Annotated[str, typer.Option(help="embedded, a folder, or a Hub id.")]
TextColumn = Annotated[str, typer.Option(help="Column that holds the text.")]
LabelColumn = Annotated[str, typer.Option(help="Column that holds the label.")]
ConfigFile = Annotated[
    Path | None, typer.Argument(help="YAML file with settings; options override it.")
]
Keys = Annotated[
    bool,
    typer.Option("--keys", help="List every setting with its type, default and help, and exit."),
]
_PANEL = "Settings"
# Settings that other commands have as plain options keep those names here.
_SHORT = {
    "data.text_column": "--text-column",
    "data.label_column": "--label-column",
    "mixup.aligner": "--aligner",
}


_SWITCH = "[true|false]"
_TRUE_OR_FALSE = {"true", "false", "yes", "no", "on", "off"}


class Command(TyperCommand):
    """A command whose options may also be written with underscores.

    Settings with names of the user's choice are options too: `--training.learning-rate 1e-3`.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Rewrite the words as the parser knows them, then parse."""
        options = [each for each in self.get_params(ctx) if each.opts[0].startswith("--")]
        known = {name for each in options for name in each.opts}
        switches = {
            name
            for each in options
            if getattr(each, "metavar", "") == _SWITCH
            for name in each.opts
        }
        words = list(_as_declared(_with_values(args, switches), known))
        takers = {
            name
            for each in options
            if not (getattr(each, "is_flag", False) or getattr(each, "count", False))
            for name in each.opts
        }
        _require_values(words, takers, known)
        return super().parse_args(ctx, words)

    def invoke(self, ctx: Any) -> Any:
        """Run the command; Ctrl-C is answered with one line, too long a path with an error."""
        try:
            return super().invoke(ctx)
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                raise
            shown = str(error.filename)[:60]
            raise errors.InvalidInput(
                f"The path {shown!r}... is too long for this system. Give a shorter one."
            ) from error
        except KeyboardInterrupt:
            typer.echo("Interrupted.", err=True)
            raise typer.Exit(130) from None


def takes_settings(
    *kinds: type[Any],
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command one option for every setting of a config class.

    The command receives those that were given in its parameter `overrides`, as `--key=value` words
    for `load_config`. Options that the command defines itself are left alone.

    Args:
        kinds: The config classes.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        hints = get_type_hints(command, include_extras=True)
        parameters = dict(inspect.signature(command).parameters)
        del parameters["overrides"]
        keys: dict[str, str] = {}
        for kind in kinds:
            for key in describe(kind):
                name = key.name.replace(".", "__")
                if "[" in key.name or "NAME" in key.name or name in parameters:
                    continue
                keys[name] = key.name
                hints[name] = _option(key, parameters)
                parameters[name] = inspect.Parameter(
                    name, inspect.Parameter.KEYWORD_ONLY, default=None
                )

        @wraps(command)
        def run(**values: Any) -> None:
            given = {keys[name]: values.pop(name) for name in keys}
            command(**values, overrides=list(_words(given)))

        ordered = [
            each.replace(annotation=hints[name], kind=inspect.Parameter.KEYWORD_ONLY)
            for name, each in parameters.items()
        ]
        run.__signature__ = inspect.Signature(ordered)  # type: ignore[attr-defined]
        run.__annotations__ = {each.name: each.annotation for each in ordered}
        return run

    return decorate


def print_settings(console: Console, kind: type[Any]) -> None:
    """Print every setting of a config class: how it is given, its type, default and help."""
    option = Column("option", no_wrap=True)
    table = Table(option, "type", "default", "what it does", title=kind.__name__)
    for key in describe(kind):
        type_ = f"{key.type}, {key.bounds}" if key.bounds else key.type
        default = "required" if key.default is None else key.default
        table.add_row(*map(escape, (spelled(key.name), type_, default, key.help)))
    console.print(table)


def spelled(key: str) -> str:
    """A setting as an option."""
    return "--" + key.replace("_", "-")


def given(context: typer.Context) -> dict[str, Any]:
    """The command's own options that were given on the command line, by their spelling."""
    return {
        each.opts[0]: context.params[each.name]
        for each in context.command.params
        if each.name in context.params
        and not (getattr(each, "rich_help_panel", None) or "").startswith(_PANEL)
        and getattr(context.get_parameter_source(each.name), "name", "") == "COMMANDLINE"
    }


def _option(key: Any, own: Iterable[str]) -> Any:
    """The Typer annotation of a setting."""
    names = [spelled(key.name)]
    if _SHORT.get(key.name, "--")[2:].replace("-", "_") not in {"", *own}:
        names.append(_SHORT[key.name])
    group = key.name.rpartition(".")[0]
    default = "" if key.default is None else f" Default: {key.default}."
    option = typer.Option(
        *names,
        help=f"{key.help}{default}",
        metavar=_SWITCH if key.type == "true or false" else "VALUE",
        show_default=False,
        rich_help_panel=f"{_PANEL}: {group}" if group else _PANEL,
    )
    named = "by name" in key.type  # such settings take keys of the user's choice, each an option
    return Annotated[(list[str] if named else str) | None, option]


def _with_values(words: Sequence[str], switches: Set[str]) -> list[str]:
    """The words of the command line, with `--compare` alone spelled out as `--compare=true`."""
    spelled_out = []
    for at, word in enumerate(words):
        following = words[at + 1] if at + 1 < len(words) else "--"
        alone = word.replace("_", "-") in switches and following.lower() not in _TRUE_OR_FALSE
        spelled_out.append(f"{word}=true" if alone else word)
    return spelled_out


def _as_declared(words: Sequence[str], known: Iterable[str]) -> Iterable[str]:
    """The words of the command line, options spelled as they were declared.

    `--training.optim sgd`, where `--training` is known, becomes `--training=.optim=sgd`.
    """
    known, rest = set(known), list(words)
    while rest:
        word = rest.pop(0)
        if word == "--" or not word.startswith("--"):
            yield word
            continue
        option, equals, value = word.partition("=")
        kebab = option.replace("_", "-")
        if option in known or kebab in known:
            yield (option if option in known else kebab) + equals + value
            continue
        group, key = _group_of(option, known)
        if not group:
            yield word
        elif equals or rest:
            yield f"{group}=.{key}={value if equals else rest.pop(0)}"
        else:
            yield word


def _require_values(words: Sequence[str], takers: Set[str], known: Set[str]) -> None:
    """Raise for `--seed --model x`, where `--model` would be read as the seed."""
    for at, word in enumerate(words[:-1]):
        if word == "--":
            return
        following = words[at + 1].partition("=")[0]
        if word in takers and following in known:
            raise errors.InvalidInput(f"`{word}` needs a value: `{word} VALUE`.")


def _group_of(option: str, known: set[str]) -> tuple[str, str]:
    """`--sets.my-set.dataset` as (`--sets`, `my-set.dataset`), if `--sets` is known."""
    parts = option.split(".")
    for end in range(len(parts) - 1, 0, -1):
        group = ".".join(parts[:end]).replace("_", "-")
        if group in known:
            return group, ".".join(parts[end:])
    return "", ""


def _words(given: dict[str, Any]) -> Iterable[str]:
    """Settings as words for `load_config`."""
    for key, value in given.items():
        if value is None:
            continue
        if isinstance(value, str):
            yield f"--{key}={value}"
            continue
        for each in value:
            yield f"--{key}{each}" if each.startswith(".") else f"--{key}={each}"

"""Declare a command's options as a dataclass, and read them from a command line of `key=value`.

Each field has its type, default, range and help:

    @dataclass(frozen=True)
    class ExportOptions(Options):
        folder: Path = argument("DIR", "the run's folder", missing="name one run's folder")
        format: Literal["torch_export", "onnx"] = option("torch_export", "what programs read")
        out: Path | None = option(None, "where to write", value="FILE")

`read` parses a command line into such an object, and refuses what is unknown or does not fit with the nearest known
one; `localearn.cli.pages` generates `--help` from the same fields, and `localearn.cli.completion` a shell's
completions.
"""

import math
import os
import re
import types
import typing
from collections.abc import Callable, Iterable, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Union, get_args, get_origin

from localearn.errors import UserError, suggestion
from localearn.moved import former_names

_Options = TypeVar("_Options", bound="Options")


@dataclass(frozen=True)
class Range:
    """The range of an option's numbers, and the word for them.

    Args:
        least: The inclusive lower bound, None where `above` or nothing bounds them.
        above: The exclusive lower bound.
        below: The exclusive upper bound.
        unit: What is counted, in the plural.

    """

    least: float | None = None
    above: float | None = None
    below: float = math.inf
    unit: str = "numbers"

    def __contains__(self, number: float) -> bool:
        return (
            (self.least is None or number >= self.least)
            and (self.above is None or number > self.above)
            and number < self.below
        )

    def __str__(self) -> str:
        to = "" if self.below == math.inf else f" below {self.below:g}"
        if self.least is not None:
            return f"{self.unit} from {self.least:g} to{to}" if to else f"{self.unit} of {self.least:g} or more"
        start = f"{self.unit} above {self.above:g}"
        return f"{start} and{to}" if to else start


@dataclass(frozen=True)
class Spec:
    """The description of an option, in addition to its name, type and default, which the dataclass's field has.

    Args:
        help: Its text in `--help`.
        value: The placeholder after the equals sign there, by default its default.
        range: The range of a number, or of each in a list.
        missing: The error message where it is required and not given.
        flag: The names of an option written --name; with a value after it unless it is true or false.
        place: "key" (key=value), "argument" (by position) or "rest" (keys of localearn.run, as they were typed).
        empty: Whether a text may be empty.
        many: For an argument, whether several may be given.
        folder: Whether it is the path of a folder in which the command writes.

    """

    help: str
    value: str | None = None
    range: Range | None = None
    missing: str = ""
    flag: tuple[str, ...] = ()
    place: Literal["key", "argument", "rest"] = "key"
    empty: bool = False
    many: bool = False
    folder: bool = False


def option(default: Any = MISSING, help: str = "", **spec: Any) -> Any:
    """Return a dataclass's field for an option `key=value`.

    Args:
        default: Its value where it is not given; without a default it is required.
        help: Its text in `--help`.
        spec: The other fields of `Spec`.

    """
    return field(default=default, kw_only=True, metadata={"spec": Spec(help, **spec)})


def argument(value: str, help: str, *, missing: str, many: bool = False) -> Any:
    """Return a dataclass's field for a positional argument: one path, or a tuple of `many`.

    Args:
        value: Its placeholder in `--help`.
        help: Its text there.
        missing: The error message where it is not given.
        many: Whether several may be given.

    """
    return field(kw_only=True, metadata={"spec": Spec(help, value, missing=missing, place="argument", many=many)})


def run_keys(help: str) -> Any:
    """Return a dataclass's field for the keys of localearn.run, which a command passes on to its runs."""
    return field(kw_only=True, default_factory=list, metadata={"spec": Spec(help, "VALUE", place="rest")})


@dataclass(frozen=True)
class Options:
    """Base class of a command's options; a subclass declares them."""

    debug: bool = option(False, "show the traceback of an error", value="true")


@dataclass(frozen=True)
class RunningOptions(Options):
    """Base class of the options of a command that starts runs: it passes on the keys of localearn.run."""

    config_dir: str | None = option(
        None,
        "your own yaml files: DIR/algo/my_rule.yaml becomes algo=my_rule",
        value="DIR",
        flag=("--config-dir", "-cd"),
    )


@dataclass(frozen=True)
class Command:
    """A command: its name, its options, and the text of its help page.

    Args:
        name: Its name in `localearn NAME`.
        summary: One line.
        options: The class of its options, a dataclass.
        about: The paragraphs before the options on its help page.
        more: Those after them, or a function that makes them when the page is shown.
        groups: Whether the page lists the choices of algo, dataset, net, optim and schedule.
        bare: Whether it runs without arguments; otherwise it shows its help page.
        usage: The page's first line, where it is not generated from the options.

    """

    name: str
    summary: str
    options: type[Options]
    about: str
    more: str | Callable[[], str] = ""
    groups: bool = False
    bare: bool = False
    usage: str | None = None

    @property
    def line(self) -> str:
        """Return the command line that starts it."""
        return f"localearn {self.name}"


def spec_of(declared: "Field[Any]") -> Spec:
    """Return the description of an option that its field has."""
    return declared.metadata["spec"]


def options_of(kind: type[Options], place: str = "key") -> dict[str, "Field[Any]"]:
    """Return an option set's fields by their names, the inherited ones last.

    Args:
        kind: The class of the options.
        place: The place of the fields to return, see `Spec`.

    """
    inherited = {declared.name for base in kind.__mro__[1:] if base is not object for declared in fields(base)}
    ordered = sorted(fields(kind), key=lambda declared: declared.name in inherited)
    return {declared.name: declared for declared in ordered if spec_of(declared).place == place}


def read(kind: type[_Options], arguments: Sequence[str]) -> _Options:
    """Read the options from a command line; of a key that was given twice, the last counts.

    An argument with `=` is an option unless the command has none of that name and a folder has exactly that name.

    Args:
        kind: The class of the options.
        arguments: Those of the command line.

    Returns:
        An object of that class.

    Raises:
        UserError: For an option that is unknown, missing, or has a value that does not fit.

    """
    keys, rest = options_of(kind), options_of(kind, "rest")
    positional = options_of(kind, "argument")
    flags = {flag: name for name, declared in keys.items() for flag in spec_of(declared).flag}
    named = [name for name, declared in keys.items() if not spec_of(declared).flag]
    hints = typing.get_type_hints(kind)
    given: dict[str, Any] = {}
    placed: list[str] = []
    overrides: list[str] = []
    left = list(arguments)
    while left:
        word = left.pop(0)
        name, equals, value = word.partition("=")
        if name in flags:
            name = flags[name]
            if hints[name] is bool:
                value = "true"
            elif not equals:
                if not left:
                    raise UserError(f"{word} needs a value")
                value = left.pop(0)
            given[name] = convert(name, value, hints[name], spec_of(keys[name]))
        elif name in named and equals:
            given[name] = convert(name, value, hints[name], spec_of(keys[name]))
        elif rest and equals and not word.startswith("--"):
            _refuse_unknown_key(name, named)
            overrides.append(word)
        elif word.startswith("-") or not positional or (equals and not Path(word).expanduser().exists()):
            raise UserError(_unknown(word, named, list(flags), bool(positional)))
        else:
            placed.append(word)
    for name, declared in positional.items():
        given[name] = _placed(placed, spec_of(declared))
    for name in rest:
        given[name] = overrides
    for name, declared in keys.items():
        if declared.default is MISSING and name not in given:
            raise UserError(spec_of(declared).missing)
    return kind(**given)


def _placed(words: Sequence[str], spec: Spec) -> Any:
    if not words or (len(words) > 1 and not spec.many):
        raise UserError(spec.missing)
    return tuple(words) if spec.many else Path(words[0]).expanduser()


def _unknown(word: str, names: Iterable[str], flags: Sequence[str], positional: bool) -> str:
    name, equals, _ = word.partition("=")
    known = [*names, *flags]
    near = suggestion(name if name in flags or (name.startswith("--") and flags) else name.lstrip("-"), known)
    if not equals and not positional and not word.startswith("-"):
        return f"cannot read {word!r}{near}; write key=value, say {known[0]}=VALUE; --help lists them all"
    return f"unknown argument {word!r}{near}; --help lists them all"


def _refuse_unknown_key(name: str, own: Iterable[str]) -> None:
    """Raise UserError for a key that localearn.run does not have and whose nearest one is the command's own."""
    if not name.isidentifier():  # group.option, ALGO:key=value, +key
        return
    known = config_keys()
    near = suggestion(name, [*own, *known])
    if name not in known and near and near != suggestion(name, known):
        raise UserError(f"no option {name!r}{near}; --help lists them all")


def config_keys() -> list[str]:
    """Return the keys and the groups at the top of the configuration of a run."""
    from localearn.defaults import CONF
    from localearn.files import read_yaml

    top: Any = read_yaml(CONF / "config.yaml")
    groups = [path.name for path in CONF.iterdir() if path.is_dir()]
    return [*groups, *(name for name in top if name not in ("defaults", "hydra")), "config", "trust"]


def convert(name: str, text: str, hint: Any, spec: Spec) -> Any:
    """Convert an option's text to its type.

    Args:
        name: The option's name, for the error message.
        text: What was typed.
        hint: The annotated type.
        spec: The option's description, whose range holds.

    Raises:
        UserError: Where the text does not fit.

    """
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        if text == "null" and type(None) in inner:
            return None
        hint = next(part for part in inner if part is not type(None))
        origin, inner = get_origin(hint), get_args(hint)
    if origin is Literal:
        return choice(name, text, inner)
    if origin is Sequence:
        return [_element(name, word, inner[0], spec) for word in listed(text)]
    if origin is tuple:  # a shape, in which a number may occur twice
        return tuple(_element(name, word, inner[0], spec) for word in text.strip("[]()").split(","))
    return _element(name, text, hint, spec)


def _element(name: str, text: str, hint: Any, spec: Spec) -> Any:
    if get_origin(hint) is Literal:
        return choice(name, text, get_args(hint))
    if hint is bool:
        return truth(name, text)
    if hint is int:
        return whole(name, text, int(spec.range.least or 0) if spec.range else 1)
    if hint is float:
        return number(name, text, spec.range or Range(least=-math.inf))
    if not text and not spec.empty:
        raise UserError(f"{name}= needs a value")
    if spec.folder and os.path.lexists(path := Path(text).expanduser()) and not path.is_dir():
        raise UserError(f"{name}={text} is no folder; name one, which is made where there is none")
    return Path(text).expanduser() if hint is Path else text


def choice(name: str, text: str, choices: Sequence[str]) -> str:
    """Return a text that must be one of some choices.

    Args:
        name: The option's name, for the error message.
        text: What was typed.
        choices: The texts that are allowed.

    Raises:
        UserError: Where it is none of them, with the nearest one.

    """
    if text not in choices:
        accepted = f"{', '.join(choices[:-1])} or {choices[-1]}" if len(choices) > 1 else choices[0]
        raise UserError(f"{name} is {accepted}, not {text!r}{suggestion(text, choices)}")
    return text


def listed(text: str) -> list[str]:
    """Split `[a,b,c]` or `a,b,c` into its names.

    Raises:
        UserError: For an empty name, or one that was given twice.

    """
    names = [name.strip() for name in text.strip().removeprefix("[").removesuffix("]").split(",")]
    if not all(names):
        raise UserError(f"cannot read the list {text!r}; write it as [a,b,c]")
    doubled = [name for i, name in enumerate(names) if name in names[:i]]
    if doubled:
        raise UserError(f"{doubled[0]!r} stands twice in {text!r}")
    return names


def whole(name: str, text: str, least: int = 1) -> int:
    """Convert a text to a whole number.

    Args:
        name: The option's name, for the error message.
        text: What was typed.
        least: The least number allowed.

    Raises:
        UserError: For anything else.

    """
    if not re.fullmatch(r"[0-9]+", text) or int(text) < least:
        raise UserError(f"{name} takes whole numbers of {least} or more, not {text!r}")
    return int(text)


def number(name: str, text: str, among: Range) -> float:
    """Convert a text to a finite number.

    Args:
        name: The option's name, for the error message.
        text: What was typed.
        among: The range that it must be in.

    Raises:
        UserError: For anything else.

    """
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value not in among:
        raise UserError(f"{name} takes {among}, not {text!r}")
    return value


def truth(name: str, text: str) -> bool:
    """Convert `true` or `false` to a truth value.

    Args:
        name: The option's name, for the error message.
        text: What was typed.

    Raises:
        UserError: For anything else.

    """
    if text.lower() not in ("true", "false"):
        raise UserError(f"{name} is true or false, not {text!r}")
    return text.lower() == "true"


def refuse_fixed(overrides: Iterable[str], fixed: Iterable[str], why: str) -> None:
    """Check that overrides do not set keys of localearn.run that a command sets itself.

    Args:
        overrides: As typed on the command line.
        fixed: The keys.
        why: The reason, for the error message.

    Raises:
        UserError: Where one does.

    """
    for override in overrides:
        name = override.partition("=")[0]
        if name in fixed:
            raise UserError(f"{name}= is set by {why}")


def refuse_other_rules(overrides: Iterable[str], algos: Sequence[str], given: str) -> None:
    """Check that each override `ALGO:key=value` names one of the rules of the command.

    Args:
        overrides: As typed on the command line.
        algos: The names of the rules.
        given: The option that lists them, for the error message.

    Raises:
        UserError: Where one names another rule.

    """
    for override in overrides:
        algo, colon, _ = override.partition("=")[0].partition(":")
        if colon and algo not in algos:
            raise UserError(f"{override}: {algo!r} is not among {given}{suggestion(algo, algos)}")


if not TYPE_CHECKING:  # which would find every name here
    __getattr__ = former_names(__name__)

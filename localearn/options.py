"""Check options against a signature before it is called: their names, and their types by its annotations."""

import collections.abc
import functools
import inspect
import json
import math
import types
import typing
from collections.abc import Callable, Collection, Iterable, Mapping
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Literal, ParamSpec, TypeVar, Union, get_args, get_origin

from localearn.errors import UserError, suggestion

_Options = ParamSpec("_Options")
_Result = TypeVar("_Result")

_ABSTRACT = {name: getattr(collections.abc, name) for name in collections.abc.__all__}
_NAMED = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    Path: "a path",
    type(None): "null",
}


def check_call(
    what: str, target: Callable[..., Any], options: Mapping[str, Any], supplied: Collection[str] = ()
) -> None:
    """Check that `target(**options)` can be called.

    Args:
        what: The prefix of option names in error messages: "algo" makes algo.tangents of tangents, "" adds none.
        target: The class or function. Parameters that are not annotated are not checked.
        options: The options by name.
        supplied: The names of arguments that the caller passes itself.

    Raises:
        UserError: For an unknown name, with the nearest known one, for a missing one, and for a value that does not fit
            its annotation.

    """
    prefix = f"{what}." if what else ""
    parameters = parameters_of(target)
    named = {n: p for n, p in parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    known = [name for name in named if name not in supplied]
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    for name in options:
        if name not in known and not takes_any:
            own = f"it has {', '.join(known)}" if known else "it has none"
            raise UserError(f"{_title(target)} has no option {prefix}{name}{suggestion(str(name), known)}; {own}")
    for name in known:
        if named[name].default is inspect.Parameter.empty and name not in options:
            raise UserError(f"{prefix}{name} is missing; give {prefix}{name}=...")
    check_types(options, annotations(target), prefix=prefix)


def parameters_of(target: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    """Return the parameters of a class or a function; for a built-in without a signature, any."""
    try:
        return inspect.signature(target).parameters
    except ValueError:
        return inspect.signature(lambda *arguments, **options: None).parameters


def checked(init: Callable[..., None]) -> Callable[..., None]:
    """Return a constructor that first checks its options, all but the first argument, as `check_call` does."""
    parameters = inspect.signature(init).parameters.values()
    ordered = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    first = ordered[:2]  # self, and the argument that the options belong to

    @functools.wraps(init)
    def checking(self: object, *arguments: Any, **options: Any) -> None:
        passed = dict(zip(ordered[1:], arguments, strict=False)) | options
        check_call("", init, {name: value for name, value in passed.items() if name not in first}, first)
        init(self, *arguments, **options)

    return checking


def checked_call(function: Callable[_Options, _Result]) -> Callable[_Options, _Result]:
    """Return a function that first checks its arguments, as `check_call` does."""
    signature = inspect.signature(function)

    @functools.wraps(function)
    def checking(*arguments: _Options.args, **options: _Options.kwargs) -> _Result:
        passed = signature.bind_partial(*arguments).arguments | options
        check_call("", function, passed)
        return function(*arguments, **options)

    return checking


def check_types(values: Mapping[str, Any], hints: Mapping[str, Any], prefix: str = "") -> None:
    """Check that values fit their types; numbers must be finite.

    Args:
        values: The values by name.
        hints: The types by name; a name without one is not checked.
        prefix: Precedes names in error messages.

    Raises:
        UserError: For a value that does not fit, naming the option.

    """
    for name, value in values.items():
        hint = hints.get(name, Any)
        if not fits(value, hint):
            choices = [str(choice) for part in _alternatives(hint) for choice in get_args(part) if _is_literal(part)]
            text = json.dumps(value) if value is None or isinstance(value, bool) else repr(value)
            near = suggestion(str(value), choices)
            if prefix and not near and isinstance(value, bool | int | float) and fits(str(value), hint):
                near = f"; for a text that looks like one quote it twice, {prefix}{name}=\"'{str(value).lower()}'\""
            raise UserError(f"{prefix}{name} must be {in_words(hint)}, not {text}{near}")


def annotations(target: Callable[..., Any]) -> dict[str, Any]:
    """Return the annotated types of a class's or a function's parameters, empty where they cannot be resolved."""
    try:
        # The local names resolve annotations whose own module imports them for type checkers only, as torch's do.
        return typing.get_type_hints(target.__init__ if inspect.isclass(target) else target, localns=_ABSTRACT)
    except (NameError, AttributeError, TypeError):
        return {}


def fits(value: Any, hint: Any) -> bool:
    """Return whether a value is of an annotated type.

    Args:
        value: The value. A float may be a whole number, a number may not be a bool, and numbers must be finite.
        hint: The type: a class, a union, a Literal, a tuple, a mapping or another iterable, a Callable or Any.

    """
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return any(fits(value, part) for part in arguments)
    if origin is Literal:
        return any(value == choice and type(value) is type(choice) for choice in arguments)
    if hint is int:  # numpy's whole numbers are Integral and its floats Real, without being Python's
        return isinstance(value, Integral) and not isinstance(value, bool)
    if hint is float:
        return isinstance(value, Real) and not isinstance(value, bool) and _is_finite(value)
    if hint is Path:
        return isinstance(value, str | Path)
    if origin is tuple:
        return isinstance(value, list | tuple) and _elements_fit(value, arguments)
    if inspect.isclass(origin) and issubclass(origin, Mapping):
        return isinstance(value, Mapping)
    if inspect.isclass(origin) and issubclass(origin, Iterable):
        return isinstance(value, list | tuple) and all(fits(element, *arguments[:1] or [Any]) for element in value)
    if hint is Callable or (inspect.isclass(origin) and issubclass(origin, Callable)):
        return callable(value)
    return hint is Any or not inspect.isclass(hint) or isinstance(value, hint)


def in_words(hint: Any) -> str:
    """Return an annotated type as error messages name it, such as "a whole number or null"."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        descriptions = list(dict.fromkeys(in_words(part) for part in arguments))
        return " or ".join([word for word in descriptions if word != "something else"] or descriptions)
    if origin is Literal:
        *others, last = [str(choice) for choice in arguments]
        return f"{', '.join(others)} or {last}" if others else last
    if origin is tuple and Ellipsis not in arguments:
        return f"a list of {len(arguments)}: {', '.join(in_words(part) for part in arguments)}"
    if inspect.isclass(origin) and issubclass(origin, Mapping):
        return "a mapping"
    if inspect.isclass(origin) and issubclass(origin, Iterable):
        of = {"a whole number": " of whole numbers", "a number": " of numbers", "text": " of texts"}
        return f"a list{of.get(in_words(arguments[0]), '')}" if arguments else "a list"
    if inspect.isclass(origin) and issubclass(origin, Callable):
        return "a callable"
    return _NAMED.get(hint, "something else")


def _title(target: Callable[..., Any]) -> str:
    """Return the name of a class, of the class of a constructor, or of a function."""
    return getattr(target, "__qualname__", str(target)).removesuffix(".__init__").rpartition(".")[2]


def _is_finite(value: Real) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number that is too large for a float
        return False


def _elements_fit(values: list[Any] | tuple[Any, ...], hints: tuple[Any, ...]) -> bool:
    if len(hints) == 2 and hints[1] is Ellipsis:
        return all(fits(value, hints[0]) for value in values)
    return len(values) == len(hints) and all(fits(v, h) for v, h in zip(values, hints, strict=True))


def _alternatives(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def _is_literal(hint: Any) -> bool:
    return get_origin(hint) is Literal

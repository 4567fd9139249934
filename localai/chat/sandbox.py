"""Where the chat templates of model files run: nothing outside can be reached, and nothing can grow.

Jinja's immutable sandbox keeps a template from the interpreter, but lets it loop for hours, multiply strings
to gigabytes and nest lists until to compare two of them never ends. Here it works on plain data with a short
list of functions, methods and filters. Whatever makes data larger is weighed before or when it is made. Each
statement, call, comparison, test and item of a filter counts as a step, or as many as fit its size, and the
clock is looked at with each of them: no single operation can be long.
That needs no signal and no thread, so it holds wherever a template runs.

What a template can't do raises TemplateError, or another of `TEMPLATE_FAILURES`.
"""

from __future__ import annotations

import datetime
import functools
import operator
import re
import time
import types
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, NoReturn

from jinja2 import Template, TemplateError, nodes
from jinja2.exceptions import SecurityError
from jinja2.filters import ignore_case, make_attrgetter
from jinja2.runtime import BlockReference, Context, LoopContext, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from localai.chat.sizes import (
    CHECKS,
    ITEM,
    MAX_WEIGHT,
    LimitExceeded,
    bounded,
    check_numbers,
    check_power,
    check_product,
    check_replacing,
    check_search,
    effort,
    effort_of_keys,
    formatted,
    weight,
)

TIME_LIMIT_S: Final = 4.0
MAX_STEPS: Final = 2_000_000
"""Statements, calls and comparisons of one run. A conversation of 1,000 messages takes about 30,000."""
MAX_MADE: Final = 64 << 20
"""The weight of everything that one run makes; its memory is at most about four times that in bytes."""
MAX_RANGE: Final = 10_000

TEMPLATE_FAILURES: Final = (
    TemplateError,
    TypeError,
    ValueError,
    ArithmeticError,
    LookupError,
    AttributeError,
    RecursionError,
    MemoryError,
    SyntaxError,
)
"""What a template that is merely wrong, or malicious, can make the interpreter raise."""


_words = re.compile(r"\w+").findall

_TEXT_METHODS: Final = frozenset(
    _words(
        "capitalize casefold count endswith find format format_map index isalnum isalpha isdecimal isdigit "
        "islower isspace istitle isupper join lower lstrip partition removeprefix removesuffix replace rfind "
        "rindex rpartition rsplit rstrip split splitlines startswith strip swapcase title upper"
    )
)
_METHODS: Final[tuple[tuple[type, frozenset[str]], ...]] = (
    (str, _TEXT_METHODS),
    (dict, frozenset({"get", "items", "keys", "values"})),
    (list, frozenset({"count", "index"})),
    (tuple, frozenset({"count", "index"})),
    (LoopContext, frozenset({"changed", "cycle"})),
)
_SEARCHES: Final = frozenset(_words("lstrip rfind rindex rpartition rsplit rstrip strip"))
_COMPARISONS: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "eq": operator.eq,
    "ne": operator.ne,
    "gt": operator.gt,
    "gteq": operator.ge,
    "lt": operator.lt,
    "lteq": operator.le,
    "in": lambda left, right: left in right,
    "notin": lambda left, right: left not in right,
}
"""By their names in Jinja's syntax tree."""
_FILTERS: Final = _words(
    "abs capitalize count d default dictsort e escape first float indent int items join last length list "
    "lower map max min reject rejectattr replace reverse safe select selectattr sort string title tojson "
    "trim unique upper"
)


class Sandbox(ImmutableSandboxedEnvironment):
    """Compiles and runs templates, one at a time."""

    intercepted_binops = frozenset({"+", "-", "*", "/", "//", "**", "%"})

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=["jinja2.ext.loopcontrols"],
            finalize=self.shown,
            optimized=False,
        )
        self._functions = (_range, _strftime, _raise, Namespace, dict)
        names = ("range", "strftime_now", "raise_exception", "namespace", "dict")
        self.globals = dict(zip(names, self._functions, strict=True))
        self.filters = {name: self._guarded(name, self.filters[name]) for name in _FILTERS}
        tests: dict[str, Any] = dict(self.tests)
        self.tests = {name: self._counted(plain) for name, plain in tests.items()}
        self._begin()

    def _begin(self) -> None:
        self._steps, self._made = 0, 0
        self._deadline = time.monotonic() + TIME_LIMIT_S

    def compiled(self, source: str) -> Template:
        """The template in `source`, with its limits built in."""
        self._begin()
        tree = self.parse(source)
        _limit(tree)
        return self.from_string(tree)

    def run(self, template: Template, **values: Any) -> str:
        """What `template`, from `compiled`, makes of `values`, which are plain data."""
        self._begin()
        return self.concat(template.root_render_func(template.new_context(values)))

    # ------------------------------------------------------------------------ called by compiled templates

    def step(self, count: int = 1) -> str:
        """So many statements begin."""
        self._steps += count
        if self._steps > MAX_STEPS:
            raise LimitExceeded(f"it takes more than {MAX_STEPS:,} steps")
        if time.monotonic() > self._deadline:
            raise LimitExceeded(f"it ran for more than {TIME_LIMIT_S:g} s")
        return ""

    def concat(self, pieces: Iterable[str]) -> str:
        """The pieces, one after the other."""
        kept, size = [], 0
        for piece in pieces:
            kept.append(piece)
            size += len(piece)
            bounded(size)
        text = "".join(kept)
        self.made(text)
        return text

    def joined(self, *values: Any) -> str:
        """The values as one text."""
        return self.concat(self.shown(value) for value in values)

    def cut(self, value: Any, start: Any, stop: Any, step: Any) -> Any:
        """A part of a text or list."""
        part = value[start:stop:step]
        self._spend(len(part) * (1 if isinstance(part, str) else ITEM))
        return part

    def compared(self, left: Any, *rest: Any) -> Any:
        """The comparisons `left`, operator, right, operator, further right, as far as they are true.

        Unlike in plain Jinja, those further right are worked out in any case.
        """
        found: Any = True
        for name, right in zip(rest[::2], rest[1::2], strict=True):
            self.step(1 + effort(left, right))
            found = _COMPARISONS[name](left, right)
            if not found:
                break
            left = right
        return found

    def dictionary(self, *parts: Any) -> Any:
        """Of keys and values in turn."""
        keys, values = parts[::2], parts[1::2]
        self.step(effort_of_keys(keys))
        return self.made(dict(zip(keys, values, strict=True)))

    def getitem(self, obj: Any, argument: Any) -> Any:
        """A part of something; filters ask for as many, one in the other, as there are dots in a text."""
        self.step()
        return super().getitem(obj, argument)

    def made(self, value: Any) -> Any:
        """`value`, a new one, if it is not too large and all its parts are plain data."""
        self._spend(weight(value))
        return value

    def _spend(self, amount: int) -> None:
        self._made += amount
        if self._made > MAX_MADE:
            raise LimitExceeded("it makes too much data")

    def shown(self, value: Any) -> str:
        """`value` as text."""
        self.step()
        if isinstance(value, str):
            return value
        weight(value)
        return str(value)

    # ---------------------------------------------------------------------------------- operators and calls

    def call_binop(self, context: Context, sign: str, left: Any, right: Any) -> Any:
        """The operators that can make something larger."""
        self.step()
        if sign == "%" and isinstance(left, str):
            return self.made(formatted(left, right, lambda: left % right))
        if sign == "**":
            check_power(left, right)
        elif sign == "*":
            check_product(left, right)
        elif sign == "+" and isinstance(left, str) and isinstance(right, str):
            bounded(len(left) + len(right))
        elif sign in ("-", "/", "//"):
            check_numbers(left, right)
        return self.made(super().call_binop(context, sign, left, right))

    def call(self, context: Context, called: Any, /, *args: Any, **kwargs: Any) -> Any:
        """A call in a template: of its own macros, or of the few things that are let in."""
        self.step()
        if isinstance(called, types.MethodType) and called.__self__ is self:  # put there by `_limit`
            return called(*args)
        if isinstance(called, Macro):
            if called.catch_varargs or called.catch_kwargs:
                weight([args, {key: value for key, value in kwargs.items() if not key.startswith("_")}])
            return context.call(called, *args, **kwargs)
        if isinstance(called, LoopContext | BlockReference):
            return context.call(called, *args, **kwargs)
        kwargs = {key: value for key, value in kwargs.items() if not key.startswith("_")}
        if any(called is function for function in self._functions):
            if called is Namespace or called is dict:
                self._check_pairs(*args)
            found = called(*args, **kwargs)
            return found if called is Namespace else self.made(found)
        return self._method(called)(*args, **kwargs)

    def _check_pairs(self, pairs: Any = (), *_: Any) -> None:
        """Count what to make a dictionary of these takes."""
        if isinstance(pairs, LoopContext):  # which to look at is to use up
            raise TypeError("it makes a dictionary of a loop")
        if not isinstance(pairs, dict):
            self.step(
                effort_of_keys(pair[0] if pair and isinstance(pair, list | tuple) else 0 for pair in pairs)
            )

    def _method(self, called: Any) -> Callable[..., Any]:
        """`called` with its limits, if it is one of `_METHODS`."""
        owner, name = getattr(called, "__self__", None), getattr(called, "__name__", "")
        known = any(isinstance(owner, kind) and name in names for kind, names in _METHODS)
        if not known or not isinstance(called, types.MethodType | types.BuiltinMethodType):
            raise SecurityError(f"it calls something that templates may not: {name or type(called).__name__}")

        # Jinja's own guard of str.format, whose fields could otherwise reach any attribute.
        format_ = super().wrap_str_format(called) or _raise

        def method(*args: Any, **kwargs: Any) -> Any:
            if name == "join":
                return self._join(args[0], owner)
            if name in ("format", "format_map"):
                return self.made(formatted(str(owner), [args, kwargs], lambda: format_(*args, **kwargs)))
            if name == "replace":
                check_replacing(owner, *args[:2])
            if name in _SEARCHES:
                check_search(owner, *args, *kwargs.values())
            found = called(*args, **kwargs)
            return found if isinstance(owner, LoopContext | dict) else self.made(found)

        return method

    def wrap_str_format(self, value: Any) -> None:
        """Nothing at access: `call` sees to it."""

    def _join(self, values: Iterable[Any], between: Any) -> str:
        separator, pieces = self.shown(between), []
        for value in values:
            pieces += [separator, self.shown(value)]
        return self.concat(pieces[1:])

    # --------------------------------------------------------------------------------------------- filters

    def _guarded(self, name: str, plain: Callable[..., Any]) -> Callable[..., Any]:
        """A filter that counts as a step, whose result is weighed, and that is never lazy."""
        if name == "join":
            return lambda value, d="", attribute=None: self._join_of(value, d, attribute)
        if name == "unique":
            plain = self._unique
        check = CHECKS.get(name)

        @functools.wraps(plain)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            self.step()
            given = args[1:] if hasattr(plain, "jinja_pass_arg") else args
            if any(isinstance(value, Namespace) for value in (*given, *kwargs.values())):
                raise SecurityError(f"the filter {name} gets a namespace")
            if check is not None:
                check(*given, **kwargs)
            found = plain(*args, **kwargs)
            return self.made(self._collected(found) if isinstance(found, Iterator) else found)

        return guarded

    def _join_of(self, value: Any, between: Any, attribute: Any) -> str:
        self.step()
        if attribute is not None:
            value = [self.getitem(item, attribute) for item in value]
        return self._join(value, between)

    def _unique(
        self, values: Iterable[Any], case_sensitive: bool = False, attribute: Any = None
    ) -> Iterator[Any]:
        """Jinja's filter, except that what can be chosen to collide with all that was seen is counted so."""
        key_of = make_attrgetter(self, attribute, postprocess=None if case_sensitive else ignore_case)
        seen: set[Any] = set()
        for value in values:
            key = key_of(value)
            self.step(1 if isinstance(key, str) else 1 + len(seen))
            if key not in seen:
                seen.add(key)
                yield value

    def _counted(self, plain: Callable[..., Any]) -> Callable[..., Any]:
        """A test that counts as the steps it takes, also where a filter applies it to each item."""

        @functools.wraps(plain)
        def counted(*args: Any, **kwargs: Any) -> Any:
            self.step(1 + effort(*args, *kwargs.values()))
            return plain(*args, **kwargs)

        return counted

    def _collected(self, values: Iterable[Any]) -> list[Any]:
        """All of them; what comes from a generator is weighed as it comes."""
        kept, total = [], 0
        for value in values:
            self.step()
            kept.append(value)
            total += weight(value)
            bounded(total, MAX_WEIGHT)
        return kept


def _limit(tree: nodes.Node) -> None:
    """Put calls of the sandbox's own methods where Jinja would run without asking anybody.

    From the leaves up: what is put around a node has it as it is to be.
    """
    for node in reversed([tree, *tree.find_all(nodes.Node)]):
        for field, value in node.iter_fields():
            if isinstance(value, nodes.Node):
                setattr(node, field, _limited(value))
            elif isinstance(value, list):
                value[:] = [_limited(item) if isinstance(item, nodes.Node) else item for item in value]
                if value and field in ("body", "else_"):
                    value.insert(0, nodes.ExprStmt(_call("step", nodes.Const(len(value)), line=node.lineno)))
        if isinstance(node, nodes.For) and node.test is not None:
            node.test = nodes.Or(_call("step", line=node.lineno), node.test, lineno=node.lineno)


def _limited(node: nodes.Node) -> nodes.Node:
    if isinstance(node, nodes.Concat):
        return _call("joined", *node.nodes, line=node.lineno)
    if isinstance(node, nodes.Compare):
        rest = [part for operand in node.ops for part in (nodes.Const(operand.op), operand.expr)]
        return _call("compared", node.expr, *rest, line=node.lineno)
    if isinstance(node, nodes.Dict):
        parts = [part for pair in node.items for part in (pair.key, pair.value)]
        return _call("dictionary", *parts, line=node.lineno)
    if isinstance(node, nodes.List) or (isinstance(node, nodes.Tuple) and node.ctx == "load"):
        return _call("made", node, line=node.lineno)
    if isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Slice):
        part = node.arg
        ends = [end or nodes.Const(None) for end in (part.start, part.stop, part.step)]
        return _call("cut", node.node, *ends, line=node.lineno)
    return node


def _call(name: str, *args: nodes.Expr, line: int) -> nodes.Call:
    call = nodes.Call(nodes.EnvironmentAttribute(name), list(args), [], None, None)
    for node in (call, call.node, *args):
        node.lineno = node.lineno or line
    return call


# ------------------------------------------------------------------------------------------------ functions


def _range(*ends: int) -> range:
    found = range(*ends)
    if len(found) > MAX_RANGE:
        raise LimitExceeded(f"it counts further than {MAX_RANGE:,}")
    return found


def _strftime(form: str) -> str:
    bounded(len(form), 100)
    return datetime.datetime.now().strftime(form)


def _raise(message: object) -> NoReturn:
    raise TemplateError(str(message))

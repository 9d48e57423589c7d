"""Reads in a module's source how often its forward pass applies one of its activations."""

import ast
import inspect
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from types import FunctionType
from typing import Any

from torch import Tensor, nn

FUNCTIONS = frozenset(
    name + ending
    for name in (
        *('relu', 'relu6', 'leaky_relu', 'prelu', 'rrelu', 'elu', 'celu', 'selu'),
        *('gelu', 'silu', 'mish', 'hardswish'),
    )
    for ending in ('', '_')
)
_REPEATING = frozenset(('multi_apply', 'map'))
_BUILTINS = dict(range=range, len=len, enumerate=enumerate, zip=zip, reversed=reversed)
_CONSTANT_NODES = (
    *(ast.Attribute, ast.Name, ast.Constant, ast.Call, ast.Compare, ast.BoolOp, ast.UnaryOp),
    *(ast.BinOp, ast.expr_context, ast.operator, ast.unaryop, ast.cmpop, ast.boolop),
)


@dataclass(frozen=True)
class Calls:
    """How often one forward pass calls an activation.

    Attributes:
        number: Calls in a row, each at a place of its own.
        repeated: Whether that row is run through again and again, as by a loop over feature levels.
    """

    number: int
    repeated: bool = False


_NONE, _ONE = Calls(0), Calls(1)


class _CannotTellError(Exception):
    """The number of calls depends on what only the forward pass knows."""


def count_calls(module: nn.Module, name: str) -> Calls | None:
    """Count the calls ``self.<name>(...)`` in one forward pass of a module.

    Methods and inner functions are followed. A condition, or the length of a loop, is decided
    where it depends on attributes of the module alone: ``if self.deep_stem``,
    ``for fc in self.shared_fcs``, ``range(1, self.scales - 1)``.

    Args:
        module: Module whose ``forward`` is read.
        name: Name of the attribute that is called.

    Returns:
        The calls, or None where their number cannot be told.
    """
    if 'forward' in vars(module):
        return None  # wrapped, by somebody whose source says nothing about this module
    try:
        return _Counter(module, name).method('forward')
    except _CannotTellError:
        return None


def is_used(module: nn.Module, name: str) -> bool:
    """Tell whether any method of a module reads ``self.<name>``.

    Args:
        module: Module whose methods are read, conditions decided as in :func:`count_calls`.
        name: Name of the attribute.
    """
    return any(
        _own_attribute(node) == name
        for _, function, nodes in _live_methods(module, name)
        if function.__name__ != '__init__'
        for node in nodes
    )


def function_calls(module: nn.Module) -> list[str]:
    """List the methods of a module that call an activation as a function, such as ``F.relu``.

    Args:
        module: Module whose methods are read; those that torch itself defines are not.

    Returns:
        A text for each call that is found: ``'F.relu in RPNHead.forward_single'``.
    """
    return [
        f'{ast.unparse(node.func)} in {owner.__name__}.{function.__name__}'
        for owner, function, nodes in _live_methods(module)
        if owner.__module__.partition('.')[0] != 'torch'
        for node in nodes
        if isinstance(node, ast.Call) and _is_activation_function(node.func)
    ]


def _is_activation_function(func: ast.expr) -> bool:
    if isinstance(func, ast.Name):
        return func.id in FUNCTIONS
    if not isinstance(func, ast.Attribute) or func.attr not in FUNCTIONS:
        return False
    root: ast.expr = func
    while isinstance(root, ast.Attribute):
        root = root.value
    # `self.relu` and `self.block.relu` are modules.
    return not (isinstance(root, ast.Name) and root.id == 'self')


class _Counter:
    def __init__(self, module: nn.Module, name: str) -> None:
        self._module, self._name = module, name
        self._active: list[FunctionType] = []
        self._owner: type = type(module)
        self._inner: dict[str, list[ast.stmt]] = {}

    def method(self, name: str, after: type | None = None) -> Calls:
        """Count in the method that ``self.<name>``, or ``super().<name>`` in ``after``, means."""
        owner, function = _find_method(type(self._module), name, after)
        if function is None or owner in (nn.Module, object):
            return _NONE
        tree = _parse(function)
        if tree is None or function in self._active:
            raise _CannotTellError
        kept = self._owner, self._inner
        self._owner, self._inner = owner, {}
        self._active.append(function)
        calls = self._block(tree.body)
        self._active.pop()
        self._owner, self._inner = kept
        return calls

    def _block(self, statements: Sequence[ast.AST]) -> Calls:
        calls = _NONE
        for index, statement in enumerate(statements):
            if isinstance(statement, ast.If) and (
                _leaves(statement.body) or _leaves(statement.orelse)
            ):
                rest = statements[index + 1 :]
                branches = [
                    branch if _leaves(branch) else [*branch, *rest]
                    for branch in (statement.body, statement.orelse)
                ]
                return _add(calls, self._branch(statement.test, *branches))
            calls = _add(calls, self._node(statement))
            if isinstance(statement, ast.Return | ast.Raise):
                break
        return calls

    def _branch(self, test: ast.expr, body: Sequence[ast.AST], other: Sequence[ast.AST]) -> Calls:
        calls = self._node(test)
        try:
            return _add(calls, self._block(body if _truth(test, self._module) else other))
        except _NotConstantError:
            first, second = self._block(body), self._block(other)
        if first != second:
            raise _CannotTellError
        return _add(calls, first)

    def _loop(self, length: int | None, calls: Calls) -> Calls:
        if length is None or calls.repeated:
            return Calls(calls.number, repeated=calls.number > 0 and length != 0)
        return Calls(calls.number * length)

    def _node(self, node: ast.AST) -> Calls:
        match node:
            case ast.FunctionDef():
                self._inner[node.name] = node.body
                return _NONE
            case ast.Name(id=name, ctx=ast.Load()) if name in self._inner:
                return self._block(self._inner[name])
            case ast.If() | ast.IfExp():
                body, other = (
                    branch if isinstance(branch, list) else [branch]
                    for branch in (node.body, node.orelse)
                )
                return self._branch(node.test, body, other)
            case ast.For():
                body = self._loop(_length(node.iter, self._module), self._block(node.body))
                return _add(self._node(node.iter), _add(body, self._block(node.orelse)))
            case ast.While():
                return self._loop(None, _add(self._node(node.test), self._block(node.body)))
            case ast.ListComp() | ast.SetComp() | ast.GeneratorExp() | ast.DictComp():
                return self._comprehension(node)
            case ast.Try() | ast.Match():
                calls = self._children(node)
                if calls.number:
                    raise _CannotTellError
                return calls
            case ast.Call():
                return self._call(node)
        attribute = _own_attribute(node)
        if attribute == self._name:
            raise _CannotTellError  # handed on to somebody else
        return self._children(node) if attribute is None else self.method(attribute)

    def _call(self, node: ast.Call) -> Calls:
        arguments = [*node.args, *(keyword.value for keyword in node.keywords)]
        match node.func:
            case ast.Attribute(value=ast.Call(func=ast.Name(id='super')), attr=name):
                called = self.method(name, after=self._owner)
            case ast.Name(id=name) if name in _REPEATING and arguments:
                called = self._loop(None, self._node(arguments.pop(0)))
            case func if _own_attribute(func) == self._name:
                called = _ONE
            case func:
                called = self._node(func)
        return _add(self._block(arguments), called)

    def _comprehension(self, node: Any) -> Calls:
        values = [node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]
        calls = self._block([*values, *(test for loop in node.generators for test in loop.ifs)])
        for loop in reversed(node.generators):
            length = None if loop.ifs else _length(loop.iter, self._module)
            calls = _add(self._node(loop.iter), self._loop(length, calls))
        return calls

    def _children(self, node: ast.AST) -> Calls:
        return self._block(list(ast.iter_child_nodes(node)))


def _add(first: Calls, second: Calls) -> Calls:
    if not first.number or not second.number:
        return first if first.number else second
    if first.repeated or second.repeated:
        raise _CannotTellError
    return Calls(first.number + second.number)


def _leaves(statements: Sequence[ast.AST]) -> bool:
    return bool(statements) and isinstance(statements[-1], ast.Return | ast.Raise)


def _own_attribute(node: ast.AST) -> str | None:
    """Return ``name`` of an expression ``self.name`` that is read."""
    match node:
        case ast.Attribute(value=ast.Name(id='self'), attr=name, ctx=ast.Load()):
            return name
    return None


class _NotConstantError(Exception):
    """An expression depends on more than the attributes of the module."""


def _constant(node: ast.expr, module: nn.Module) -> Any:
    for part in ast.walk(node):
        if (
            not isinstance(part, _CONSTANT_NODES)
            or (isinstance(part, ast.Name) and part.id != 'self' and part.id not in _BUILTINS)
            or (isinstance(part, ast.Attribute) and part.attr == 'training')
            or (isinstance(part, ast.Call) and not isinstance(part.func, ast.Name))
        ):
            raise _NotConstantError
    code = compile(ast.Expression(node), '<forward>', 'eval')
    try:
        value = eval(code, {'__builtins__': {}, 'self': module, **_BUILTINS})
    except Exception as error:
        raise _NotConstantError from error
    if isinstance(value, Tensor):
        raise _NotConstantError
    return value


def _truth(test: ast.expr, module: nn.Module) -> bool:
    return bool(_constant(test, module))


def _length(iterable: ast.expr, module: nn.Module) -> int | None:
    try:
        value = _constant(iterable, module)
    except _NotConstantError:
        return None
    known = (range, enumerate, zip, reversed, list, tuple, nn.ModuleList, nn.Sequential)
    return len(list(value)) if isinstance(value, known) else None


def _find_method(
    cls: type, name: str, after: type | None = None
) -> tuple[type | None, FunctionType | None]:
    """Return the class of the method resolution order that defines a method, and the method."""
    order = cls.__mro__
    for owner in order[order.index(after) + 1 if after else 0 :]:
        if name in vars(owner):
            found = vars(owner)[name]
            if isinstance(found, property):
                found = found.fget
            elif isinstance(found, staticmethod | classmethod):
                found = found.__func__
            found = inspect.unwrap(found) if callable(found) else None
            return owner, found if isinstance(found, FunctionType) else None
    return None, None


@cache
def _parse(function: FunctionType) -> ast.FunctionDef | None:
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
    except (OSError, TypeError, SyntaxError):
        return None
    return tree if isinstance(tree, ast.FunctionDef) else None


@cache
def _attributes(function: FunctionType) -> frozenset[str]:
    """Return every name that a function reads, to skip most functions without a second look."""
    nodes = ast.walk(_parse(function) or ast.Pass())
    return frozenset(
        node.attr if isinstance(node, ast.Attribute) else node.id
        for node in nodes
        if isinstance(node, ast.Attribute | ast.Name)
    )


def _live_methods(
    module: nn.Module, name: str | None = None
) -> Iterator[tuple[type, FunctionType, list[ast.AST]]]:
    """Yield the methods that a module uses and those nodes that its attributes do not rule out.

    Only methods that mention ``name``, or the name of any activation function.
    """
    wanted = FUNCTIONS if name is None else {name}
    for method in {key for cls in type(module).__mro__ for key in vars(cls)}:
        owner, function = _find_method(type(module), method)
        while function is not None and owner not in (nn.Module, object):
            names = _attributes(function)
            if names & wanted:
                yield owner, function, list(_live_nodes(_parse(function), module))
            # An overridden method counts only where it is called upon.
            if 'super' not in names:
                break
            owner, function = _find_method(type(module), method, owner)


def _live_nodes(node: ast.AST, module: nn.Module) -> Iterator[ast.AST]:
    yield node
    children: list[ast.AST] = list(ast.iter_child_nodes(node))
    if isinstance(node, ast.If | ast.IfExp):
        try:
            taken = node.body if _truth(node.test, module) else node.orelse
            children = [node.test, *(taken if isinstance(taken, list) else [taken])]
        except _NotConstantError:
            pass
    for child in children:
        yield from _live_nodes(child, module)

"""Reads the config that MMEngine stores in a checkpoint, as data: no code of the file runs."""

import ast
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.utils import import_modules_from_strings

_NUMBERS = {'inf': float('inf'), 'nan': float('nan')}  # as `str` writes them


def stored_config(meta: dict[str, Any], path: str | Path) -> Config:
    """Return the config in ``meta.cfg`` of a checkpoint, with the modules imported that it names.

    ``Config.fromstring`` would execute the text. This one takes assignments of plain data, which is all
    that MMEngine writes. Its ``filename`` is the checkpoint.

    Args:
        meta: The entry ``meta`` of the checkpoint.
        path: The checkpoint, for messages.

    Raises:
        ValueError: If there is no config, it holds more than plain data, or a module of its
            ``custom_imports`` cannot be imported.
    """
    text = meta.get('cfg')
    if not isinstance(text, str):
        raise ValueError(
            f'{path}: holds no config, so its model cannot be built; give a checkpoint that '
            '`hoyer-det train` or MMDetection wrote'
        )
    try:
        cfg = Config(_assignments(ast.parse(text)), cfg_text=text or ' ', filename=str(path))
    except (SyntaxError, ValueError) as error:
        raise ValueError(f'{path}: its config cannot be read ({error})') from None
    imports = cfg.get('custom_imports') or dict(imports=None)
    try:
        import_modules_from_strings(**imports)
    except ImportError as error:
        raise ValueError(
            f'{path}: its config needs a module that cannot be imported here ({error})'
        ) from error
    return cfg


def _assignments(module: ast.Module) -> dict[str, Any]:
    values = {}
    for node in module.body:
        if not isinstance(node, ast.Assign) or not isinstance(node.targets[0], ast.Name):
            raise ValueError(f'line {node.lineno} is no assignment')
        values[node.targets[0].id] = _value(node.value)
    return values


def _value(node: ast.expr) -> Any:
    match node:
        case ast.Call(func=ast.Name(id='dict'), args=[], keywords=items):
            if all(item.arg for item in items):
                return {item.arg: _value(item.value) for item in items}
        case ast.Call(func=ast.Name(id='dict'), args=[ast.Dict() as mapping], keywords=[]):
            return _value(mapping)  # of keys that are no names
        case ast.Dict(keys=keys, values=items) if None not in keys:
            return {_value(key): _value(item) for key, item in zip(keys, items, strict=True)}
        case ast.List(elts=items):
            return [_value(item) for item in items]
        case ast.Tuple(elts=items):
            return tuple(_value(item) for item in items)
        case ast.Set(elts=items):
            return {_value(item) for item in items}
        case ast.Name(id=name) if name in _NUMBERS:
            return _NUMBERS[name]
        case ast.UnaryOp(op=ast.USub(), operand=ast.Name(id=name)) if name in _NUMBERS:
            return -_NUMBERS[name]
    try:
        return ast.literal_eval(node)
    except ValueError:
        raise ValueError(f'line {node.lineno} holds more than plain data') from None

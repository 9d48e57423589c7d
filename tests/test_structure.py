"""Which part of the package may import which, as CONTRIBUTING.md says."""

import ast
from pathlib import Path

import hoyer_det

PACKAGE = Path(hoyer_det.__file__).parent
# Parts of the ground floor, with all that they may import of the package.
GROUND = {
    'spiking': set(),
    'kernels': {'spiking'},
    'backbones': {'kernels', 'spiking'},
    'necks': {'backbones', 'kernels', 'spiking'},
    'heads': {'backbones', 'kernels', 'spiking'},
}


def imports() -> dict[str, set[str]]:
    """Return what each part, a folder or file of the package, imports of the others."""
    edges: dict[str, set[str]] = {}
    for file in PACKAGE.rglob('*.py'):
        path = file.relative_to(PACKAGE)
        part = path.parts[0].removesuffix('.py')
        if part == '__init__':
            continue
        found = edges.setdefault(part, set())
        for node in ast.walk(ast.parse(file.read_text())):
            if not isinstance(node, ast.ImportFrom):
                continue
            module = (node.module or '').split('.') if node.module else []
            if node.level:
                module = [*path.parent.parts[: len(path.parent.parts) - node.level + 1], *module]
            elif module[:1] == ['hoyer_det']:
                module = module[1:]
            else:
                continue
            found.update(module[:1] or [alias.name for alias in node.names])
        found.discard(part)
    return edges


def test_no_circles_and_the_ground_floor_knows_nothing_above_it():
    edges = imports()
    assert edges.keys() >= GROUND.keys()
    for part, allowed in GROUND.items():
        assert edges[part] <= allowed, part
    while edges:
        free = [part for part, needs in edges.items() if not needs & edges.keys()]
        assert free, f'these import each other: {edges}'
        for part in free:
            del edges[part]

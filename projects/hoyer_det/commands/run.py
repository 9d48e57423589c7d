"""``hoyer-det run TOOL [ARGUMENTS]``: a script of MMDetection, with this package imported before it."""

import argparse
import difflib
import runpy
import sys
from pathlib import Path

import mmdet

from .errors import one_line_errors

TOOLS = Path(mmdet.__file__).parent / '.mim' / 'tools'


def parse_args() -> argparse.Namespace:
    """Read the tool; all that follows belongs to it."""
    parser = argparse.ArgumentParser(
        description='Run a script of MMDetection, or one of your own, with hoyer_det imported before it: '
        'without a compiled mmcv most of them fail otherwise.'
    )
    parser.add_argument(
        'tool',
        help='a file, or the name of a tool of MMDetection: browse_dataset, confusion_matrix, '
        'analysis_tools/analyze_results, ...',
    )
    parser.add_argument('arguments', nargs=argparse.REMAINDER, help='of the tool')
    return parser.parse_args()


def find_tool(name: str, folder: Path = TOOLS) -> Path:
    """Return the script that a user names.

    Args:
        name: A file, or the end of the path of a tool in ``folder``, with or without ``.py``; of several
            the one in the fewest folders.
        folder: MMDetection's tools, as its installation has them.

    Raises:
        FileNotFoundError: If there is neither such a file nor such a tool.
        ValueError: If several tools fit as well.
    """
    if Path(name).is_file():
        return Path(name)
    tools = sorted(path.relative_to(folder) for path in folder.rglob('*.py'))
    wanted = Path(name if name.endswith('.py') else f'{name}.py').parts
    found = [path for path in tools if path.parts[-len(wanted) :] == wanted]
    depth = min((len(path.parts) for path in found), default=0)
    found = [path for path in found if len(path.parts) == depth]
    if len(found) > 1:
        names = ', '.join(path.as_posix() for path in found)
        raise ValueError(f'{name}: several tools of MMDetection have this name: {names}')
    if found:
        return folder / found[0]
    names = [path.stem for path in tools]
    near = difflib.get_close_matches(Path(name).stem, names, n=3)
    meant = f'the nearest are {", ".join(near)}' if near else f'they are in {folder}'
    raise FileNotFoundError(f'{name}: neither a file nor a tool of MMDetection; {meant}')


def main() -> None:
    """Run the tool as Python would: its arguments, its folder first on the path, its own errors."""
    args = parse_args()
    with one_line_errors():
        tool = find_tool(args.tool)
    sys.argv = [str(tool), *args.arguments]
    sys.path.insert(0, str(tool.resolve().parent))
    runpy.run_path(str(tool), run_name='__main__')

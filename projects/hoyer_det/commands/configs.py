"""``hoyer-det configs``: the names of the configs that come with the package."""

import argparse

from ..shipped import config_names, config_path
from .errors import one_line_errors


def main() -> None:
    """Print all names, or the path of one."""
    parser = argparse.ArgumentParser(description='List the configs that come with the package.')
    parser.add_argument('name', nargs='?', help='print the path of this one')
    args = parser.parse_args()
    with one_line_errors():
        print(config_path(args.name) if args.name else '\n'.join(config_names()))

"""``hoyer-det download-data NAME ...``: bring data sets into a folder."""

import argparse

from ..datasets.download import NAMES, download_datasets
from .errors import one_line_errors


def main() -> None:
    """Parse the command line and download."""
    parser = argparse.ArgumentParser(description='Bring data sets into a folder.')
    parser.add_argument('names', nargs='+', metavar='NAME', help=f'any of: {", ".join(NAMES)}')
    parser.add_argument('--root', default='data', help='folder for all data (default: data)')
    parser.add_argument(
        '--mirror', metavar='URL', help='folder that holds the same archives, file:// included'
    )
    parser.add_argument(
        '--keep-archives', action='store_true', help='keep the archives after unpacking'
    )
    args = parser.parse_args()
    with one_line_errors(lambda: 'interrupted; run again to resume'):
        download_datasets(args.names, args.root, args.mirror, args.keep_archives)

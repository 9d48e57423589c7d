"""``hoyer-det check-data CONFIG``: tell what is wrong with the data that a config names."""

import argparse
import os
import sys
from collections import Counter
from pathlib import Path

from ..config import load_config
from ..datasets.check import Report, check_datasets
from ..datasets.clean import write_clean
from ..files import write_json
from .arguments import add_config_options, check_file, check_folder
from .errors import one_line_errors

_SHOWN = 20  # lines of each kind


def parse_args() -> argparse.Namespace:
    """Read the flags."""
    parser = argparse.ArgumentParser(
        description='Look at every annotation and image that a config names. Exit code 1: something '
        'is wrong.'
    )
    parser.add_argument('config', help='config file, or the name of a shipped one')
    parser.add_argument(
        '--annotations-only',
        action='store_true',
        help='do not read the images, only the annotations',
    )
    parser.add_argument('--workers', type=int, help='threads (as many as there are cores)')
    parser.add_argument('--json', metavar='FILE', help='write all that was found into a JSON file')
    parser.add_argument(
        '--write-clean',
        metavar='FOLDER',
        help='write the annotations without what is wrong into a new folder, which links to the images',
    )
    add_config_options(parser)
    return parser.parse_args()


def print_report(report: Report) -> None:
    """Print a table of what was looked at, one of the kinds of problems, and a line for each."""
    for source in report.sources:
        uses = ('trained on', source.trains), ('evaluated', source.evaluates)
        use = ' and '.join(name for name, used in uses if used)
        found = f'{len(source.names)} images, {source.boxes} boxes'
        if source.coco and not source.names:  # a file that cannot be used is not read on
            found = 'not read'
        print(f'{source.file}: {found}, {use}')
    counts = Counter(problem.kind for problem in report.problems)
    width = max(map(len, counts), default=0)
    for kind, count in counts.most_common():
        print(f'\n{kind:<{width}}  {count:>6}')
        found = [problem for problem in report.problems if problem.kind == kind]
        for problem in found[:_SHOWN]:
            where = ': '.join(part for part in (problem.source, problem.image) if part)
            box = '' if problem.item is None else f', box {problem.item}'
            print(f'  {where}{box}: {problem.detail}')
        if count > _SHOWN:
            print(f'  ... and {count - _SHOWN} more (--json FILE lists all)')
    number = len(report.problems)
    print(f'\n{number} problem{"s" * (number > 1)}' if number else 'no problem found')


def main() -> None:
    """Check."""
    args = parse_args()
    with one_line_errors():
        if args.workers is not None and args.workers < 1:
            raise ValueError(f'--workers {args.workers}: must be at least 1')
        if args.json is not None:
            check_file('--json', args.json)
        if args.write_clean is not None:
            clean = Path(args.write_clean)
            if os.path.lexists(clean):
                raise FileExistsError(f'--write-clean {clean}: exists already; name a new folder')
            check_folder('--write-clean', clean)
        cfg = load_config(args.config, args.cfg_options, complete=False)
        report = check_datasets(cfg, not args.annotations_only, args.workers)
        print_report(report)
        if args.json is not None:
            write_json(args.json, report.to_dict())
        if args.write_clean is not None:
            write_clean(report, args.write_clean)
            print(f'{args.write_clean}: without what is wrong; use it as data_root')
    sys.exit(1 if report.problems else 0)

"""Try every detector family of MMDetection: ``python tools/compatibility.py``."""

import argparse
import datetime
import gc
import warnings
from pathlib import Path

import hoyer_det  # noqa: F401  registers the modules, mends the pinned packages
from hoyer_det.cli import one_line_errors
from hoyer_det.compatibility import FAMILIES, Family, page, try_family


def parse_args() -> argparse.Namespace:
    """Read the flags."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        'families', nargs='*', metavar='FAMILY', help='try these only, and write no page'
    )
    parser.add_argument(
        '--out', default='docs/compatibility.md', help='page to write (docs/compatibility.md)'
    )
    return parser.parse_args()


def choose(names: list[str]) -> list[Family]:
    """Return the families of these names, all by default."""
    families = {family.name: family for family in FAMILIES if not family.same_as}
    for name in names:
        if name not in families:
            raise ValueError(f'{name}: no such family; known are {", ".join(families)}')
    return [families[name] for name in names or families]


def main() -> None:
    """Try, print, write."""
    args = parse_args()
    warnings.filterwarnings('ignore')  # MMDetection's own, hundreds of them
    with one_line_errors(ValueError, OSError):
        results = []
        for family in choose(args.families):
            result = try_family(family)
            results.append(result)
            outcome = 'works' if result.works else f'no: {result.reason}'
            print(f'{family.name:<20} {result.seconds:5.1f} s  {outcome}', flush=True)
            gc.collect()
        print(f'{sum(result.works for result in results)} of {len(results)} work')
        if not args.families:
            Path(args.out).write_text(page(results, datetime.date.today()))
            print(f'Written: {args.out}')


if __name__ == '__main__':
    main()

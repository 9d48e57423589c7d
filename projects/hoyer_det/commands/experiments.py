"""``hoyer-det experiments NAME``: a named set of trainings, with table, plot and commands."""

import argparse
from pathlib import Path

from ..experiments.calling import alone
from ..experiments.costs import measure_costs
from ..experiments.costs_report import write_costs_report
from ..experiments.deployed import check_packages, deploy_all
from ..experiments.deployed_report import write_deployed_report
from ..experiments.report import write_report
from ..experiments.running import RESULT, run_all
from ..experiments.sets import SETS
from .arguments import check_folder
from .errors import one_line_errors


def parse_args() -> argparse.Namespace:
    """Read the flags."""
    parser = argparse.ArgumentParser(
        description='Do the trainings of a set that have no result yet, then write table.md, plot.png '
        'and commands.sh. What was interrupted is resumed.'
    )
    parser.add_argument('name', choices=SETS, help='which set')
    parser.add_argument('--data-root', help="folder of the data set (the set's own)")
    parser.add_argument('--seeds', type=int, default=1, help='how many seeds, from 0 on (1)')
    parser.add_argument('--runs', nargs='+', metavar='RUN', help='train these runs only (all)')
    parser.add_argument('--out', help='folder of the results (work_dirs/experiments/<name>)')
    parser.add_argument('--report', action='store_true', help='train nothing, write the report')
    return parser.parse_args()


def main() -> None:
    """Train and report."""
    args = parse_args()
    experiments = SETS[args.name]
    out = Path(args.out or Path('work_dirs/experiments') / args.name)
    with one_line_errors():
        if args.report and args.runs:
            raise ValueError('--runs: not with --report, which writes the table of the whole set')
        if args.seeds < 1:
            raise ValueError(f'--seeds {args.seeds}: must be at least 1')
        check_folder('--out', out)
        if args.report:
            if not any(out.glob(f'*/{RESULT}')):
                raise ValueError(
                    f'--out {out}: no training there has a result yet; leave --report out to train'
                )
        else:
            if experiments.deployed:
                check_packages()
            data_root = args.data_root or experiments.data_root
            chosen = experiments.only(args.runs) if args.runs else experiments
            with alone(out):
                run_all(chosen, out, data_root, args.seeds)
                if experiments.deployed:
                    deploy_all(experiments, out, data_root, args.seeds)
                if experiments.costed:
                    measure_costs(experiments, out, data_root, args.seeds)
        print(write_report(experiments, out, args.seeds), end='')
        print(write_deployed_report(experiments, out), end='')
        print(write_costs_report(experiments, out, args.seeds), end='')

"""Counts how the wrong inputs of the tests end: ``python dev/count_wrong_inputs.py``."""

import sys
import tempfile
from collections import Counter
from pathlib import Path

sys.path[:0] = [
    str(Path(__file__).resolve().parents[1] / folder)
    for folder in ('tests', 'tests/test_reliability')
]

from warm import Warm  # noqa: E402
from wrong_files import FILES  # noqa: E402
from wrong_flags import FLAGS  # noqa: E402
from wrong_inputs import GOOD, OUTCOMES, run, write_sound_folder  # noqa: E402
from wrong_settings import SETTINGS  # noqa: E402


def main() -> None:
    """Run every case, name those that do not end as they should, and print a table."""
    kinds = dict(settings=SETTINGS, flags=FLAGS, files=FILES)
    counts: Counter[tuple[str, str]] = Counter()
    warm = Warm()
    with tempfile.TemporaryDirectory() as place:
        sound = Path(place, 'sound')
        sound.mkdir()
        write_sound_folder(sound, warm)
        for kind, cases in kinds.items():
            for number, case in enumerate(cases):
                outcome, ended = run(case, sound, Path(place, f'{kind}{number}'), warm)
                counts[outcome, kind] += 1
                if outcome != GOOD:
                    print(f'{case.name}: {outcome}: {ended.err}', file=sys.stderr)
    warm.close()
    print(f'| outcome | {" | ".join(kinds)} | all |')
    print('| --- ' * (len(kinds) + 2) + '|')
    for outcome in OUTCOMES:
        row = [counts[outcome, kind] for kind in kinds]
        print(f'| {outcome} | {" | ".join(map(str, row))} | {sum(row)} |')


if __name__ == '__main__':
    main()

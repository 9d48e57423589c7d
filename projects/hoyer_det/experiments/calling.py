"""Other commands of this package, and files that are there whole or not at all."""

import json
import subprocess
import sys
from pathlib import Path

from ..engine.storage import replacing


def call(*command: object) -> None:
    """Run a command of ``hoyer-det``.

    Raises:
        ChildProcessError: If it fails.
    """
    line = [sys.executable, '-m', 'hoyer_det_cli', *map(str, command)]
    code = subprocess.run(line).returncode
    if code:
        raise ChildProcessError(f'hoyer-det {" ".join(line[3:])}: ended with exit code {code}')


def write_json(file: Path, content: object) -> None:
    """Write a file as JSON."""
    with replacing(file) as part:
        part.write_text(json.dumps(content, indent=1))

"""Command lines in processes forked from one warm interpreter: what a user sees, without the start.

Run as a script it serves jobs, a line of JSON each. Nothing is computed before the forks, so there are no
threads that a fork would lose.
"""

import contextlib
import gc
import importlib
import json
import os
import resource
import runpy
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

COMMANDS = (
    'train test export detect analyze convert convert_labels check_data zoo configs experiments'
)
# What the commands import only when they need it.
MODULES = (
    *(f'hoyer_det.commands.{name}' for name in COMMANDS.split()),
    'matplotlib.backends.backend_agg',
    'onnx',
    'torch.utils.cpp_extension',
    'torch.utils.tensorboard',
)


def spare_yapf() -> None:
    """Have configs written without yapf's line breaks: up to a second each, and no test is about them."""
    config = importlib.import_module('mmengine.config.config')
    config.FormatCode = lambda text, **style: (text, True)


class Ended(NamedTuple):
    """How a process ended; ``code`` is None for one that had to be killed after ``timeout``."""

    code: int | None
    out: str
    err: str


class Warm:
    """The warm interpreter."""

    def __init__(self) -> None:
        env = {**os.environ, 'OMP_NUM_THREADS': '1'}
        for name in ('RANK', 'LOCAL_RANK', 'WORLD_SIZE', 'HOYER_DET_TRACEBACK'):
            env.pop(name, None)
        self._server = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=env,
        )

    def run(self, arguments: Sequence[object], cwd: Path, **job: Any) -> list[Ended]:
        """Run ``hoyer-det`` with some arguments.

        Args:
            arguments: As on the command line.
            cwd: Folder to run in.
            **job: ``processes`` (1), ``timeout`` in seconds (120), ``largest_file`` in bytes, ``env``,
                ``signals``: a (rank, signal, file) each, sent when the file is there; ``script``: a file to
                run instead, as ``python`` does.
        """
        job = dict(arguments=[str(a) for a in arguments], cwd=str(cwd), **job)
        print(json.dumps(job), file=self._server.stdin, flush=True)
        return [Ended(*each) for each in json.loads(self._server.stdout.readline())]

    def close(self) -> None:
        """End the interpreter."""
        # A closed pipe may stay open in what the tests forked, such as the pool of MMDetection's eval_map.
        print(file=self._server.stdin, flush=True)
        self._server.wait()
        self._server.stdin.close()


def start(job: dict[str, Any], rank: int, files: tuple[str, str], port: int) -> int:
    """Fork a process that runs a job."""
    number = os.fork()
    if number:
        return number
    code = 70
    try:
        os.setpgid(0, 0)
        # What a shell runs in the background ignores it, and so would all below.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for stream, file in zip((1, 2), files, strict=True):
            os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
        os.chdir(job['cwd'])
        os.environ.update(job.get('env', {}))
        if job.get('processes', 1) > 1:
            world = dict(WORLD_SIZE=job['processes'], RANK=rank, LOCAL_RANK=rank)
            world.update(MASTER_ADDR='127.0.0.1', MASTER_PORT=port)
            os.environ.update({key: str(value) for key, value in world.items()})
        if 'largest_file' in job:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (job['largest_file'],) * 2)
        sys.argv = [job.get('script', 'hoyer-det'), *job['arguments']]
        if 'script' in job:
            sys.path.insert(0, str(Path(job['script']).parent))
            runpy.run_path(job['script'], run_name='__main__')
        else:
            import hoyer_det_cli

            hoyer_det_cli.main()
        code = 0
    except SystemExit as end:  # as the interpreter does at its end
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        import traceback

        traceback.print_exc()
        code = 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def serve(job: dict[str, Any], folder: Path, number: int) -> list[tuple[int | None, str, str]]:
    """Run a job in as many processes as it wants."""
    ranks = range(job.get('processes', 1))
    files = [(str(folder / f'{number}_{r}.out'), str(folder / f'{number}_{r}.err')) for r in ranks]
    running = {
        rank: start(job, rank, files[rank], 20000 + os.getpid() % 9000 + number) for rank in ranks
    }
    everyone, codes = dict(running), dict.fromkeys(ranks)
    signals = list(job.get('signals', []))
    end = time.monotonic() + job.get('timeout', 120)
    while running and time.monotonic() < end:
        for rank, process in list(running.items()):
            done, status = os.waitpid(process, os.WNOHANG)
            if done:
                codes[rank] = os.waitstatus_to_exitcode(status)
                del running[rank]
        for item in list(signals):
            rank, kind, file = item
            if Path(file).exists() and rank in running:
                os.kill(running[rank], kind)
                signals.remove(item)
        time.sleep(0.005)
    for process in everyone.values():
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process, signal.SIGKILL)  # also the workers of its data loaders
    for process in running.values():
        os.waitpid(process, 0)
    return [
        (
            codes[rank],
            *(Path(f).read_text(errors='replace') if Path(f).exists() else '' for f in files[rank]),
        )
        for rank in ranks
    ]


def main() -> None:
    """Import everything, then serve."""
    for name in MODULES:
        importlib.import_module(name)
    spare_yapf()
    gc.freeze()  # what is imported: no collection of a job needs to look at it, nor copy its pages
    with tempfile.TemporaryDirectory() as folder:
        for number, line in enumerate(sys.stdin):
            if not line.strip():
                break
            print(json.dumps(serve(json.loads(line), Path(folder), number)), flush=True)


if __name__ == '__main__':
    main()

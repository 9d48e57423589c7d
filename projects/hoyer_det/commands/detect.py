"""``hoyer-det detect MODEL INPUT...``: detect on images, folders, videos or a camera."""

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import closing, nullcontext, suppress
from pathlib import Path

import cv2
from hoyer_det_runtime import ENGINES, Model
from hoyer_det_runtime.detections import Detections, to_coco
from tqdm import tqdm

from .. import __version__
from ..files import write_json
from ..inference.detector import Detector, load
from ..inference.outputs import (
    JSON_NAME,
    VideoFile,
    check_screen,
    plan_outputs,
    show,
    write_picture,
)
from ..inference.sources import Image, Source, find_sources
from ..weights.zoo import zoo_models
from .arguments import check_folder
from .errors import one_line_errors


def parse_args() -> argparse.Namespace:
    """Read the flags."""
    parser = argparse.ArgumentParser(
        description='Detect on images, folders, videos or a camera; write pictures and one JSON file in '
        'COCO format.',
        epilog=f'models that come with the package: {", ".join(zoo_models())}',
    )
    parser.add_argument('model', help='checkpoint (.pth), exported file (.onnx), or a model below')
    parser.add_argument(
        'inputs',
        nargs='+',
        metavar='INPUT',
        help='image file, folder of images, glob in quotes, video file, or number of a camera',
    )
    parser.add_argument(
        '--score-thr',
        type=float,
        default=0.3,
        help='least score of a detection, in the pictures and the JSON file (0.3)',
    )
    parser.add_argument('--out-dir', type=Path, default=Path('detections'), help='(detections)')
    parser.add_argument('--device', help='such as cpu or cuda:0 (the GPU where there is one)')
    parser.add_argument(
        '--engine',
        choices=['torch', *ENGINES],
        help='torch for a checkpoint, another for an exported file (onnxruntime)',
    )
    parser.add_argument('--threads', type=int, help='of an exported file')
    parser.add_argument(
        '--show', action='store_true', help='also show the pictures on a screen; q ends'
    )
    return parser.parse_args()


class Run:
    """Detects on all sources and writes what was found.

    Args:
        model: The detector.
        args: The flags.

    Attributes:
        results: Detections of each image or frame so far.
        pictures: Name of the file with the drawing of each.
        unreadable: A line for each image that could not be read or resized.
        incomplete: A line for each video with fewer frames than it announces.
    """

    def __init__(self, model: Detector | Model, args: argparse.Namespace) -> None:
        self.model = model
        self.score_thr: float = args.score_thr
        self.show: bool = args.show
        self.results: list[Detections] = []
        self.pictures: list[str] = []
        self.unreadable: list[str] = []
        self.incomplete: list[str] = []

    def __call__(self, sources: Sequence[Source], paths: Sequence[Path]) -> None:
        """Go through the sources; stop at q in the window or Ctrl-C, keeping what is done."""
        endless = any(isinstance(source.path, int) for source in sources)
        total = None if endless else sum(map(len, sources)) or None
        try:
            with tqdm(total=total, unit='img', disable=None) as bar:
                for source, path in zip(sources, paths, strict=True):
                    if not self._source(source, path, bar):
                        break
        except KeyboardInterrupt:
            print('stopped', file=sys.stderr)

    def _source(self, source: Source, path: Path, bar: tqdm) -> bool:
        """Return whether to go on."""
        video = None if isinstance(source, Image) else VideoFile(path, source.fps)
        with closing(video) if video else nullcontext():
            for image, index in source.frames():
                try:
                    found = self.model.detect(image, self.score_thr, source.name, index)
                except (FileNotFoundError, ValueError) as error:  # gone, no image, too thin
                    self.unreadable.append(str(error))
                    continue
                finally:
                    bar.update()
                picture = self.model.draw(image, found)
                if video is None:
                    write_picture(picture, path)
                else:
                    video.write(picture)
                self.results.append(found)
                self.pictures.append(path.name)
                if self.show and not show(picture, 0 if video is None else 1):
                    return False
        if source.incomplete:
            self.incomplete.append(source.incomplete)
        return True


def _write_results(run: Run, args: argparse.Namespace) -> None:
    info = dict(model=args.model, score_thr=args.score_thr, hoyer_det=__version__)
    content = to_coco(run.results, run.model.classes, **info)
    for image, picture in zip(content['images'], run.pictures, strict=True):
        image['picture'] = picture
    write_json(args.out_dir / JSON_NAME, content)


def main() -> None:
    """Detect."""
    os.environ.setdefault('OPENCV_FFMPEG_LOGLEVEL', '-8')  # what it cannot read is said in one line
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    args = parse_args()
    with one_line_errors():
        if not 0 <= args.score_thr <= 1:
            raise ValueError(f'--score-thr {args.score_thr}: must be from 0 to 1')
        check_folder('--out-dir', args.out_dir)
        sources = find_sources(args.inputs)
        paths = plan_outputs(sources, args.out_dir)
        if args.show:
            check_screen()
        model = load(args.model, args.device, args.engine, args.threads)
        run = Run(model, args)
        try:
            run(sources, paths)
        except Exception:  # such as a full disk
            if run.results:
                with suppress(OSError):
                    _write_results(run, args)
            raise
        if run.unreadable and not run.results:
            more = len(run.unreadable) - 1
            raise ValueError(run.unreadable[0] + (f' (and {more} more)' if more else ''))
        _write_results(run, args)
    boxes = sum(map(len, run.results))
    print(f'{len(run.results)} images, {boxes} detections: {args.out_dir / JSON_NAME}')
    missing = [*run.unreadable, *run.incomplete]
    if missing:
        number = f'left out {len(run.unreadable)} images: ' if run.unreadable else ''
        sys.exit(f'error: {number}{"; ".join(missing)}')

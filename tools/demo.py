"""Train, evaluate and draw a one-time-step detector on the synthetic shapes: ``make demo``."""

import json
import os
import subprocess
import sys
from pathlib import Path

CONFIG = 'configs/hoyer_ssd_shapes.py'
WORK_DIR = Path('work_dirs/demo')


def run(*command: str) -> None:
    """Run one of the tools; stop with its exit code if it fails."""
    print(f'\n[demo] python {" ".join(command)}', flush=True)
    result = subprocess.run([sys.executable, *command])
    if result.returncode:
        sys.exit(result.returncode)


def main() -> None:
    """Make the data, train, evaluate, and say where all is."""
    os.chdir(Path(__file__).resolve().parent.parent)
    run('tools/download_data.py', 'shapes')
    run('tools/train.py', CONFIG, '--work-dir', str(WORK_DIR))
    checkpoint = (WORK_DIR / 'last_checkpoint').read_text().strip()
    run('tools/test.py', CONFIG, checkpoint, '--work-dir', str(WORK_DIR / 'test'))
    tested = max((WORK_DIR / 'test').glob('*/*.json'), key=lambda file: file.stat().st_mtime)
    metrics = json.loads(tested.read_text())
    coco_ap = metrics.get('coco/bbox_mAP', 0.0)  # absent when nothing at all was detected
    pictures = sorted(tested.parent.glob('vis_data/vis_image/*.png'))
    binaries = Path(sys.executable).parent
    print(
        f"""
[demo] One-time-step spiking SSD on held-out shapes:
[demo]   VOC mAP@0.5        {metrics['pascal_voc/mAP']:.3f}
[demo]   COCO AP@0.5:0.95   {coco_ap:.3f}
[demo] Spike rate by layer: the table above
[demo] Pictures (truth left, detections right): {pictures[0].parent}, {len(pictures)} files
[demo] Checkpoint: {checkpoint}
[demo] Data: data/shapes
[demo] Curves: {binaries}/tensorboard --logdir {WORK_DIR}
[demo] On images of your own: {binaries}/hoyer-det detect {checkpoint} IMAGE"""
    )


if __name__ == '__main__':
    main()

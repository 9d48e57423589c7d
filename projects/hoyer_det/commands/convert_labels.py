"""``hoyer-det convert-labels yolo FOLDER OUT``: labels in YOLO format become a data set to train on."""

import argparse

from ..datasets.yolo_format import convert_yolo
from .errors import one_line_errors


def main() -> None:
    """Convert."""
    parser = argparse.ArgumentParser(
        description='Write a data set with labels in YOLO format (Ultralytics: data.yaml, images/, labels/) '
        'in COCO format, to be trained on by configs/*_cocoformat.py.'
    )
    parser.add_argument('format', choices=['yolo'], help='format of the labels')
    parser.add_argument('source', metavar='FOLDER', help='folder with data.yaml, or the YAML file')
    parser.add_argument('out', metavar='OUT', help='new folder, to be used as data_root')
    parser.add_argument(
        '--copy', action='store_true', help='copy the pictures instead of linking to them'
    )
    args = parser.parse_args()
    with one_line_errors():
        for split, number in convert_yolo(args.source, args.out, args.copy).items():
            print(f'{split}: {number} images')
        print(f'{args.out}: train it with configs/hoyer_ssd_cocoformat.py, data_root={args.out}')

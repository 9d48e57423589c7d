"""The console script ``hoyer-det``: finds the command and hands the arguments on.

It stands beside the package, not in it: importing ``hoyer_det`` loads PyTorch and MMDetection, which takes
seconds, and ``hoyer-det --help`` should not.
"""

import difflib
import importlib
import io
import sys

COMMANDS = {
    'train': 'train a detector or classifier',
    'test': 'evaluate a checkpoint',
    'export': 'write a detector as a checked ONNX file of integers',
    'detect': 'detect on images, folders, videos or a camera',
    'zoo': 'list the trained models that come with the package',
    'analyze': 'spike rates, operations, memory and energy of a checkpoint',
    'run': 'run a tool of MMDetection, or a script of your own, with this package imported',
    'configs': 'list the configs that come with the package',
    'experiments': 'a named set of trainings, with table and plot',
    'convert': "convert checkpoints from and to the authors' layout",
    'convert-labels': 'turn labels in YOLO format into a data set in COCO format',
    'check-data': 'look for faults in annotations and images',
    'download-data': 'bring Pascal VOC, COCO or the synthetic shapes into a folder',
}


def usage() -> str:
    """Return the list of commands."""
    width = max(map(len, COMMANDS))
    lines = [f'  {name:<{width}}  {text}' for name, text in COMMANDS.items()]
    return '\n'.join(
        [
            'usage: hoyer-det COMMAND ...',
            '',
            'One-time-step spiking object detection on MMDetection.',
            '',
            'commands:',
            *lines,
            '',
            '`hoyer-det COMMAND --help` lists the arguments of a command.',
        ]
    )


def main() -> None:
    """Run the command that the first argument names."""
    name, *rest = sys.argv[1:] or ['--help']
    if name in ('-h', '--help'):
        print(usage())
        return
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        meant = f'did you mean {near[0]!r}?' if near else f'known are {", ".join(COMMANDS)}'
        sys.exit(f'error: hoyer-det {name}: no such command; {meant}')
    if isinstance(sys.stdout, io.TextIOWrapper):  # not so in a notebook
        sys.stdout.reconfigure(errors='backslashreplace')  # names of files need not be UTF-8
    sys.argv = [f'hoyer-det {name}', *rest]  # argparse takes its name from here
    importlib.import_module(f'hoyer_det.commands.{name.replace("-", "_")}').main()


if __name__ == '__main__':
    main()

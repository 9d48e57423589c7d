"""The trained models that come with the package: files of weights and one table, ``models/models.json``."""

import difflib
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent / 'models'
TABLE = FOLDER / 'models.json'


@dataclass(frozen=True)
class ZooModel:
    """One row of the table.

    Attributes:
        name: Name in ``hoyer-det detect NAME`` and of the file.
        description: What it was trained for, in one line.
        config: Config file, from the root of the repository.
        data: What it was trained and evaluated on.
        command: Command of the training.
        classes: Names in the order of the labels.
        parameters: Number of trained weights.
        significant_bits: Of each weight of a convolution; fp16 has 11.
        ap50: AP at IoU 0.5 on the held-out images in per cent, of the published file.
        ap: AP at IoU 0.5 to 0.95 on the held-out images in per cent, of the published file.
        ap50_trained: ``ap50`` of the checkpoint that the file was made from, in fp32.
        ap_trained: ``ap`` of that checkpoint.
        date: Of the publication.
        bytes: Size of the file.
        sha256: Of the file.
    """

    name: str
    description: str
    config: str
    data: str
    command: str
    classes: list[str]
    parameters: int
    significant_bits: int
    ap50: float
    ap: float
    ap50_trained: float
    ap_trained: float
    date: str
    bytes: int
    sha256: str

    @property
    def path(self) -> Path:
        """The file of weights."""
        return FOLDER / f'{self.name}.pth'

    def check(self) -> Path:
        """Return the file of weights after comparing it with the table.

        Raises:
            FileNotFoundError: If it is missing.
            ValueError: If it is another than the one that was published.
        """
        if not self.path.is_file():
            raise FileNotFoundError(f'{self.path}: missing; install hoyer_det again')
        if hashlib.sha256(self.path.read_bytes()).hexdigest() != self.sha256:
            raise ValueError(
                f'{self.path}: is not the file that was published as {self.name} (its SHA-256 differs); '
                'install hoyer_det again'
            )
        return self.path


def zoo_models() -> dict[str, ZooModel]:
    """Return the models by name, in the order of the table.

    Example:
        >>> 'ssd_shapes' in zoo_models()
        True
    """
    rows = json.loads(TABLE.read_text(encoding='utf-8'))
    return {row['name']: ZooModel(**row) for row in rows}


def checkpoint_path(model: str | Path) -> Path:
    """Find the checkpoint file that a user names.

    Args:
        model: A file, or the name of a model of the zoo. A file of that name comes first.

    Raises:
        FileNotFoundError: If there is neither such a file nor such a model.
        ValueError: If it is a folder, an exported model, or a file of the zoo is damaged.
    """
    path = Path(model)
    if path.suffix.lower() in ('.onnx', '.xml'):
        raise ValueError(f'{model}: is an exported model; a checkpoint (.pth) is needed here')
    if path.is_file():
        return path
    if path.is_dir():
        raise ValueError(
            f'{model}: is a folder; give the checkpoint file in it, such as epoch_24.pth'
        )
    if path.suffix == '.pth' or len(path.parts) != 1:
        raise FileNotFoundError(f'{model}: no such checkpoint file')
    models = zoo_models()
    if path.name not in models:
        near = difflib.get_close_matches(path.name, models, n=3, cutoff=0.4) or list(models)
        raise FileNotFoundError(
            f'{model}: neither a file nor a model of the zoo; the nearest names are {", ".join(near)} '
            '(`hoyer-det zoo` lists all)'
        )
    return models[path.name].check()


def checkpoint_file(checkpoint: str) -> str:
    """Find the checkpoint file as :func:`checkpoint_path` does; an address (``https://``) stays."""
    return checkpoint if '://' in checkpoint else str(checkpoint_path(checkpoint))

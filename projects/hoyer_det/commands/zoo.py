"""``hoyer-det zoo``: list the trained models that come with the package."""

import argparse

from ..weights.zoo import zoo_models
from .errors import one_line_errors


def main() -> None:
    """List."""
    argparse.ArgumentParser(
        description='List the trained models that come with the package, for `hoyer-det detect NAME`.'
    ).parse_args()
    with one_line_errors():
        models = zoo_models().values()
        width = max((len(model.name) for model in models), default=0)
        for model in models:
            print(
                f'{model.name:<{width}}  {model.bytes / 1e6:.1f} MB  AP@0.5 {model.ap50:.1f} %  '
                f'{model.description}: {", ".join(model.classes)}'
            )

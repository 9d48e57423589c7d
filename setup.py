"""Puts what OpenMMLab's MIM looks for into a wheel: configs, tools and the model index.

Everything else stands in setup.cfg. An editable installation reads the configs from the checkout.
"""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent


class BuildPackage(build_py):
    """Copies the configs beside the modules, as ``hoyer_det/.mim/configs``."""

    def run(self) -> None:
        """Copy modules, then configs."""
        super().run()
        if self.editable_mode:
            return
        target = Path(self.build_lib, 'hoyer_det', '.mim')
        shutil.rmtree(target, ignore_errors=True)  # of an earlier build
        junk = shutil.ignore_patterns('__pycache__', '.*')
        shutil.copytree(ROOT / 'configs', target / 'configs', ignore=junk)
        (target / 'tools').mkdir()
        for name in ('train.py', 'test.py', 'analyze.py'):
            shutil.copy(ROOT / 'tools' / name, target / 'tools')
        shutil.copy(ROOT / 'model-index.yml', target)


setup(cmdclass={'build_py': BuildPackage})

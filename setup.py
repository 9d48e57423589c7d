"""Puts what OpenMMLab's MIM looks for into a wheel: configs, tools and the model index.

Everything else stands in setup.cfg. An editable installation reads the configs from the checkout.
"""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
OF_THE_CHECKOUT = ('demo.py', 'set_up.py')  # tools that make an environment, or run in one made so


class BuildPackage(build_py):
    """Copies configs and tools beside the modules, into ``hoyer_det/.mim``."""

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
        for tool in (ROOT / 'tools').glob('*.py'):
            if tool.name not in OF_THE_CHECKOUT:
                shutil.copy(tool, target / 'tools')
        shutil.copy(ROOT / 'model-index.yml', target)


setup(cmdclass={'build_py': BuildPackage})

"""What pyproject.toml cannot say: the wheel holds the folder conf/ as unitune/conf."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class WithConf(build_py):
    """Copies conf/ beside the package's modules; an editable install reads it in the checkout."""

    def run(self) -> None:
        """Build the modules, then copy."""
        super().run()
        if not self.editable_mode:
            packaged = Path(self.build_lib) / "unitune" / "conf"
            shutil.rmtree(packaged, ignore_errors=True)
            shutil.copytree("conf", packaged, ignore=shutil.ignore_patterns("__pycache__"))


setup(cmdclass={"build_py": WithConf})

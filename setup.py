"""Ships configs/ as vlm_crash/_configs in a wheel; everything else is in pyproject.toml.

An editable install copies nothing: there configs/ is found beside the package.
"""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithConfigs(build_py):
    """build_py, and then the YAMLs of configs/ go into the package that is being built."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            target = Path(self.build_lib, "vlm_crash", "_configs")
            shutil.copytree(Path(__file__).parent / "configs", target, dirs_exist_ok=True)


setup(cmdclass={"build_py": BuildWithConfigs})

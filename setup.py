"""What pyproject.toml cannot say: an editable install is of a clone, so that the clone's folders are importable too."""

from setuptools import setup
from setuptools.command.editable_wheel import editable_wheel


class EditableClone(editable_wheel):
    """`pip install -e .`: `from runtime import ...`, `from train import ...` work from any working folder."""

    def run(self) -> None:
        """Add the clone's folders to what is installed, and install."""
        self.distribution.packages += ["runtime", "train", "export", "plugins", "benchmarks"]
        super().run()


setup(cmdclass={"editable_wheel": EditableClone})

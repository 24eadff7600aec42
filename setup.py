"""What pyproject.toml cannot say: an editable install brings a clone's folders too; the description stands alone."""

import re
from pathlib import Path

from setuptools import setup
from setuptools.command.editable_wheel import editable_wheel

ROOT = Path(__file__).resolve().parent
FOLDERS = ("runtime", "train", "export", "plugins", "benchmarks")


class EditableClone(editable_wheel):
    """`pip install -e .`: `from runtime import ...`, `from train import ...` work from any working folder."""

    def run(self) -> None:
        """Add the clone's folders to what is installed, and install."""
        self.distribution.packages += [name for name in FOLDERS if (ROOT / name).is_dir()]
        super().run()


def long_description() -> str:
    """Return README.md for a package index: without pictures and links that lead to files of the clone."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    text = re.sub(r"!\[[^\]]*\]\((?!https?:)[^)]*\)\n*", "", text)
    return re.sub(r"\[([^\]]+)\]\((?!https?:)[^)]*\)", r"\1", text)


setup(
    cmdclass={"editable_wheel": EditableClone},
    long_description=long_description(),
    long_description_content_type="text/markdown",
)

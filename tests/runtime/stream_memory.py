"""Stream a picture of any size from and to disk and print the peak memory of the process that did it:
`python tests/runtime/stream_memory.py --width 20000 --height 20000` (some minutes, and 6 GB of disk).

The network is a small one, unless --model names another: how much a network needs follows from its tile, which is the
same for any picture.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import tifffile
from PIL import Image
from small_networks import make_network, write_model

ROOT = Path(__file__).resolve().parents[2]
ROWS = 64


def write_picture(path: Path, width: int, height: int) -> None:
    """The sample photograph side by side, strip by strip."""
    photograph = np.asarray(Image.open(ROOT / "assets" / "sample.png").convert("RGB"))
    repeats = -(-width // photograph.shape[1])

    def strips() -> Iterator[np.ndarray]:
        for first in range(0, height, ROWS):
            rows = np.arange(first, min(first + ROWS, height)) % len(photograph)
            yield np.tile(photograph[rows], (1, repeats, 1))[:, :width]

    tifffile.imwrite(
        path, strips(), shape=(height, width, 3), dtype=np.uint8, photometric="rgb", rowsperstrip=ROWS, metadata=None
    )


def main() -> int:
    """Make the picture, stream it, check the result's size; returns 1 if the stream failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=20_000)
    parser.add_argument("--height", type=int, default=20_000)
    parser.add_argument("--model", help="default: a small x2 network")
    parser.add_argument("--tile", default="256")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ignn_stream_") as name:
        folder = Path(name)
        source, target = folder / "in.tif", folder / "out.tif"
        write_picture(source, arguments.width, arguments.height)
        model = arguments.model or str(write_model(folder / "x2.onnx", make_network(2)))
        command = [sys.executable, "-m", "runtime.cli", "upscale", str(source), "-o", str(target), "--stream"]
        start = time.monotonic()
        result = subprocess.run([*command, "--model", model, "--tile", arguments.tile], cwd=ROOT)
        if result.returncode:
            return 1
        seconds = time.monotonic() - start
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss << 10
        with tifffile.TiffFile(target) as written:
            height, width, _ = written.pages[0].shape
    sys.stdout.write(
        f"{arguments.width} x {arguments.height} to {width} x {height}: peak {peak / 1e6:.0f} MB, {seconds:.0f} s\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())

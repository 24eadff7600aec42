"""Print how many neighbors move where WindowedKnn multiplies float32 in another way; no GPU is needed.

    python -m benchmarks.gpu.fp32_products

The maps are those of the bundled checkpoint and the sample photograph. A GPU's tensor cores are emulated: exact
products of rounded values, sums cut to float32 after each step of 8 (TF32) or 16 (float16) numbers. The neighbors are
held against those by float64. docs/operators.md shows the table. It takes minutes.
"""

from __future__ import annotations

import sys

import numpy as np
from numpy.typing import NDArray

from benchmarks.results import REPOSITORY
from benchmarks.subjects import photograph

Floats = NDArray[np.float32]
Terms = list[tuple[Floats, Floats]]

NEIGHBORS, WINDOW, SCALE, QUERIES = 5, 30, 2, 1200


def tf32(x: Floats) -> Floats:
    """Round to 10 bits of mantissa, half away from zero."""
    return ((x.view(np.uint32) + np.uint32(0x1000)) & np.uint32(0xFFFFE000)).view(np.float32)


def fp16(x: Floats) -> Floats:
    """Round to float16."""
    return x.astype(np.float16).astype(np.float32)


def split_terms(query: Floats, key: Floats, kind: str) -> Terms:
    """Return the three products of values that are split in two, the small ones first."""
    round_to = tf32 if kind == "tf32" else fp16
    (query_high, key_high) = round_to(query), round_to(key)
    query_low, key_low = round_to(query - query_high), round_to(key - key_high)
    return [(query_low, key_high), (query_high, key_low), (query_high, key_high)]


def products(terms: Terms, step: int, *, cut: bool = True) -> Floats:
    """Return (queries, keys) sums of products as the hardware adds them: `step` at once, cut or rounded to float32."""
    sums = np.zeros((len(terms[0][0]), len(terms[0][1])), np.float32)
    for first in range(0, terms[0][0].shape[1], step):
        for a, b in terms:
            part = np.s_[:, first : first + step]
            exact = sums + a[part].astype(np.float64) @ b[part].astype(np.float64).T
            sums = exact.astype(np.float32)
            if cut:
                too_large = np.abs(sums) > np.abs(exact)
                sums[too_large] = np.nextafter(sums[too_large], np.float32(0))
    return sums


def maps() -> tuple[Floats, Floats]:
    """Return query and key map of the sample photograph: (64, 120, 160) and (64, 60, 80)."""
    import torch

    from export.to_onnx import load_trained

    net = load_trained(REPOSITORY / "train" / "weights" / "ignn-s-x2.pt")
    lr = torch.from_numpy(photograph(120, 160).transpose(2, 0, 1)[None].astype(np.float32))
    with torch.no_grad():
        query, key = net.embedding(lr), net.embedding(net.reduce(lr))
    return query[0].numpy(), key[0].numpy()


def patches(x: Floats) -> Floats:
    """Return (rows, columns, 576): every patch's values, pixel by pixel."""
    x = np.pad(x, ((0, 0), (0, 1 - x.shape[1] % 2), (0, 1 - x.shape[2] % 2)))
    found = np.lib.stride_tricks.sliding_window_view(x, (3, 3), (1, 2))[:, ::2, ::2]
    return np.ascontiguousarray(found.transpose(1, 2, 3, 4, 0)).reshape(*found.shape[1:3], -1)


def main() -> int:
    query, key = map(patches, maps())
    (m1, m2), (n1, n2) = query.shape[:2], key.shape[:2]
    chosen = np.random.default_rng(0).choice(m1 * m2, QUERIES, replace=False)
    query, key = query.reshape(m1 * m2, -1)[chosen], key.reshape(n1 * n2, -1)
    side = min(WINDOW, n1, n2)
    row, column = np.divmod(np.arange(n1 * n2), n2)
    first1 = np.clip(chosen // m2 // SCALE - side // 2, 0, n1 - side)[:, None]
    first2 = np.clip(chosen % m2 // SCALE - side // 2, 0, n2 - side)[:, None]
    inside = (first1 <= row) & (row < first1 + side) & (first2 <= column) & (column < first2 + side)
    exact = query.astype(np.float64) @ key.astype(np.float64).T
    norm = np.square(key.astype(np.float64)).sum(1)

    def nearest(sums: NDArray) -> NDArray:
        distance = np.where(inside, norm.astype(sums.dtype) - 2 * sums, np.inf)
        return np.argsort(distance, axis=1, kind="stable")[:, :NEIGHBORS]

    right = nearest(exact)
    ways: dict[str, Floats] = {
        "fp32 by FMA": products([(query, key)], 1, cut=False),
        "TF32": products([(tf32(query), tf32(key))], 8),
        "3xTF32": products(split_terms(query, key, "tf32"), 8),
        "fp16": products([(fp16(query), fp16(key))], 16),
        "split fp16, three products": products(split_terms(query, key, "fp16"), 16),
    }
    sys.stdout.write(
        "| products | neighbors in another place | other neighbors | error of a sum, rms |\n|---|---|---|---|\n"
    )
    for name, sums in ways.items():
        found = nearest(sums)
        moved = int((found != right).sum())
        other = sum(len(set(a) - set(b)) for a, b in zip(found.tolist(), right.tolist(), strict=True))
        error = np.sqrt(np.mean((sums - exact)[inside] ** 2))
        sys.stdout.write(f"| {name} | {moved} of {right.size} | {other} | {error:.1g} |\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

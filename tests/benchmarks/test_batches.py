"""Batches: eight pictures however they are run, and the sentence that says where they pay."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks import batches, subjects


def row(ratio: float) -> dict[str, Any]:
    numbers = {"wall_s": {"p50": 4.0}, "peak_bytes": 10**8, "rounds": 3}
    config = {"model": "ignn-s", "side": 64, "batches": [1, 8]}
    found = {"alternatives": {"batch 1": numbers, "batch 8": numbers}, "ratios": {"batch 8": {"wall": ratio, "cpu": 1}}}
    return {"config": config, "measurements": found}


def test_a_batch_pays_from_five_per_cent_on() -> None:
    assert "No batch saves" in batches.remarks([row(0.96)])[0]
    assert "ignn-s at 64 x 64 with a batch of 8" in batches.remarks([row(0.94)])[0]
    assert [line["pictures/s"] for line in batches.table([row(0.94)])] == [2, 2]


def test_a_batch_computes_what_a_call_alone_does() -> None:
    model = str(subjects.onnx_file("ignn-s"))
    results = [batches.pictures(model, 48, 1, batch)() for batch in (1, 4)]
    assert results[1].shape == (4, 3, 96, 96)
    for one in results[1]:
        np.testing.assert_allclose(one, results[0][0], rtol=0, atol=1e-3)  # of 255

"""What fits on a multiprocessor, from what ptxas writes."""

from __future__ import annotations

import pytest

from benchmarks.gpu.occupancy import KERNELS, blocks, main, occupancy_table, registers
from runtime.errors import UsageError

LOG = "".join(
    f"ptxas info    : Compiling entry function '_ZN{symbol}X' for 'sm_86'\nptxas info    : Function properties for x\n"
    f"    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads\nptxas info    : Used {used} registers\n"
    for symbol, used in (
        ("windowed_knnI6__halfLi32ELi5E", 226),
        ("windowed_knnI6__halfLi64ELi5E", 247),
        ("windowed_knnIfLi16ELi5E", 254),
        ("key_statisticsIN_12ChannelsLastI6__halfEELi2E", 96),
        ("key_statisticsIN_12ChannelsLastIfEELi2E", 40),
        ("adapn_gatherIN_12ChannelsLastI6__halfEELi2E", 120),
        ("adapn_gatherIN_12ChannelsLastIfEELi2E", 64),
    )
)


def test_registers_by_kernel() -> None:
    assert registers(LOG)["sm_86", "_ZNwindowed_knnI6__halfLi32ELi5EX"] == 226


@pytest.mark.parametrize(
    ("kernel", "used", "architecture", "expected"),
    [
        (0, 226, "sm_86", 2),  # by its registers and by its shared memory: two of 45 KB in 100 KB
        (1, 247, "sm_86", 1),  # by its shared memory
        (1, 247, "sm_90", 2),
        (0, 255, "sm_75", 1),
        (6, 64, "sm_75", 4),  # by its threads and registers
    ],
)
def test_blocks_that_fit(kernel: int, used: int, architecture: str, expected: int) -> None:
    assert blocks(KERNELS[kernel], used, architecture) == expected


def test_the_table() -> None:
    lines = occupancy_table(LOG)
    assert lines[0] == "| kernel | shared memory | sm_86 |"
    assert lines[2] == "| WindowedKnn fp16, 32 channels at once | 45.1 KB | 226 / 2 |"
    assert [line.split(" | ")[-1] for line in lines[3:]] == [
        "247 / 1 |",
        "254 / 2 |",
        "96 / 2 |",
        "40 / 6 |",
        "120 / 2 |",
        "64 / 4 |",
    ]


def test_an_architecture_that_is_not_known() -> None:
    with pytest.raises(UsageError, match=r"Invalid architecture \(sm_70\)\. Supported values are sm_75"):
        main(["sm_70"])

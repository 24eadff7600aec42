"""What of benchmarks/gpu runs without a GPU: the plain operators' meaning, the floors' arithmetic, the message."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from benchmarks import baseline, graph_overhead, subjects
from benchmarks.gpu import correctness, kernels, networks, plain, rtx_engine, table
from runtime.errors import BackendUnavailableError
from train import ops


@pytest.mark.parametrize("scale", [2, 3])
@pytest.mark.parametrize("size", [(37, 52), (60, 31)])
@pytest.mark.parametrize("window", [4, 30])
def test_plain_operators_mean_the_same(scale: int, size: tuple[int, int], window: int) -> None:
    torch.manual_seed(0)
    query = torch.randn(2, 16, *size)
    key = torch.randn(2, 16, size[0] // scale, size[1] // scale)
    index, edge = plain.windowed_knn(query, key, 3, window, scale)
    expected_index, expected_edge = ops.windowed_knn(query, key, 3, window, scale)
    assert torch.equal(index, expected_index)
    torch.testing.assert_close(edge, expected_edge, rtol=1e-4, atol=1e-4)

    neighbor = index[..., 1].contiguous()
    output = plain.adapn_gather(query, neighbor, scale, 1e-5)
    expected = ops.adapn_gather(query, *ops.key_statistics(query, scale, 1e-5), neighbor, scale, 1e-5)
    torch.testing.assert_close(output, expected, rtol=1e-4, atol=1e-4)


def test_floors() -> None:
    # The figures in the kernels' headers, per pixel.
    assert kernels.windowed_knn_flops(540, 960, 2) == 259_200 * 540 * 960
    assert kernels.key_statistics_bytes(540, 960, 2, 2) == 640 * 540 * 960
    assert kernels.adapn_gather_bytes(540, 960, 2, 2) == 2689 * 540 * 960
    assert kernels.windowed_knn_flops(40, 40, 2) == 2 * 9 * 64 * 10 * 10 * 20 * 20  # the whole grid is the window


def test_networks_in_half_are_the_network() -> None:
    net, lr = subjects.network("tiny"), torch.from_numpy(subjects.lr_input(40, 44))
    with torch.inference_mode():
        expected = net(lr)
    assert networks.psnr(networks.in_half(net)(lr), expected) > 50
    assert networks.psnr(networks.in_half(lambda x: baseline.straightforward(net, x))(lr), expected) > 50
    assert networks.in_half(lambda x: graph_overhead.convolutions(net, x))(lr).shape == expected.shape


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
@pytest.mark.parametrize(
    ("main", "arguments"),
    [(kernels.main, []), (correctness.main, []), (networks.main, []), (rtx_engine.main, ["model.onnx"])],
)
def test_without_a_gpu_they_say_so(main: Callable[[list[str]], int], arguments: list[str]) -> None:
    with pytest.raises(BackendUnavailableError, match="No CUDA device"):
        main(arguments)


def test_the_page_is_of_the_results() -> None:
    assert (table.RESULTS / "README.md").read_text(encoding="utf-8") == table.page()

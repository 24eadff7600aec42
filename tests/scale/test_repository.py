"""What `ignn serve` writes, and what its models make of strange input; without a server."""

from __future__ import annotations

import io
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from runtime import cli, errors
from runtime.models import bundled_models
from runtime.serving.limits import Limits
from runtime.serving.model import array_of, bytes_of, parse_options
from runtime.serving.repository import Service, write_repository
from runtime.serving.server import Ports, server_command

NAMES = {model.name for model in bundled_models()}


def config_of(folder: Path):
    """A model's configuration, parsed by NVIDIA's own schema."""
    schema = pytest.importorskip("tritonclient.grpc.model_config_pb2", reason="needs the extra client")
    text_format = pytest.importorskip("google.protobuf.text_format")
    return text_format.Parse((folder / "config.pbtxt").read_text(), schema.ModelConfig())


def test_a_repository_of_all_bundled_models(tmp_path, capsys):
    assert cli.main(["serve", "--only-repository", str(tmp_path / "models")]) == 0
    assert {path.name for path in (tmp_path / "models").iterdir()} == NAMES | {f"{name}-file" for name in NAMES}
    assert "ignn-s-x2-file" in capsys.readouterr().out
    for folder in (tmp_path / "models").iterdir():
        config = config_of(folder)
        assert config.name == folder.name
        assert config.backend == "python"
        assert (folder / "1" / "model.py").is_file()
        assert config.model_warmup[0].batch_size == 1
        for tensor in config.model_warmup[0].inputs.values():
            assert not tensor.input_data_file or (folder / "warmup" / tensor.input_data_file).is_file()


def test_limits_and_instances_reach_the_configuration(tmp_path):
    limits = Limits(max_pixels=123, max_bytes=456, queue=7, timeout_seconds=8)
    write_repository(tmp_path / "models", ["ignn-s-x3"], Service(limits, "cuda", instances=2, threads=3))
    config = config_of(tmp_path / "models" / "ignn-s-x3")
    values = {key: value.string_value for key, value in config.parameters.items()}
    assert (values["max_pixels"], values["max_bytes"], values["threads"], values["scale"]) == ("123", "456", "3", "3")
    policy = config.dynamic_batching.default_queue_policy
    assert (policy.max_queue_size, policy.default_timeout_microseconds) == (7, 8_000_000)
    assert policy.timeout_action == policy.REJECT
    group = config.instance_group[0]
    assert (group.count, group.kind) == (2, group.KIND_GPU)


def test_a_model_of_ones_own_is_copied(tmp_path):
    bundled = next(model for model in bundled_models() if model.scale == 3)
    shutil.copy(bundled.checked_path(), tmp_path / "mine.onnx")
    assert write_repository(tmp_path / "models", [str(tmp_path / "mine.onnx")], Service()) == ["mine", "mine-file"]
    for name in ("mine", "mine-file"):
        copy = tmp_path / "models" / name / "1" / "network.onnx"
        assert copy.read_bytes() == (tmp_path / "mine.onnx").read_bytes()
        assert config_of(tmp_path / "models" / name).parameters["model"].string_value == "network.onnx"


def test_an_engine(tmp_path):
    (tmp_path / "x.plan").write_bytes(b"an engine")
    names = write_repository(tmp_path / "models", ["ignn-s-x2"], Service(), engine=tmp_path / "x.plan")
    assert names[-1] == "ignn-s-x2-engine"
    config = config_of(tmp_path / "models" / "ignn-s-x2-engine")
    assert config.platform == "tensorrt_plan"
    assert [*config.input[0].dims] == [*config.output[0].dims] == [3, -1, -1]
    assert config.input[0].data_type == config.output[0].data_type
    assert (tmp_path / "models" / "ignn-s-x2-engine" / "1" / "model.plan").read_bytes() == b"an engine"
    command = server_command(tmp_path / "models", Ports(), plugin=Path("lib.so"))
    assert "--backend-config=tensorrt,version-compatible=true" in command
    assert "--backend-config=tensorrt,plugins=lib.so" in command


def test_the_server_listens_on_this_machine_alone(tmp_path):
    command = server_command(tmp_path, Ports())
    assert {f"--{name}-address=127.0.0.1" for name in ("http", "grpc", "metrics")} <= set(command)
    assert not any("tensorrt" in argument for argument in command)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--max-pixels", "0"], r"max_pixels \(0\)"),
        (["--instances", "0"], r"--instances \(0\)"),
        (["--model", "nonesuch"], "nonesuch"),
        (["--model", "ignn-s-x2", "--model", "ignn-s-x2"], "Two models"),
        (["--engine", "nonesuch.plan"], "nonesuch.plan"),
    ],
)
def test_wrong_arguments(tmp_path, capsys, arguments, message):
    folder = tmp_path / "models"
    assert cli.main(["serve", "--only-repository", str(folder), *arguments]) == 1
    assert re.search(message, capsys.readouterr().err)
    assert not folder.exists()


def test_a_folder_with_something_in_it_is_left_alone(tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("mine")
    assert cli.main(["serve", "--only-repository", str(tmp_path)]) == 1
    assert "not empty" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize("text", [b"{", b"[]", b'{"nonesuch": 1}', b'{"quality": "90"}', b'{"quality": true}', b"\xff"])
def test_options_that_mean_nothing(text):
    with pytest.raises(errors.UsageError, match="Invalid option"):
        parse_options(text)


def test_options():
    assert parse_options(b"")[0] is None
    suffix, options = parse_options(b'{"format": "jpg", "quality": 70, "background": "white"}')
    assert (suffix, options.quality, options.background) == (".jpg", 70, "white")


@pytest.mark.parametrize("dtype", ["u1", "<u2", ">u2", "f4", "f8"])
def test_arrays_in_bytes(dtype):
    array = np.arange(24).reshape(2, 4, 3).astype(dtype)
    for given in (array, np.asfortranarray(array)):
        result = array_of(bytes_of(given), max_pixels=8)
        assert result.dtype == array.dtype
        assert np.array_equal(result, array)


def npy(header: str) -> bytes:
    """A file in NumPy's format with that header and no values."""
    text = header.ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"\x93NUMPY", errors.ImageReadError),
        (npy("{'descr': '|u1', 'fortran_order': False, 'shape': (100000, 100000), }"), errors.ImageTooLargeError),
        (npy("{'descr': '|u1', 'fortran_order': False, 'shape': (2, 2, 99999999), }"), errors.ImageReadError),
        (npy("{'descr': '|u1', 'fortran_order': False, 'shape': (-1, -1), }"), errors.InvalidImageError),
        (npy("{'descr': '|O', 'fortran_order': False, 'shape': (2, 2), }"), errors.InvalidImageError),
        (npy("{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }"), errors.InvalidImageError),
        (npy("{'descr': __import__('os').getcwd(), 'shape': (2,), }"), errors.ImageReadError),
    ],
)
def test_hostile_arrays(data, error):
    with pytest.raises(error):
        array_of(data, max_pixels=1000)


def test_pickles_are_refused():
    file = io.BytesIO()
    np.save(file, np.array([[{"a": 1}]], dtype=object), allow_pickle=True)
    with pytest.raises(errors.InvalidImageError):
        array_of(file.getvalue(), max_pixels=1000)

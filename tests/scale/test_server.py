"""`ignn serve`, `ignn probe` and `RemoteResolver` with the real tritonserver."""

from __future__ import annotations

import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image, ImageCms
from real_server import kill, processes

from runtime import cli, errors
from runtime.pictures.read import read_bytes
from runtime.serving.remote import RemoteResolver

pytestmark = pytest.mark.usefixtures("real_server")


@pytest.fixture(scope="module")
def remote(server):
    with RemoteResolver(server.grpc, patience_seconds=30) as result:
        yield result


def infer_array(protocol, server, image):
    """Ask the array model, by NVIDIA's own client."""
    module = pytest.importorskip(f"tritonclient.{protocol}")
    with module.InferenceServerClient(f"127.0.0.1:{server.ports[protocol]}") as client:
        tensor = module.InferInput("lr", [1, *image.shape], "UINT8")
        tensor.set_data_from_numpy(image[None])
        return client.infer("edsr-s-x2", [tensor]).as_numpy("sr")[0]


def refusals(server, image, count):
    """Ask with so many clients at once; return the errors of those that were refused."""
    client = pytest.importorskip("tritonclient.grpc")

    def ask(_):
        try:
            return infer_array("grpc", server, image)
        except client.InferenceServerException as error:
            return error

    with ThreadPoolExecutor(count) as threads:
        results = list(threads.map(ask, range(count)))
    return [result for result in results if isinstance(result, client.InferenceServerException)]


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_arrays_are_those_of_the_local_resolver(server, resolver, pictures, protocol):
    for image in pictures:
        assert np.array_equal(infer_array(protocol, server, image), resolver(image))


def test_eight_clients_at_once(server, resolver, pictures):
    with ThreadPoolExecutor(8) as threads:
        results = list(threads.map(lambda image: infer_array("grpc", server, image), [pictures[0]] * 4 + pictures))
    for image, result in zip([pictures[0]] * 4 + pictures, results, strict=True):
        assert np.array_equal(result, resolver(image))


@pytest.mark.parametrize(
    ("dtype", "shape"), [("u1", (20, 31, 3)), ("u2", (20, 31)), ("f4", (20, 30, 4)), ("f8", (20, 30, 1))]
)
def test_every_kind_of_array(remote, resolver, dtype, shape):
    values = np.random.default_rng(1).random(shape)
    image = (values * np.iinfo(dtype).max if dtype[0] == "u" else values).astype(dtype)
    result = remote(image)
    assert result.dtype == image.dtype
    assert np.array_equal(result, resolver(image))


def test_paths_and_pil_images(remote, resolver, pictures, tmp_path):
    image = Image.fromarray(pictures[1])
    image.save(tmp_path / "a.jpg")
    for given in (image, tmp_path / "a.jpg", str(tmp_path / "a.jpg")):
        assert np.array_equal(np.asarray(remote(given)), np.asarray(resolver(given)))


def test_map_keeps_the_order_and_goes_on_after_an_error(remote, resolver, pictures):
    results = remote.map([pictures[0], np.zeros((4, 4, 2), np.uint8), *pictures[1:]])
    assert np.array_equal(next(results), resolver(pictures[0]))
    with pytest.raises(errors.InvalidImageError, match="shape"):
        next(results)
    for image, result in zip(pictures[1:], results, strict=True):
        assert np.array_equal(result, resolver(image))


def test_a_file_keeps_its_profile_its_alpha_and_its_exif(remote, tmp_path):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[0x010E] = "a cat"
    image = Image.new("RGBA", (20, 16), (200, 100, 50, 128))
    image.save(tmp_path / "a.png", icc_profile=profile, exif=exif.tobytes())
    result = read_bytes(remote.upscale_bytes((tmp_path / "a.png").read_bytes()))
    assert result.format == "PNG"
    assert result.frames[0].icc == profile
    assert b"a cat" in result.frames[0].exif
    assert np.all(result.frames[0].alpha == 128)
    jpeg = remote.upscale_bytes((tmp_path / "a.png").read_bytes(), format="jpg", background="white", quality=80)
    assert read_bytes(jpeg).format == "JPEG"


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        (b"", {}, "is empty"),
        (b"no picture", {}, "not an image"),
        (b"\x89PNG\r\n\x1a\n", {}, "The picture"),
        (b"\x93NUMPY\x01\x00", {}, "damaged"),
        (b"x" * 60_001, {}, "60,001 bytes.*limit is 60,000"),
    ],
)
def test_bad_input_fails_alone(remote, resolver, pictures, data, options, message):
    with pytest.raises(errors.InvalidImageError, match=message):
        remote.upscale_bytes(data, **options)
    assert np.array_equal(remote(pictures[0]), resolver(pictures[0]))


def test_bad_options(remote, tmp_path):
    Image.new("RGBA", (20, 16), (1, 2, 3, 4)).save(tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    for options, message in (
        ({"format": "doc"}, "doc"),
        ({"quality": 101}, "quality"),
        ({"format": "jpg"}, "transparency"),
    ):
        with pytest.raises(errors.InvalidImageError, match=message):
            remote.upscale_bytes(data, **options)


def test_too_many_pixels(server, remote):
    large = np.zeros((100, 41, 3), np.uint8)
    with pytest.raises(errors.InvalidImageError, match=r"4,100 pixels; the server's limit is 4,000"):
        remote(large)
    client = pytest.importorskip("tritonclient.grpc")
    with pytest.raises(client.InferenceServerException, match="4,100 pixels"):
        infer_array("grpc", server, large)


def test_one_bad_array_in_a_batch_of_requests(server, resolver, pictures):
    def ask(image):
        try:
            return infer_array("grpc", server, image)
        except Exception as error:
            return error

    images = [pictures[0], np.zeros((100, 41, 3), np.uint8)] * 4
    with ThreadPoolExecutor(8) as threads:
        results = list(threads.map(ask, images))
    for image, result in zip(images, results, strict=True):
        if len(image) == 100:
            assert "4,100 pixels" in str(result)
        else:
            assert np.array_equal(result, resolver(image)), result


def test_a_refusal_is_a_refusal_the_second_time(server, remote):
    """Triton's response cache would answer with an empty result."""
    for _ in range(3):
        with pytest.raises(errors.InvalidImageError, match="not an image"):
            remote.upscale_bytes(b"the same nonsense")


def test_metrics(server, remote, pictures):
    remote(pictures[7])
    with pytest.raises(errors.InvalidImageError):
        remote.upscale_bytes(b"no picture")
    with urllib.request.urlopen(f"http://127.0.0.1:{server.ports['metrics']}/metrics") as response:
        text = response.read().decode()
    for line in (
        'ignn_images_total{model="edsr-s-x2-file"}',
        'ignn_output_pixels_total{model="edsr-s-x2-file"}',
        'ignn_tiles_total{model="edsr-s-x2-file"}',
        'ignn_stage_seconds_total{model="edsr-s-x2-file",stage="network"}',
        'ignn_errors_total{kind="ImageReadError",model="edsr-s-x2-file"}',
        "nv_inference_request_success",
    ):
        assert line in text


def test_a_killed_stub_fails_the_probe_and_recovers(own_server, capsys):
    url = own_server.http
    assert cli.main(["probe", url]) == 0
    kill(own_server.stubs()["edsr-s-x2-file"])
    with urllib.request.urlopen(f"{url}/v2/models/edsr-s-x2-file/ready") as response:
        assert response.status == 200, "Triton knows now: the probe may ask it"
    assert cli.main(["probe", url]) == 1
    assert "edsr-s-x2-file" in capsys.readouterr().err
    assert cli.main(["probe", url, "--model", "edsr-s-x2"]) == 0
    assert cli.main(["probe", url, "--recover"]) == 0
    assert cli.main(["probe", url]) == 0


def test_a_server_killed_under_its_client(own_server, resolver, pictures):
    images = pictures * 3
    with RemoteResolver(own_server.grpc, in_flight=3) as remote:
        results = remote.map(images)
        found = [next(results) for _ in range(5)]
        stubs = own_server.stubs().values()
        kill(own_server.triton())
        assert "ended by itself" in own_server.process.communicate(timeout=30)[1]
        assert not {pid for pid, _, command in processes() if command[0]} & set(stubs), "a stub outlived its server"
        restart = threading.Timer(1, own_server.start)
        restart.start()
        found += results
        restart.join()
    assert len(found) == len(images)
    for image, result in zip(images, found, strict=True):
        assert np.array_equal(result, resolver(image))


def test_a_server_killed_under_the_command(own_server, resolver, pictures, tmp_path):
    """The server is killed and started again in the middle of a folder: every file is there, none was written twice."""
    (tmp_path / "in").mkdir()
    for number, image in enumerate(pictures * 2):
        Image.fromarray(image).save(tmp_path / "in" / f"{number}.png")
    command = ["upscale", str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--server", own_server.grpc]
    with ThreadPoolExecutor(1) as thread:
        running = thread.submit(cli.main, command)
        deadline = time.monotonic() + 60
        while len(list((tmp_path / "out").glob("*.png"))) < 3 and time.monotonic() < deadline:
            time.sleep(0.02)
        kill(own_server.triton())
        own_server.process.communicate(timeout=30)
        before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.png")}
        assert 3 <= len(before) < 16
        own_server.start()
        assert running.result(timeout=120) == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert len((tmp_path / "out" / ".ignn-journal.jsonl").read_text().splitlines()) == 16
    for number, image in enumerate(pictures * 2):
        with Image.open(tmp_path / "out" / f"{number}.png") as result:
            assert np.array_equal(np.asarray(result), resolver(image))


def test_a_killed_command_leaves_no_server(real_server, server):
    other = type(server)("--model", "edsr-s-x2", "--threads", "1")
    other.start()
    pids = {other.triton(), *other.stubs().values()}
    kill(other.process.pid)
    other.process.communicate()
    deadline = time.monotonic() + 40
    while left := pids & {pid for pid, _, command in processes() if command[0]}:
        assert time.monotonic() < deadline, left
        time.sleep(0.1)


def test_who_waits_too_long_in_the_queue_is_refused(real_server, server):
    slow = type(server)("--model", "edsr-s-x2", "--threads", "1", "--timeout", "1")
    slow.start()
    try:
        image = np.random.default_rng(3).integers(0, 256, (320, 320, 3), dtype=np.uint8)
        refused = refusals(slow, image, 8)
        assert 0 < len(refused) < 8
        assert {error.status() for error in refused} == {"StatusCode.UNAVAILABLE"}
        assert "timeout" in str(refused[0]).lower()
    finally:
        slow.stop()


def test_nothing_is_left_of_a_server(real_server, server):
    other = type(server)("--model", "edsr-s-x2", "--threads", "1")
    other.start()
    pids = {other.triton(), *other.stubs().values()}
    assert len(pids) == 3
    assert other.stop() == ""
    assert other.process.returncode == 0
    assert not pids & {pid for pid, _, command in processes() if command[0]}


def test_a_server_that_is_not_there(capsys):
    with pytest.raises(errors.ServerError, match="did not answer"):
        RemoteResolver("grpc://127.0.0.1:9", patience_seconds=0.5)
    assert cli.main(["probe", "http://127.0.0.1:9"]) == 1
    assert "does not answer" in capsys.readouterr().err


def test_a_model_that_is_not_there(server):
    with pytest.raises(errors.ServerError, match="nonesuch"):
        RemoteResolver(server.grpc, model="nonesuch")


def test_upscale_by_a_server(server, tmp_path, capsys):
    """The files are those of the plain command; what fails is listed; what is done is skipped."""
    source = tmp_path / "in"
    source.mkdir()
    rng = np.random.default_rng(2)
    for name in ("a.png", "b.jpg", "c.webp"):
        Image.fromarray(rng.integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(source / name)
    (source / "d.png").write_bytes(b"no picture")
    command = ["upscale", str(source), "-o", str(tmp_path / "out"), "--server", server.grpc]
    assert cli.main(command) == 1
    report = capsys.readouterr().err
    assert "d.png: The picture is not an image" in report
    assert "1 of 4 files failed" in report
    local = ["upscale", str(source), "-o", str(tmp_path / "local"), "--model", "edsr-s-x2", "--threads", "1"]
    assert cli.main(local) == 1
    names = sorted(path.name for path in (tmp_path / "local").glob("[!.]*"))
    assert names == ["a.png", "b.jpg", "c.webp"]
    for name in names:
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "local" / name).read_bytes()
    assert sorted(path.name for path in (tmp_path / "out").glob("[!.]*")) == names
    capsys.readouterr()
    assert cli.main([*command, "--resume"]) == 1
    assert "3 of 4 files are done already" in capsys.readouterr().err


def test_options_of_a_local_network_are_refused_with_a_server(server, tmp_path, capsys):
    Image.new("RGB", (16, 16)).save(tmp_path / "a.png")
    command = ["upscale", str(tmp_path / "a.png"), "-o", str(tmp_path / "b.png"), "--server", server.grpc]
    for options in (["--tile", "64"], ["--threads", "2"], ["--self-ensemble"], ["--max-pixels", "9"]):
        assert cli.main([*command, *options]) == 1
        assert f"{options[0]} is for a network on this machine" in capsys.readouterr().err
    assert cli.main([*command[:-1], "http://127.0.0.1:1"]) == 1
    assert "grpc://host:port is expected" in capsys.readouterr().err
    assert not (tmp_path / "b.png").exists()
    assert cli.main(command) == 0
    assert Image.open(tmp_path / "b.png").size == (32, 32)


def test_a_full_queue_refuses_and_the_client_comes_again(real_server, server, resolver):
    small = type(server)("--model", "edsr-s-x2", "--threads", "1", "--queue", "1")
    small.start()
    try:
        image = np.random.default_rng(3).integers(0, 256, (96, 96, 3), dtype=np.uint8)
        refused = refusals(small, image, 16)
        assert refused
        assert len(refused) < 16
        assert {error.status() for error in refused} == {"StatusCode.UNAVAILABLE"}
        with RemoteResolver(small.grpc, in_flight=8) as remote:
            for result in remote.map([image] * 16):
                assert np.array_equal(result, resolver(image))
    finally:
        small.stop()

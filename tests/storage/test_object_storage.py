"""A run in a bucket of a real S3 server (moto's) by processes that share nothing but it."""

import json
import os
import re
import subprocess
import sys
import time
import urllib.request

import pytest
from clusters import ENVIRONMENT, running_scheduler, running_workers
from clusters import wsigen as command_line
from drawing import tumor_in_stroma

pytest.importorskip("s3fs")
pytest.importorskip("moto.server", reason="needs moto[s3] and flask")
pytestmark = pytest.mark.slow

BUCKET = "wsigen-runs"


@pytest.fixture(scope="module")
def server():
    """Environment of processes that find an S3 server with an empty bucket."""
    from moto.server import ThreadedMotoServer

    running = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    env = {
        **ENVIRONMENT,
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_MAX_ATTEMPTS": "2",  # botocore asks a server that is not there five times, which takes 20 s
        "AWS_ACCESS_KEY_ID": "somebody",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    client(env).create_bucket(Bucket=BUCKET)
    yield env
    running.stop()


def wsigen(*args, cwd, env=ENVIRONMENT):
    return command_line(*args, cwd=cwd, env=env, timeout=400)


def client(env):
    import boto3

    return boto3.client(
        "s3",
        endpoint_url=env["AWS_ENDPOINT_URL"],
        aws_access_key_id=env["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=env["AWS_SECRET_ACCESS_KEY"],
        region_name="us-east-1",
    )


def keys(env, prefix):
    pages = client(env).get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
    return [entry["Key"] for page in pages for entry in page.get("Contents", [])]


def digest_of(folder, name):
    return json.loads((folder / f"{name}.json").read_text())["sha256"]["level0_tiles"]


def options_of(bundle, tmp_path, steps=2):
    layout = tumor_in_stroma(tmp_path / "layout.geojson")
    options = ["--model", bundle, "--layout", layout, "--size", "560x560", "--steps", steps, "--mode", "shifted"]
    return [str(option) for option in [*options, "--chunk", "32", "--workers", "1"]]


def test_a_killed_driver_goes_on_and_the_slide_is_the_same(bundle, tmp_path, server):
    options = options_of(bundle, tmp_path)
    done = wsigen("generate", "local.ome.tiff", *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    place = f"s3://{BUCKET}/killed/slide.run"
    command = [sys.executable, "-m", "wsigen", "generate", "there.ome.tiff", *options, "--run-dir", place]
    process = subprocess.Popen(command, cwd=tmp_path, env=server, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while len([key for key in keys(server, "killed/") if "/latents/c/1/" in key]) < 3:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.kill()
    process.wait()
    assert "killed/slide.run/driver.lock" in keys(server, "killed/")
    (tmp_path / "layout.geojson").unlink()  # the run has its own copy
    done = wsigen("info", place, "--picture", "map.png", cwd=tmp_path, env=server)
    assert re.search(r"pass 0 .* \d+ %", done.stdout), done.stderr
    done = wsigen("resume", place, "--output", "there.ome.tiff", cwd=tmp_path, env=server)
    assert done.returncode == 0, done.stderr
    assert "Unclosed" not in done.stderr
    assert digest_of(tmp_path, "there") == digest_of(tmp_path, "local")
    assert (tmp_path / "there.geojson").read_bytes() == (tmp_path / "local.geojson").read_bytes()
    assert keys(server, "killed/") == []


def test_workers_reach_the_bucket_and_make_the_slide(bundle, tmp_path, server):
    options = [*options_of(bundle, tmp_path, steps=1)]
    with running_scheduler(tmp_path, server) as address, running_workers(tmp_path, address, 1, server):
        place = f"s3://{BUCKET}/shared/slide.run"
        done = wsigen("worker-check", address, "--model", bundle, "--run-dir", place, cwd=tmp_path, env=server)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("run directory: writable") == 1
        done = wsigen(
            "worker-check", address, "--model", bundle, "--run-dir", "s3://no-such-bucket/x", cwd=tmp_path, env=server
        )
        assert done.returncode == 1
        assert done.stderr.count("no such bucket") == 2  # of this process and of the worker
        done = wsigen("generate", "a.ome.tiff", *options, "--run-dir", place, "--scheduler", address, cwd=tmp_path, env=server)
        assert done.returncode == 0, done.stderr
    assert keys(server, "shared/") == []


@pytest.mark.parametrize(
    ("place", "change", "words"),
    [
        ("s3://no-such-bucket/x", {}, "no such bucket"),
        (f"s3://{BUCKET}/x", {"AWS_ACCESS_KEY_ID": None, "AWS_SECRET_ACCESS_KEY": None}, "credentials"),
        (f"s3://{BUCKET}/x", {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, "cannot be reached"),
        (f"s3://{BUCKET}", {}, "add a prefix"),
        ("nonsense://a/b", {}, "Protocol not known"),
    ],
)
def test_a_place_that_cannot_be_used_is_one_line(bundle, tmp_path, server, place, change, words):
    env = {key: value for key, value in {**server, **change}.items() if value is not None}
    before = set(tmp_path.iterdir())
    generate = ["generate", "a.ome.tiff", "--model", bundle, "--class", "Tumor", "--size", "600x600"]
    for command in (["resume", place], generate)[: 2 if "no-such-bucket" in place else 1]:
        more = ["--run-dir", place] if command[0] == "generate" else []
        done = wsigen(*command, *more, cwd=tmp_path, env={**env, "HOME": str(tmp_path)})
        assert done.returncode == 2
        assert words in done.stderr
        assert done.stderr.startswith("wsigen: error: ")
        assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert set(tmp_path.iterdir()) == before


def test_refused_credentials_are_one_line(bundle, tmp_path, server):
    """The server asks for credentials it knows from now on; ours are none of them."""
    reset(server, "0")
    try:
        done = wsigen("resume", f"s3://{BUCKET}/x", cwd=tmp_path, env=server)
        assert done.returncode == 2
        assert "access refused" in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    finally:
        reset(server, "1000000000")


def reset(env, actions):
    """moto's own switch: so many actions go without authentication."""
    url, plain = f"{env['AWS_ENDPOINT_URL']}/moto-api/reset-auth", {"Content-Type": "text/plain"}  # a form would be parsed
    request = urllib.request.Request(url, data=actions.encode(), headers=plain, method="POST")
    with urllib.request.urlopen(request) as answer:
        assert answer.status == 200


def test_without_s3fs_the_extra_is_named(tmp_path):
    (tmp_path / "s3fs.py").write_text("raise ImportError('no s3fs here')")
    env = {**ENVIRONMENT, "PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"}
    done = wsigen("resume", f"s3://{BUCKET}/x", cwd=tmp_path, env=env)
    assert done.returncode == 2
    assert "wsigen[s3]" in done.stderr

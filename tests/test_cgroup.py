"""Limits of control groups, read from folders that look like the kernel's."""

from types import SimpleNamespace

import pytest

from wsigen.base import cgroup
from wsigen.run.config import make_config
from wsigen.run.estimate import projection

GIB = 2**30


def write(folder, files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_text(f"{content}\n")


@pytest.fixture
def kernel(tmp_path):
    """A membership file and a root to fill."""
    return SimpleNamespace(membership=tmp_path / "cgroup", root=tmp_path / "fs")


def v2(root, path, limit, used, idle=0):
    stat = f"anon {used - idle}\ninactive_file {idle}"
    write(root / path, {"memory.max": limit, "memory.current": used, "memory.stat": stat})


def v1(root, path, limit, used, idle=0):
    stat = f"inactive_file 5\ntotal_inactive_file {idle}"
    write(root / "memory" / path, {"memory.limit_in_bytes": limit, "memory.usage_in_bytes": used, "memory.stat": stat})


def found(kernel):
    where = (kernel.membership, kernel.root)
    return cgroup.memory_limit(*where), cgroup.memory_left(*where)


def test_version_2_takes_the_tightest_group_on_the_way_up(kernel):
    kernel.membership.write_text("0::/jobs/one/step\n")
    v2(kernel.root, "jobs/one/step", "max", GIB)
    v2(kernel.root, "jobs/one", 8 * GIB, 3 * GIB, idle=GIB)
    v2(kernel.root, "jobs", 16 * GIB, 15 * GIB)
    assert found(kernel) == (8 * GIB, GIB)  # 16 - 15 is less than 8 - (3 - 1)


def test_idle_page_cache_is_not_used(kernel):
    kernel.membership.write_text("0::/\n")
    v2(kernel.root, ".", 4 * GIB, 3 * GIB, idle=2 * GIB)
    assert found(kernel) == (4 * GIB, 3 * GIB)


def test_version_1_and_its_number_for_no_limit(kernel):
    kernel.membership.write_text("11:cpu,cpuacct:/x\n4:memory:/slurm/job_7\n0::/ignored\n")
    v1(kernel.root, "slurm", 9223372036854771712, 20 * GIB)
    v1(kernel.root, "slurm/job_7", 2 * GIB, GIB, idle=GIB // 2)
    assert found(kernel) == (2 * GIB, 3 * GIB // 2)


def test_a_container_knows_its_group_by_the_root_alone(kernel):
    kernel.membership.write_text("4:memory:/docker/0123abc\n")
    v1(kernel.root, ".", GIB, GIB // 4)
    assert found(kernel) == (GIB, 3 * GIB // 4)


def test_more_used_than_allowed_leaves_nothing(kernel):
    kernel.membership.write_text("0::/a\n")
    v2(kernel.root, "a", GIB, 2 * GIB)
    assert found(kernel) == (GIB, 0)


@pytest.mark.parametrize("membership", ["", "0::/nowhere\n", "nonsense\n", "1:name=systemd:/x\n"])
def test_no_limit(kernel, membership):
    kernel.membership.write_text(membership)
    assert found(kernel) == (None, None)


def test_no_control_groups_at_all(kernel):
    assert found(kernel) == (None, None)


def test_the_run_may_use_no_more_than_its_group(kernel, monkeypatch):
    kernel.membership.write_text("0::/a\n")
    v2(kernel.root, "a", 64 * 2**20, 2**20)
    monkeypatch.setattr(projection, "memory_left", lambda: cgroup.memory_left(kernel.membership, kernel.root))
    config = {"size": "512x512"}
    assert projection.allowed_memory(make_config(config)) == 63 * 2**20
    assert projection.allowed_memory(make_config({**config, "memory_gb": 2})) == 2 * GIB  # the user knows better

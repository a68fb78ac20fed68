"""Ray, started for one job on this machine, or joined at an address.

What is started here listens on the loopback interface alone, has no dashboard, and wants a token that is drawn for it
and passed on in the environment: other users of the machine find ports that do not answer them. Ray calls loopback an
address for platforms without clusters, and replaces it by the machine's own elsewhere; so it is told that this is one.
What is left: processes of the same user can read the token, and Ray's tasks and objects are pickles, so who has the
token can run code as this user. A cluster at an address is guarded as whoever started it has decided.

If this process is killed by SIGKILL, Ray's processes end with it, but for two agents that take a minute, in which they
try to tell a server that is gone; they hold nothing of the corpus.
"""

from __future__ import annotations

import os
import secrets
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from brickyard.shards.errors import BrickyardError

_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_memory_monitor_refresh_ms": "0",  # the kernel ends the process that takes the memory, Ray some worker
    "RAY_task_oom_retries": "2",  # without end by default: a scene that takes all memory would be tried for ever
    # A node that freezes or is cut off leaves requests of the driver unanswered. By itself Ray asks again once in five
    # minutes, which holds up tasks that other nodes could do.
    "RAY_grpc_client_keepalive_time_ms": "5000",
    "RAY_grpc_client_keepalive_timeout_ms": "10000",
}


@contextmanager
def cluster(cpus: int, address: str | None, code: Path | None = None) -> Iterator[Any]:
    """The module `ray`, connected until the end of the block.

    Args:
        cpus: of the cluster that is started here.
        address: of a running one instead.
        code: folder that is copied to its nodes and goes before what is installed there.

    Raises:
        BrickyardError: nothing answers at the address.
    """
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    import ray
    from ray._private import ray_constants

    if address is None and "RAY_AUTH_MODE" not in os.environ:
        _draw_token()
    handler = signal.getsignal(signal.SIGTERM)
    has_clusters = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = has_clusters and address is not None
    try:
        _start(ray, cpus, address, code)
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)  # Ray's own would end the process without a word
        yield ray
    finally:
        ray.shutdown()
        ray_constants.ENABLE_RAY_CLUSTER = has_clusters


def _start(ray: Any, cpus: int, address: str | None, code: Path | None) -> None:
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": True}
    if address is None:
        ray.init(
            address="local",
            num_cpus=cpus,
            include_dashboard=False,
            _node_ip_address="127.0.0.1",
            object_store_memory=128 << 20,  # tasks exchange references and reports, never payloads
            **quiet,
        )
        return
    try:
        ray.init(address=address, runtime_env={} if code is None else {"working_dir": str(code)}, **quiet)
    except (ConnectionError, ValueError) as problem:
        raise BrickyardError(f"no Ray cluster answers at {address}: {problem}") from problem


def _draw_token() -> None:
    """For all clusters that this process starts, as Ray keeps it; what the user has decided stays."""
    from ray import _raylet as module

    raylet: Any = module
    os.environ["RAY_AUTH_MODE"] = "token"
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    raylet.Config.initialize("")  # both may have looked already, when `ray` was imported
    raylet.AuthenticationTokenLoader.instance().reset_cache()

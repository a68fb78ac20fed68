"""The file systems behind the addresses of stores."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import pyarrow as pa
import pyarrow.fs as pafs

from brickyard.shards.clients import shared
from brickyard.shards.errors import CorpusError
from brickyard.shards.retry import RetryPolicy
from brickyard.shards.uri import HIDDEN, Location, hide

_FLAGS = (
    "allow_bucket_creation",
    "allow_bucket_deletion",
    "allow_delayed_open",
    "check_directory_existence_before_creation",
    "force_virtual_addressing",
)
_TEXTS = ("access_key", "secret_key", "session_token", "region", "scheme", "endpoint_override", "tls_ca_file_path")


def open_filesystem(location: Location, policy: RetryPolicy) -> tuple[pafs.FileSystem, str]:
    """(file system, path in it) of a URI. Raises `CorpusError`, without secrets, for one that cannot be opened."""
    try:
        if location.whole.startswith("s3://"):
            return _open_s3(location.whole, policy)
        return tuple(pafs.FileSystem.from_uri(location.whole))
    except TimeoutError as problem:
        raise CorpusError(f"{location} cannot be opened now: {problem}") from None
    except (pa.ArrowException, OSError, ValueError, TypeError) as problem:
        text = hide(str(problem), location.whole)
    raise CorpusError(f"{location} is no address this program can open: {text}")  # no cause: it may quote the secret


def _open_s3(uri: str, policy: RetryPolicy) -> tuple[pafs.FileSystem, str]:
    """S3 with our timeouts and no retries of its own: one policy decides, attempts do not multiply.

    The SDK gives a connection up that moves less than 1 byte/s for `idle_s` (measured: within idle_s + 6 s).
    """
    parts = urlsplit(uri)
    if "@" in parts.path:
        raise ValueError("its first '/' stands before the '@': in a key or secret, write '/' as %2F")
    login, _, bucket = parts.netloc.rpartition("@")
    user, _, password = login.partition(":")
    given = dict(parse_qsl(parts.query))
    if login and login != HIDDEN:
        given |= {"access_key": unquote(user), "secret_key": unquote(password)}
    given = {name: value for name, value in given.items() if value != HIDDEN}
    if unknown := given.keys() - {*_FLAGS, *_TEXTS}:
        raise ValueError(f"unknown options {', '.join(sorted(unknown))}; known are {', '.join((*_TEXTS, *_FLAGS))}")
    options: dict[str, Any] = {name: given[name] for name in _TEXTS if name in given}
    options |= {name: given[name].lower() in ("true", "1") for name in _FLAGS if name in given}
    options.setdefault("allow_delayed_open", True)  # a small file is one request, not three
    options = _endpoint(options, os.environ)
    if "region" not in options and "endpoint_override" in options:
        options["region"] = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"

    def make() -> pafs.FileSystem:
        return pafs.S3FileSystem(
            **({"region": pafs.resolve_s3_region(bucket)} | options if "region" not in options else options),
            connect_timeout=policy.connect_s,
            request_timeout=policy.idle_s,
            retry_strategy=pafs.AwsStandardS3RetryStrategy(max_attempts=1),
        )

    place = "" if "region" in options else bucket  # whose region has to be asked for
    key = (place, tuple(sorted(options.items())), policy.connect_s, policy.idle_s)
    filesystem = shared(key, make, policy.request_s)
    return filesystem, unquote(f"{bucket}{parts.path}").strip("/")


def _endpoint(options: dict[str, Any], environment: Mapping[str, str]) -> dict[str, Any]:
    """The endpoint of the URI, or else of the environment, split into scheme and address."""
    default = environment.get("AWS_ENDPOINT_URL_S3") or environment.get("AWS_ENDPOINT_URL")
    endpoint = options.get("endpoint_override") or default
    if not endpoint:
        return options
    scheme, mark, address = endpoint.partition("://")
    named = {"scheme": scheme} if mark else {}
    return named | options | {"endpoint_override": (address if mark else endpoint).rstrip("/")}

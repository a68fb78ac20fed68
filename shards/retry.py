"""What to do when a store far away does not answer: wait a little, ask again, and give up in bounded time.

One policy rules every request. The pause before retry k is drawn evenly from [0, min(cap_s, base_s * 2^k)] ("full
jitter"), so that many readers that failed together do not come back together. Timeouts, broken connections, short
answers, throttling and the server's own errors (5xx) are tried again; what will not change by asking (no such file, no
permission, a malformed request) is raised at once. An attempt runs in a thread of its own (about 0.1 ms) and is
abandoned when its time is over, because a connection that drips a byte a second satisfies every socket timeout.

Time: a call ends within deadline_s + request_s, whatever the network does.
"""

from __future__ import annotations

import random
import re
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")

_jitter = random.Random()
"""Its own generator: a training's seeded one must not depend on the network."""

_abandoned: weakref.WeakSet[threading.Thread] = weakref.WeakSet()

_PERMANENT = (FileNotFoundError, PermissionError, FileExistsError, IsADirectoryError, NotADirectoryError)

_NO_SUCH_FILE = re.compile(r"RESOURCE_NOT_FOUND|NO_SUCH_(BUCKET|KEY)|HTTP status 404|Status\(NOT_FOUND")
_REFUSED = re.compile(
    r"ACCESS_DENIED|INVALID_ACCESS_KEY_ID|INVALID_CLIENT_TOKEN_ID|INVALID_SIGNATURE|SIGNATURE_DOES_NOT_MATCH"
    r"|MISSING_AUTHENTICATION_TOKEN|UNRECOGNIZED_CLIENT|HTTP status 40[0-35-7]|HTTP status 4(09|1\d)"
    r"|Status\((PERMISSION_DENIED|UNAUTHENTICATED|INVALID_ARGUMENT)|AuthenticationFailed|AuthorizationFailure"
)
"""How the SDKs below `pyarrow.fs` (AWS, Google, Azure) word what asking again does not change."""


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """How long to keep asking.

    Attributes:
        attempts: at most, the first one included.
        base_s, cap_s: the pause before retry k is even in [0, min(cap_s, base_s * 2^k)] seconds.
        deadline_s: no new attempt begins so long after the first.
        request_s: an attempt is abandoned after so long.
        idle_s: a connection that carries nothing for so long is given up (S3; whole seconds).
        connect_s: for opening a connection (S3).
        rereads: times that bytes with a wrong digest are fetched again before they count as damaged.
    """

    attempts: int = 8
    base_s: float = 0.1
    cap_s: float = 10.0
    deadline_s: float = 300.0
    request_s: float = 60.0
    idle_s: float = 10.0
    connect_s: float = 5.0
    rereads: int = 3

    def __post_init__(self) -> None:
        times = (self.base_s, self.cap_s, self.deadline_s, self.request_s, self.idle_s, self.connect_s)
        if self.attempts < 1 or self.rereads < 0 or min(times) < 0:
            raise ValueError("a retry policy needs at least one attempt, and times and rereads that are not negative")


class ShortRead(OSError):
    """Fewer bytes came than were asked for and are there."""


def refined(problem: OSError) -> OSError:
    """The error as the type that says what it is: stores without error numbers only describe it."""
    if type(problem) is OSError and _NO_SUCH_FILE.search(str(problem)):
        return FileNotFoundError(str(problem))
    if type(problem) is OSError and _REFUSED.search(str(problem)):
        return PermissionError(str(problem))
    return problem


def is_transient(problem: OSError) -> bool:
    """Whether asking again may help."""
    return not isinstance(refined(problem), _PERMANENT)


def retry(
    call: Callable[[], T],
    policy: RetryPolicy,
    *,
    sleep: Callable[[float], Any] = time.sleep,
    uniform: Callable[[float, float], float] = _jitter.uniform,
    clock: Callable[[], float] = time.monotonic,
) -> T:
    """The value of `call`, tried as the policy says.

    Raises:
        OSError: what the last attempt raised, with the number of attempts; at once where trying again cannot help.
    """
    begin = clock()
    for attempt in range(policy.attempts):
        try:
            return call()
        except OSError as problem:
            if not is_transient(problem):
                raise refined(problem) from problem
            pause = uniform(0.0, min(policy.cap_s, policy.base_s * 2.0**attempt))
            spent = clock() - begin
            if attempt + 1 == policy.attempts or spent + pause > policy.deadline_s:
                tried = f"{attempt + 1} attempts in {spent:.1f} s"
                raise OSError(f"{problem} (gave up after {tried})") from problem
        sleep(pause)
    raise AssertionError("unreachable: the last attempt returns or raises")


def bounded(call: Callable[[], T], seconds: float) -> T:
    """The value of `call`, run in a daemon thread; `TimeoutError` if it has not ended after so many seconds.

    An abandoned call goes on by itself; it must not write into memory of its caller.
    """
    values: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            values.append(call())
        except BaseException as problem:  # handed to the thread that waits
            errors.append(problem)

    thread = threading.Thread(target=run, name="brickyard-request", daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not values:
        _abandoned.add(thread)
        raise TimeoutError(f"no answer within {seconds:g} s")
    return values[0]


def abandoned() -> int:
    """How many abandoned calls have not ended yet."""
    return sum(thread.is_alive() for thread in list(_abandoned))

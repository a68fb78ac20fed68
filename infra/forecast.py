"""A build on a cluster that is not there: discrete events (SimPy), from a plan's tasks and the costs of a raw byte.

A task waits for a core, is handed out by the one head, reads its raw bytes (the node's disk or the shared store,
whichever is slower for it), works, and writes its shard. Readers of a node share its disk and its network, readers of
all nodes share the store; the share is taken as it stands when the transfer begins. Work varies as measured
(log-normal), some tasks straggle and are copied once cores are idle, nodes may be taken away and come back, and an
autoscaler adds nodes after a delay while tasks wait. Same seed, same forecast.
"""

from __future__ import annotations

import heapq
import math
from collections import defaultdict
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

_STRAGGLES, _STRAGGLES_S = 3.0, 30.0
"""As of `infra.on_ray`: when a task is copied."""
_CURVE = 400


@dataclass(frozen=True, kw_only=True)
class ClusterConfig:
    """A cluster of equal nodes.

    Attributes:
        nodes: at the start.
        cores: of a node. memory_gib: of a node; tasks of the declared memory fit into it.
        disk_mib_s: what a node reads from its disk in all; null where raw data lie in the store alone.
        network_mib_s: what a node reads and writes over the network in all.
        store_mib_s: what the shared store gives and takes in all.
        raw_on: "store", or "disk" where every node has the raw data.
        handing_out_s: of the head, for a task.
        start_s: until a worker has started.
        variation: of the time of equal work, standard deviation of its logarithm.
        straggling: share of tasks that take `slowdown` times as long.
        taken_per_hour: how often a node is taken away, a mean; it is back after `delay_s`.
        most_nodes: that an autoscaler may add up to; null for none. delay_s: until a node that was asked for is there.
        price_per_hour: of a node.
        seed: of what is drawn.
    """

    nodes: int = 1
    cores: int = 8
    memory_gib: float = 32.0
    disk_mib_s: float | None = None
    network_mib_s: float = 1200.0
    store_mib_s: float = 10_000.0
    raw_on: str = "store"
    handing_out_s: float = 0.005
    start_s: float = 4.0
    variation: float = 0.2
    straggling: float = 0.0
    slowdown: float = 4.0
    taken_per_hour: float = 0.0
    most_nodes: int | None = None
    delay_s: float = 120.0
    price_per_hour: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.nodes, self.cores) < 1 or (self.most_nodes is not None and self.most_nodes < self.nodes):
            raise ValueError("nodes and cores must be positive, most_nodes at least nodes")
        if self.nodes * self.cores > 1_000_000 or (self.most_nodes or 0) * self.cores > 1_000_000:
            raise ValueError("more than a million cores are not simulated")
        rates = (self.memory_gib, self.network_mib_s, self.store_mib_s, self.disk_mib_s or 1.0, self.slowdown)
        if not all(math.isfinite(rate) and rate > 0 for rate in rates):
            raise ValueError("memory, rates and slowdown must be positive")
        lengths = (self.handing_out_s, self.start_s, self.variation, self.taken_per_hour, self.delay_s)
        if min(*lengths, self.price_per_hour or 0.0) < 0 or not 0 <= self.straggling <= 1:
            raise ValueError("times, variation, taken_per_hour and price must not be negative, straggling a share")
        if self.raw_on not in ("store", "disk") or (self.raw_on == "disk" and self.disk_mib_s is None):
            raise ValueError('raw_on is "store", or "disk" with disk_mib_s')


@dataclass(frozen=True)
class Work:
    """A task. Attributes: seconds of one core; raw bytes and shard bytes; bytes of memory that it is declared with."""

    seconds: float
    bytes_in: float
    bytes_out: float
    memory: float


@dataclass(frozen=True)
class Forecast:
    """What a build would take.

    Attributes:
        seconds: from the start to the last commit.
        core_seconds: of work, lost work in it.
        lost_tasks: that were begun again as their node was taken; copies: of stragglers.
        most_nodes: at a time. node_seconds: that nodes were held.
        waits: "work", "reading", "writing", "handing out": seconds of tasks, and "idle": of cores that were held.
        busy: (seconds, busy cores) over time.
        money: None without a price.
    """

    seconds: float
    core_seconds: float
    lost_tasks: int
    copies: int
    most_nodes: int
    node_seconds: float
    waits: dict[str, float]
    busy: tuple[tuple[float, int], ...]
    money: float | None

    @property
    def bottleneck(self) -> str:
        """Where most of the cores' time goes."""
        return max(self.waits, key=lambda name: self.waits[name])


def forecast(tasks: Sequence[Work], cluster: ClusterConfig) -> Forecast:
    """Run the build through; tasks begin in the order of their seconds, the longest first."""
    import simpy

    run = _Run(simpy, tasks, cluster)
    run.env.run(run.over)
    return run.result()


def knee(tasks: Sequence[Work], cluster: ClusterConfig, most: int = 1024) -> list[tuple[int, Forecast]]:
    """(nodes, forecast) for 1, 2, 4, ... nodes, until twice as many are less than a fifth faster."""
    found: list[tuple[int, Forecast]] = []
    nodes = 1
    while nodes <= most:
        found.append((nodes, forecast(tasks, replace(cluster, nodes=nodes, most_nodes=None))))
        if len(found) > 1 and found[-2][1].seconds < 1.2 * found[-1][1].seconds:
            break
        nodes *= 2
    return found


@dataclass
class _Node:
    number: int
    readers: int = 0
    slots: list[Any] = field(default_factory=list)


class _Run:
    """One build under way."""

    def __init__(self, simpy: Any, tasks: Sequence[Work], cluster: ClusterConfig) -> None:
        self.simpy, self.env, self.cluster, self.tasks = simpy, simpy.Environment(), cluster, tasks
        self.rng = np.random.default_rng(cluster.seed)
        self.queue = [(-task.seconds, number) for number, task in enumerate(tasks)]
        heapq.heapify(self.queue)
        self.left, self.over, self.more = len(tasks), self.env.event(), self.env.event()
        if not tasks:
            self.over.succeed()
        self.head_free, self.store_users, self.lost, self.copies, self.busy = 0.0, 0, 0, 0, 0
        self.waits: dict[str, float] = defaultdict(float)
        self.curve: list[tuple[float, int]] = []
        self.nodes: dict[int, float] = {}
        self.asked, self.most, self.node_seconds = 0, 0, 0.0
        self.draws = _draws(self.rng, cluster)
        memory = max((task.memory for task in tasks), default=0.0)
        self.slots = max(1, min(cluster.cores, int(cluster.memory_gib * (1 << 30) // max(memory, 1.0))))
        for _ in range(cluster.nodes):
            self.env.process(self._node(0.0))
        if cluster.most_nodes is not None:
            self.env.process(self._autoscaler(cluster.most_nodes))

    def _node(self, after: float) -> Generator[Any, Any, None]:
        """A node's life, and the next one's if it is taken away."""
        self.asked += 1
        yield self.env.timeout(after)
        node = _Node(self.asked)
        self.nodes[id(node)] = self.env.now
        self.most = max(self.most, len(self.nodes))
        node.slots = [self.env.process(self._slot(node)) for _ in range(self.slots)]
        if not self.cluster.taken_per_hour:
            return
        yield self.env.timeout(self.rng.exponential(3600 / self.cluster.taken_per_hour))
        for slot in node.slots:
            if slot.is_alive:
                slot.interrupt()
        self.node_seconds += self.env.now - self.nodes.pop(id(node))
        self.asked -= 1
        self.env.process(self._node(self.cluster.delay_s))

    def _autoscaler(self, most: int) -> Generator[Any, Any, None]:
        while self.left:
            wanted = min(most, -(-(len(self.queue) + self.busy) // self.slots))
            for _ in range(wanted - self.asked):
                self.env.process(self._node(self.cluster.delay_s))
            yield self.env.timeout(15.0)

    def _slot(self, node: _Node) -> Generator[Any, Any, None]:
        """A core of a node: task after task."""
        try:
            yield self.env.timeout(self.cluster.start_s)
            while self.left:
                if not self.queue:
                    yield self.more
                    continue
                _, number = heapq.heappop(self.queue)
                self._count(1)
                began = self.env.now
                try:
                    yield from self._task(node, self.tasks[number])
                except self.simpy.Interrupt:
                    self._count(-1)
                    self.lost += 1
                    self.waits["lost"] += self.env.now - began
                    heapq.heappush(self.queue, (-self.tasks[number].seconds, number))
                    self.more.succeed()  # who waits for work has some
                    self.more = self.env.event()
                    return
                self._count(-1)
                self.left -= 1
                if not self.left:
                    self.over.succeed()
        except self.simpy.Interrupt:
            return

    def _task(self, node: _Node, task: Work) -> Generator[Any, Any, None]:
        cluster, now = self.cluster, self.env.now
        self.head_free = max(self.head_free, now) + cluster.handing_out_s
        handing = self.head_free - now
        node.readers += 1
        self.store_users += 1
        reading = self._transfer(node, task.bytes_in, from_disk=cluster.raw_on == "disk")
        yield self.env.timeout(handing + reading)
        node.readers -= 1
        self.store_users -= 1
        work = task.seconds * next(self.draws)
        patience = _STRAGGLES * task.seconds + _STRAGGLES_S + task.seconds
        if work > patience and not self.queue:
            work, self.copies = patience, self.copies + 1
        writing = task.bytes_out / (1 << 20) / min(cluster.network_mib_s / max(1, node.readers), cluster.store_mib_s)
        yield self.env.timeout(work + writing)
        for name, seconds in (("handing out", handing), ("reading", reading), ("work", work), ("writing", writing)):
            self.waits[name] += seconds

    def _transfer(self, node: _Node, size: float, *, from_disk: bool) -> float:
        rate = (self.cluster.disk_mib_s or 1.0) if from_disk else self.cluster.network_mib_s
        share = rate / node.readers
        if not from_disk:
            share = min(share, self.cluster.store_mib_s / self.store_users)
        return size / (1 << 20) / share

    def _count(self, change: int) -> None:
        self.busy += change
        self.curve.append((self.env.now, self.busy))

    def result(self) -> Forecast:
        seconds = float(self.env.now)
        held = self.node_seconds + sum(seconds - since for since in self.nodes.values())
        used = sum(self.waits.values())
        waits = {**self.waits, "idle": max(0.0, held * self.cluster.cores - used)}
        price = self.cluster.price_per_hour
        return Forecast(
            seconds=seconds,
            core_seconds=waits.get("work", 0.0) + waits.get("lost", 0.0),
            lost_tasks=self.lost,
            copies=self.copies,
            most_nodes=self.most,
            node_seconds=held,
            waits=waits,
            busy=tuple(self.curve[:: max(1, len(self.curve) // _CURVE)]),
            money=None if price is None else held / 3600 * price,
        )


def _draws(rng: np.random.Generator, cluster: ClusterConfig) -> Iterator[float]:
    """Factors of the time of work, mean 1 but for stragglers."""
    spread = cluster.variation
    while True:
        factors = np.exp(rng.normal(-spread * spread / 2, spread, 8192)) if spread else np.ones(8192)
        yield from np.where(rng.random(8192) < cluster.straggling, cluster.slowdown * factors, factors).tolist()

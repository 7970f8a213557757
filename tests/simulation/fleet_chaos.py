"""What goes wrong among several brokers, their clients and the store, and what administrators do.

`FLEET_FAULTS` is what a run draws from; each is a method `_do_<name>`, fired when something came of
it.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections import Counter
from collections.abc import Coroutine
from random import Random
from typing import Any

from objectstore.errors import StoreError
from protocol.errors import KafkaError
from wal.errors import LogError

from .checkers import History
from .fleet import Fleet, Member
from .loop import SimulatedLoop, start_on
from .network import SimulatedNetwork
from .store import SimulatedStore
from .strike import SEVERAL_BROKERS, Striker

MOST_BROKERS = 7

FLEET_FAULTS = (
    "kill",
    "kill",
    "kill_two",
    "kill_controller",
    "pause",
    "pause",
    "long_pause",
    "block",
    "block",
    "isolate",
    "lossy",
    "store_cut",
    "store_mute",
    "store_slow",
    "slow",
    "cut",
    "cut_all",
    "clock_jump",
    "outage",
    "stop",
    "join",
    "leave",
    "drain",
    "move",
    "move",
    "move",
    "move_and_kill",
    "rolling_restart",
)

# Every batch of runs has all of these, or it tests less than it says.
FLEET_KINDS = (
    *dict.fromkeys(FLEET_FAULTS),
    *("before", "throttled", "lost_reply", "late", "hang"),
    *("crash_at_await", "pause_at_await"),
)

FLEET_DEEDS = (
    "acknowledged",
    "read",
    "in session",
    "trimmed",
    "committed",
    "commits read",
    "topics created",
    "topics deleted",
    "moves",
    "rejoined",
    "delete wal",
    "delete data",
)


class FleetChaos:
    """Of a run, which owns all these. clients: their names. count: brokers at the beginning, which
    always come back. _meanwhile: faults that take a while, beside others.
    """

    rng: Random
    loop: SimulatedLoop
    striker: Striker
    store: SimulatedStore
    network: SimulatedNetwork
    fleet: Fleet
    history: History
    fired: Counter[str]
    clients: list[str]
    count: int
    _meanwhile: list[asyncio.Task[None]]

    async def _chaos(self) -> None:
        rng = self.rng
        calm_at = self.loop.time() + 2 * SEVERAL_BROKERS.seconds
        while True:
            mean_s = 1.2 if self.loop.time() < calm_at else 10.0
            await asyncio.sleep(rng.expovariate(1 / mean_s))
            what = rng.choice(FLEET_FAULTS)
            await getattr(self, f"_do_{what}")()
            await asyncio.sleep(rng.uniform(0.0, 1.0))
            self._restart()

    def _restart(self) -> None:
        """Who died comes back, at once or in a while; the first `count` always."""
        for node_id, member in list(self.fleet.members.items()):
            if member.ended and (node_id <= self.count or self.rng.random() < 0.1):
                self.fleet.start_node(node_id)

    def _fire(self, what: str) -> None:
        self.fired[what] += 1
        self.loop.record(f"chaos {what}")

    def _victim(self) -> Member | None:
        alive = [one for one in self.fleet.members.values() if not one.ended]
        return self.rng.choice(alive) if alive else None

    def _crash(self, member: Member | None, what: str) -> None:
        if member is not None and not member.ended:
            self._fire(what)
            self.fleet.crash(member)

    def _on_step(self, node: str, places: tuple[str, ...]) -> None:
        member = self.fleet.named(node)
        if not isinstance(member, Member):
            return
        if self.loop.is_crashed(node) or self.loop.is_paused(node):
            return
        if self.striker.calm:
            return
        fault = self.striker.passes(places, may_be_hit=True)
        if fault is None:
            return
        self._fire(f"{fault}_at_await")
        if fault == "crash":
            self.fleet.crash(member)
            self.loop.call_later(1.0, self._again, member, context=contextvars.Context())
        else:
            # Long enough, now and then, for others to take over what it leads.
            self.fleet.pause(member, self.striker.choose((0.5, 2.0, 8.0)))

    def _again(self, member: Member) -> None:
        if self.fleet.members[member.node_id] is member and member.ended:
            self.fleet.start_node(member.node_id)

    async def _do_kill(self) -> None:
        self._crash(self._victim(), "kill")

    async def _do_kill_two(self) -> None:
        self._crash(self._victim(), "kill_two")
        self._crash(self._victim(), "kill_two")

    async def _do_kill_controller(self) -> None:
        self._crash(self.fleet.deciding, "kill_controller")

    async def _do_pause(self) -> None:
        victim = self._victim()
        if victim is not None:
            self._fire("pause")
            self.fleet.pause(victim, self.rng.uniform(0.05, 2.5))

    async def _do_long_pause(self) -> None:
        victim = self._victim()
        if victim is not None:
            self._fire("long_pause")
            self.fleet.pause(victim, self.rng.choice((4.0, 8.0, 15.0)))

    def _hosts(self) -> list[str]:
        return [one.host for one in self.fleet.members.values() if not one.ended]

    async def _do_block(self) -> None:
        """Between two brokers, or a client and a broker; one way or both."""
        rng, hosts = self.rng, self._hosts()
        if len(hosts) < 2:
            return
        one, other = rng.sample(hosts, 2)
        if rng.random() < 0.3:
            one = rng.choice(self.clients)
        self._fire("block")
        for_s = rng.choice((0.5, 2.0, 5.0, 12.0))
        self.network.block(one, other, for_s)
        if rng.random() < 0.5:
            self.network.block(other, one, for_s)

    async def _do_isolate(self) -> None:
        """One broker from all the others; clients and store reach it."""
        victim = self._victim()
        if victim is None:
            return
        self._fire("isolate")
        for_s = self.rng.choice((1.0, 4.0, 10.0))
        for host in self._hosts():
            if host != victim.host:
                self.network.block(victim.host, host, for_s)
                if self.rng.random() < 0.8:
                    self.network.block(host, victim.host, for_s)

    async def _do_lossy(self) -> None:
        hosts = self._hosts()
        if len(hosts) >= 2:
            self._fire("lossy")
            one, other = self.rng.sample(hosts, 2)
            self.network.lose(one, other, self.rng.choice((0.0, 0.1, 0.4)))

    async def _do_store_cut(self, what: str = "store_cut") -> None:
        victim = self._victim()
        if victim is not None:
            self._fire(what)
            for_s = self.rng.choice((0.5, 2.0, 6.0))
            self.store.cut_off(victim.name, for_s, answers_only=what == "store_mute")

    async def _do_store_mute(self) -> None:
        await self._do_store_cut("store_mute")

    async def _do_store_slow(self) -> None:
        """One broker's way to the store; the others are well."""
        victim = self._victim()
        if victim is not None:
            self._fire("store_slow")
            slow_s = self.rng.choice((0.1, 0.5, 2.0))
            self.store.slow_down(victim.name, slow_s, self.rng.choice((2.0, 6.0, 15.0)))

    async def _do_slow(self) -> None:
        """A broker that hardly gets a processor."""
        victim = self._victim()
        if victim is not None:
            self._fire("slow")
            self._meanwhile.append(asyncio.create_task(self._stutter(victim)))

    async def _stutter(self, victim: Member) -> None:
        rng = self.rng
        longest_s = rng.choice((0.05, 0.2, 0.8))
        end_at = self.loop.time() + rng.choice((2.0, 6.0, 12.0))
        while self.loop.time() < end_at and not victim.ended:
            if not self.loop.is_paused(victim.name):
                self.loop.pause(victim.name, rng.uniform(0.0, longest_s))
            await asyncio.sleep(longest_s + rng.uniform(0.0, 0.02))

    async def _do_cut(self) -> None:
        self.network.cut_one()

    async def _do_cut_all(self) -> None:
        self.network.cut_all()

    async def _do_clock_jump(self) -> None:
        victim = self._victim()
        if victim is not None:
            self._fire("clock_jump")
            skew = self.loop.skew_ms
            skew[victim.name] = skew.get(victim.name, 0) + self.rng.randint(-5_000, 5_000)

    async def _do_outage(self) -> None:
        self._fire("outage")
        self.store.outage(self.rng.uniform(0.2, 4.0))

    async def _do_stop(self) -> None:
        victim = self._victim()
        if victim is not None and victim.ready:
            self._fire("stop")
            await self.fleet.stop_node(victim)

    async def _do_leave(self) -> None:
        """Who joined later is not needed any more."""
        later = [one for one in self.fleet.serving if one.node_id > self.count]
        if later:
            self._fire("leave")
            await self.fleet.stop_node(self.rng.choice(later))

    async def _do_drain(self) -> None:
        """An administrator empties a broker, and lets it have partitions again."""
        victim = self._victim()
        if victim is not None and await self._set_draining(victim, True):
            self._fire("drain")
            self._meanwhile.append(asyncio.create_task(self._undrain(victim)))

    async def _undrain(self, victim: Member) -> None:
        await asyncio.sleep(self.rng.uniform(0.5, 8.0))
        await self._set_draining(victim, False)

    async def _set_draining(self, victim: Member, draining: bool) -> bool:
        """Whether it was decided."""
        deciding = self.fleet.deciding
        if deciding is None or deciding.node is None or self.loop.is_paused(deciding.name):
            return False
        if victim.node is None or not victim.node.is_member:
            return False
        incarnation = victim.node.controller.incarnation
        controller = deciding.node.controller
        return await self._decided(deciding, controller.set_draining(incarnation, draining))

    async def _decided(self, deciding: Member, what: Coroutine[Any, Any, Any]) -> bool:
        """Whether it was, soon; who decides may die or be replaced meanwhile."""
        asked = start_on(deciding.name, what)
        await asyncio.wait([asked], timeout=5.0)
        if not asked.done():
            # Whatever comes of it: nobody waits for it any more.
            asked.add_done_callback(lambda one: one.cancelled() or one.exception())
            return False
        try:
            asked.result()
        except (KafkaError, LogError, StoreError, AssertionError):
            return False
        return True

    async def _do_join(self) -> None:
        if len(self.fleet.members) < MOST_BROKERS:
            self._fire("join")
            self.fleet.start_node(max(self.fleet.members) + 1)

    async def _do_move(self) -> None:
        """An administrator moves some partitions, wherever they are."""
        rng, deciding = self.rng, self.fleet.deciding
        if deciding is None or deciding.node is None or self.loop.is_paused(deciding.name):
            return
        controller = deciding.node.controller
        image = controller.image
        live = [one.incarnation for one in image.live_brokers()]
        if not live:
            return
        chance = rng.choice((0.2, 0.5, 1.0))
        assignment = {
            partition.stream_id: rng.choice(live)
            for _, partition in image.partitions()
            if rng.random() < chance
        }
        self._fire("move")

        async def move() -> None:
            self.history.counted["moves"] += len(await controller.move_leaders(assignment))

        await self._decided(deciding, move())

    async def _do_move_and_kill(self) -> None:
        """Somebody dies in the middle of a move."""
        moving = asyncio.create_task(self._do_move())
        await asyncio.sleep(self.rng.uniform(0.0, 0.3))
        victim = self.rng.choice((self._victim(), self.fleet.deciding))
        self._crash(victim, "move_and_kill")
        await moving

    async def _do_rolling_restart(self) -> None:
        self._fire("rolling_restart")
        for node_id in sorted(self.fleet.members):
            member = self.fleet.members[node_id]
            await self.fleet.stop_node(member)
            if not self.fleet.members[node_id].ended:
                continue
            self.fleet.start_node(node_id)
            await self.fleet.until_serving(len(self.fleet.members), 5.0)

"""What is done to a cluster under load: one function each, which returns when all is whole again.

`run.began()` marks the moment of the fault, from which gaps are measured.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.peers.load import create_topic, fresh
from tests.peers.store_proxy import Fault

from .run import Run

# For what has no sign by which to end it: longer than the session time-out (3 s) and what follows.
STORE_PAUSED_S = 5.0
MANY = 300


def kill_leader(run: Run) -> None:
    """kill -9 of a broker that leads and does not decide; it is started again later"""
    _kill(run, run.cluster.leader_not_controller())


def kill_controller(run: Run) -> None:
    """kill -9 of the broker that decides; it is started again later"""
    _kill(run, run.cluster.controller(1))


def _kill(run: Run, victim: int) -> None:
    cluster = run.cluster
    everybody = cluster.running
    run.began()
    cluster.brokers[victim].kill()
    cluster.wait_for(everybody - {victim})
    run.goes_on()
    cluster.add(victim)
    cluster.wait_shared_out(everybody)


def pause_leader(run: Run) -> None:
    """SIGSTOP of a leader, SIGCONT after its partitions were taken over"""
    _pause(run, run.cluster.leader_not_controller())


def pause_controller(run: Run) -> None:
    """SIGSTOP of the broker that decides, SIGCONT after another one does"""
    _pause(run, run.cluster.controller(1))


def _pause(run: Run, victim: int) -> None:
    cluster = run.cluster
    everybody = cluster.running
    run.began()
    cluster.pause(victim)
    try:
        cluster.wait_for(everybody - {victim})
    finally:
        cluster.resume(victim)
    cluster.wait_shared_out(everybody)


def pause_store(run: Run) -> None:
    """SIGSTOP of the store for 5 s"""
    cluster = run.cluster
    everybody = cluster.running
    run.began()
    run.minio.pause()
    try:
        run.sleep(STORE_PAUSED_S)
    finally:
        run.minio.resume()
    run.goes_on()
    cluster.wait_for(everybody)


def cut_store(run: Run) -> None:
    """one broker, a leader, reaches the store no more (for 15 s), but all others reach it"""
    cluster = run.cluster
    everybody = cluster.running
    door = cluster.doors[2]
    run.began()
    door.fault = Fault("hang")
    run.sleep(15.0)
    door.fault = None
    run.goes_on()
    cluster.wait_for(everybody)


def kill_two(run: Run) -> None:
    """kill -9 of two of three at once, one of which decides; both are started again later"""
    cluster = run.cluster
    everybody = cluster.running
    controller = cluster.controller(1)
    victims = {controller, cluster.other_than(controller)}
    run.began()
    for victim in victims:
        cluster.brokers[victim].kill()
    cluster.wait_for(everybody - victims)
    run.goes_on()
    for victim in victims:
        cluster.add(victim)
    cluster.wait_shared_out(everybody)


def kill_controller_mid_move(run: Run) -> None:
    """a broker with a hundred partitions is stopped; kill -9 of the one that decides meanwhile"""
    cluster = run.cluster
    everybody = cluster.running
    create_topic(cluster.bootstrap, fresh("many"), MANY)
    cluster.wait_for(everybody)
    controller = cluster.controller(1)
    leaving = cluster.leader_not_controller()
    left = (everybody - {controller, leaving}).pop()
    before = cluster.leaders(left)[leaving]
    run.began()
    cluster.terminate(leaving)
    cluster.wait_until(
        lambda: "" if cluster.leaders(left)[leaving] < before else "nothing has moved yet",
        "the move is under way", every_s=0.01,
    )  # fmt: skip
    cluster.brokers[controller].kill()
    cluster.ended(leaving)
    cluster.wait_for({left})
    run.goes_on()
    for victim in (leaving, controller):
        cluster.add(victim)
    cluster.wait_shared_out(everybody)


def drain(run: Run) -> None:
    """SIGTERM of a leader; it is started again later"""
    cluster = run.cluster
    everybody = cluster.running
    victim = cluster.leader_not_controller()
    run.began()
    cluster.terminate(victim)
    cluster.ended(victim)
    cluster.wait_for(everybody - {victim})
    run.goes_on()
    cluster.add(victim)
    cluster.wait_shared_out(everybody)


def scale(run: Run) -> None:
    """one broker becomes four, and one again: the first ends last but one"""
    cluster = run.cluster
    run.began()
    for node_id in (2, 3, 4):
        cluster.add(node_id)
    cluster.wait_shared_out({1, 2, 3, 4})
    run.goes_on()
    for node_id in (2, 1, 3):
        live = cluster.running - {node_id}
        cluster.terminate(node_id)
        cluster.ended(node_id)
        cluster.wait_for(live)
    run.goes_on()


def rolling_restart(run: Run) -> None:
    """every broker in turn: SIGTERM, started again, its share back"""
    cluster = run.cluster
    everybody = cluster.running
    run.began()
    for victim in sorted(everybody):
        cluster.terminate(victim)
        cluster.ended(victim)
        cluster.wait_for(everybody - {victim})
        cluster.add(victim)
        cluster.wait_shared_out(everybody)


@dataclass(frozen=True)
class Case:
    """proxied: nodes that reach the store through a door."""

    act: Callable[[Run], None]
    brokers: int = 3
    proxied: tuple[int, ...] = ()

    @property
    def what(self) -> str:
        return (self.act.__doc__ or "").strip()


CASES: dict[str, Case] = {
    "kill-leader": Case(kill_leader),
    "kill-controller": Case(kill_controller),
    "pause-leader": Case(pause_leader),
    "pause-controller": Case(pause_controller),
    "pause-store": Case(pause_store),
    "cut-store": Case(cut_store, proxied=(2,)),
    "kill-two": Case(kill_two),
    "kill-controller-mid-move": Case(kill_controller_mid_move),
    "drain": Case(drain),
    "scale": Case(scale, brokers=1),
    "rolling-restart": Case(rolling_restart),
}

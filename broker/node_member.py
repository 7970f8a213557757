"""A node's place in its cluster, wired."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from broker.cluster.addresses import Addresses
from broker.cluster.channel import Peers
from broker.cluster.heartbeats import Heartbeats, NewSender
from broker.cluster.load import LoadMeter
from broker.cluster.member import ClusterTimes, Member, Surroundings
from broker.cluster.own_load import OwnLoad
from broker.cluster.reach import Reach
from broker.cluster.secret import Secret
from broker.cluster.serving import PeerServer
from broker.cluster.wellness import Symptoms, Wellness
from broker.config import BrokerConfig
from broker.controller import ConfigRules, Identity, StartRefused, TopicDefaults
from broker.controller.levelling import BalanceSettings
from objectstore.errors import StoreError
from objectstore.probe import check_conditional_create
from objectstore.store import ObjectStore

from .environment import Environment
from .node_settings import advertised
from .upkeep import Upkeep


def new_member(
    config: BrokerConfig,
    env: Environment,
    ports: Mapping[str, int],
    secret: Secret,
    serving: PeerServer,
    *,
    store: ObjectStore,
    probed: ObjectStore,
    rules: ConfigRules,
    defaults: Callable[[], TopicDefaults],
    upkeep: Callable[[], Upkeep | None],
    meter: LoadMeter,
    symptoms: Symptoms,
    term_won: Callable[[], None],
    on_trouble: Callable[[StoreError | None], None],
) -> Member:
    """ports: really bound, by listener. store: for the metadata log; probed: for the test of a new
    store. upkeep: None until it is there. meter, symptoms: of this broker's
    load and health. Raises StartRefused.
    """
    name = config.optional_text("inter.broker.listener.name")
    if name is not None and name not in [one.name for one in config.listeners]:
        raise StartRefused(f"inter.broker.listener.name: there is no listener {name}")
    ours = frozenset((one.bind.host, ports[one.name]) for one in config.listeners)
    addresses = Addresses(env.network, name, ours)

    peers = Peers(env.network, secret, env.rng)
    tasks: NewSender = partial(Heartbeats, peers)

    def garbage() -> int:
        here = upkeep()
        return 0 if here is None else here.history_changes

    def more_garbage() -> None:
        here = upkeep()
        if here is not None:
            here.rounds.wanted()

    return Member(
        store,
        Identity(
            node_id=config.optional_int("node.id"),
            take_over=config.flag("take.over"),
            listeners=advertised(config, dict(ports)),
            store=env.store_name,
            wal_window=config.int("wal.window"),
            rack=config.optional_text("broker.rack"),
            address_http=config.optional_text("http"),
        ),
        ClusterTimes(
            session_timeout_s=config.int("broker.session.timeout.ms") / 1000,
            heartbeat_s=config.int("broker.heartbeat.interval.ms") / 1000,
        ),
        Surroundings(
            peers=peers,
            serving=serving,
            new_sender=tasks if env.senders is None else env.senders(secret),
            address=addresses.of,
            answers=addresses.answers,
            is_gone=addresses.is_gone,
            check_store=lambda: check_conditional_create(probed, env.rng),
            garbage=garbage,
            more_garbage=more_garbage,
            own_load=OwnLoad(meter, Reach(peers, addresses.of)),
            balance=_balance(config),
            wellness=Wellness(symptoms),
            term_won=term_won,
            now_ms=env.now_ms,
            rng=env.rng,
        ),
        rules=rules,
        defaults=defaults,
        on_trouble=on_trouble,
    )


def _balance(config: BrokerConfig) -> BalanceSettings:
    return BalanceSettings(
        enabled=config.flag("auto.leader.rebalance.enable"),
        interval_s=config.int("leader.imbalance.check.interval.seconds"),
        above=config.int("leader.imbalance.per.broker.percentage") / 100,
    )

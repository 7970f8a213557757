"""`headwater`: the command line. Only what the called command needs is imported."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TypeAlias

from broker.cli import exit_status


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; gives its exit status (see broker.cli.exit_status)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    # These parse what is theirs.
    if arguments[:1] == ["verify"]:
        from broker.verify import main as verify

        return verify(arguments[1:])
    if arguments[:1] == ["inspect"]:
        from broker.inspect import main as inspect

        return inspect(arguments[1:])
    if arguments[:1] == ["clone"]:
        from broker.cli.clone import main as clone

        return clone(arguments[1:])
    parser = build_parser()
    parsed = parser.parse_args(arguments)
    try:
        return _run(parsed)
    except KeyboardInterrupt:
        return exit_status.ENDED_AT_ONCE
    except BrokenPipeError:
        # Whoever read our output has seen enough. Python would complain again at its exit.
        sys.stdout = None
        return exit_status.OK


def _run(parsed: argparse.Namespace) -> int:
    match parsed.command:
        case "start":
            from broker.cli.start import run as start

            return start(parsed)
        case "config":
            from broker.config import render_config_table

            print(render_config_table())
            return exit_status.OK
        case "doctor":
            from broker.cli.doctor import run as doctor

            return doctor(parsed)
        case "cluster":
            from broker.cli.cluster import run as cluster

            return cluster(parsed)
        case "drain" | "undrain":
            from broker.cli.drain import run as drain

            return drain(parsed)
        case "balance":
            from broker.cli.balance import run as balance

            return balance(parsed)
        case "topics":
            from broker.cli.topics import run as topics

            return topics(parsed)
        case "produce":
            from broker.cli.produce import run as produce

            return produce(parsed)
        case "consume":
            from broker.cli.consume import run as consume

            return consume(parsed)
        case "groups":
            from broker.cli.groups import run as groups

            return groups(parsed)
    raise AssertionError(parsed.command)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="headwater",
        description="A Kafka-compatible broker whose only durable home is object storage.",
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_start(commands)
    commands.add_parser("config", help="print every setting, its default, unit and meaning")
    _add_doctor(commands)
    _add_cluster(commands)
    _add_drain(commands)
    _add_balance(commands)
    _add_topics(commands)
    _add_produce(commands)
    _add_consume(commands)
    _add_groups(commands)
    commands.add_parser("verify", help="prove from the bucket that every batch is there")
    commands.add_parser("clone", help="copy a cluster's bucket to another, also while it is used")
    commands.add_parser("inspect", help="show an object or a partition readably")
    return parser


Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def _add_start(commands: Commands) -> None:
    start = commands.add_parser(
        "start",
        allow_abbrev=False,
        help="run a broker",
        epilog="Exit status: 0 stopped by a signal, 1 failed, 2 a flag or setting is wrong, "
        "75 another process took this broker's place.",
    )
    start.add_argument("--config", metavar="FILE.toml", help="settings; see `headwater config`")
    start.add_argument("--store", metavar="URI", help="memory:, file:///path, s3://bucket/prefix")
    start.add_argument("--create-bucket", action="store_true", help="make the bucket if missing")
    start.add_argument(
        "--listener",
        action="append",
        metavar="[NAME=]HOST:PORT[@ADVERTISED]",
        help="where clients connect (default 127.0.0.1:9092); may be repeated. Without a NAME they"
        " are PLAINTEXT, PLAINTEXT_2 and so on; clients are told of the one by which they came",
    )
    start.add_argument(
        "--advertised", metavar="HOST:PORT", help="what clients are told, of the one listener"
    )
    start.add_argument("--node-id", metavar="N", help="default: the lowest free one")
    start.add_argument(
        "--take-over", action="store_true", help="replace the running broker of this node id"
    )
    start.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="N brokers of this machine, one process each; the next ones have the ports, and the"
        " node id where one is given, that follow those of the first",
    )
    # Given by the process that keeps the workers: end with it, and print the ready line alone.
    start.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    start.add_argument("--rack", metavar="NAME")
    start.add_argument("--http", metavar="HOST:PORT", help="health and metrics")
    start.add_argument("--cache-dir", metavar="DIR", help="disk cache; may be deleted at any time")
    start.add_argument("--log-level", metavar="L", help="debug, info, warning or error")
    start.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="any setting"
    )


def _add_doctor(commands: Commands) -> None:
    doctor = commands.add_parser("doctor", help="test a store, and say what to do")
    _add_store(doctor)


def _add_cluster(commands: Commands) -> None:
    cluster = commands.add_parser(
        "cluster", allow_abbrev=False, help="show brokers, their load, and what is under way"
    )
    cluster.add_argument("--watch", action="store_true", help="again each second")
    cluster.add_argument("--json", action="store_true", help="for programs")
    _add_store(cluster)


def _add_drain(commands: Commands) -> None:
    drain = commands.add_parser(
        "drain",
        allow_abbrev=False,
        help="move everything that a broker leads to the others, and keep it that way",
    )
    drain.add_argument("node", type=int, metavar="NODE", help="its node id")
    drain.add_argument(
        "--timeout", type=float, default=60.0, metavar="S", help="give up watching (default 60)"
    )
    undrain = commands.add_parser(
        "undrain", allow_abbrev=False, help="let a drained broker lead again"
    )
    undrain.add_argument("node", type=int, metavar="NODE", help="its node id")
    for parser in (drain, undrain):
        _add_store(parser)


def _add_balance(commands: Commands) -> None:
    balance = commands.add_parser(
        "balance", allow_abbrev=False, help="one step of the balancer now, or what it would be"
    )
    balance.add_argument("--plan", action="store_true", help="move nothing")
    _add_store(balance)


def _add_store(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--store", metavar="URI", help="memory:, file:///path, s3://bucket/prefix")
    parser.add_argument("--config", metavar="FILE.toml", help="settings")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="any setting"
    )


def _add_client(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--bootstrap",
        default="127.0.0.1:9092",
        metavar="HOST:PORT",
        help="a broker (default %(default)s)",
    )


def _add_topics(commands: Commands) -> None:
    topics = commands.add_parser("topics", help="create, list, describe and delete topics")
    actions = topics.add_subparsers(dest="action", required=True, metavar="ACTION")
    create = actions.add_parser("create")
    create.add_argument("topic", nargs="+")
    create.add_argument("--partitions", type=int, default=-1, metavar="N")
    create.add_argument("--replication-factor", type=int, default=-1, metavar="N")
    create.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    listing = actions.add_parser("list")
    listing.add_argument("--internal", action="store_true", help="internal topics too")
    describe = actions.add_parser("describe")
    describe.add_argument("topic", nargs="*", help="default: all")
    delete = actions.add_parser("delete")
    delete.add_argument("topic", nargs="+")
    for action in (create, listing, describe, delete):
        _add_client(action)


def _add_produce(commands: Commands) -> None:
    produce = commands.add_parser("produce", help="send lines from stdin, one record a line")
    produce.add_argument("topic")
    produce.add_argument("--key-separator", metavar="TEXT", help="a line is KEY, this, VALUE")
    produce.add_argument("--header", action="append", default=[], metavar="NAME=VALUE")
    produce.add_argument("--partition", type=int, metavar="N")
    produce.add_argument("--compression", choices=("none", "gzip"), default="none")
    _add_client(produce)


def _add_consume(commands: Commands) -> None:
    consume = commands.add_parser("consume", help="print records")
    consume.add_argument("topic")
    consume.add_argument("--from-beginning", action="store_true", help="default: new records only")
    consume.add_argument("--partition", type=int, metavar="N")
    consume.add_argument("--offset", type=int, metavar="N", help="of --partition")
    consume.add_argument("--group", metavar="NAME", help="consume as a member, and commit")
    consume.add_argument("--max", type=int, metavar="N", help="stop after so many records")
    consume.add_argument(
        "--exit-at-end", action="store_true", help="stop at the end as it was at the start"
    )
    consume.add_argument("--keys", action="store_true", help="print keys")
    consume.add_argument("--headers", action="store_true", help="print headers")
    consume.add_argument("--timestamps", action="store_true", help="print timestamps")
    consume.add_argument("--offsets", action="store_true", help="print partition and offset")
    _add_client(consume)


def _add_groups(commands: Commands) -> None:
    groups = commands.add_parser("groups", help="list and describe consumer groups")
    actions = groups.add_subparsers(dest="action", required=True, metavar="ACTION")
    listing = actions.add_parser("list")
    describe = actions.add_parser("describe")
    describe.add_argument("group", nargs="+")
    for action in (listing, describe):
        _add_client(action)


if __name__ == "__main__":
    sys.exit(main())

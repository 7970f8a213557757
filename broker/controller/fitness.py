"""Which live brokers are to be given nothing to lead for now, though no operator said so.

    starting   registered, and does not serve yet: until its first heartbeat that says that it does
    sick       one of its figures has been bad for `SICK_AFTER_S`, or is very bad, while more than
               half of the others are well: what it leads goes to them. Where most are bad the same
               thing befell all of them, the store most likely, and nothing would be gained
    well       again after `WELL_AFTER_S` without a bad figure; each time it falls sick twice as
               long

Of the process that decides, for one term, and in its memory alone: whoever decides next hears the
same within seconds. A node that was fenced for being too slow comes back as the same node: so it is
remembered by node id. There is no timer: heartbeats are the occasions.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from s3stream.metadata.image import MetadataImage, changed

if TYPE_CHECKING:
    from broker.cluster.wellness import Health

log = logging.getLogger(__name__)

SICK_AFTER_S = 5.0
WELL_AFTER_S = 30.0
WELL_AFTER_CAP_S = 600.0

STARTING = "starting"


@dataclass(slots=True)
class _Node:
    """bad_since, well_since: loop times; one of them is None. why: of the last bad figure."""

    bad_since: float | None = None
    well_since: float | None = None
    why: str = ""
    is_grave: bool = False
    is_sick: bool = False
    wait_s: float = WELL_AFTER_S


class Fitness:
    """on_change: called when a broker became unfit, or fit again."""

    def __init__(
        self, image: Callable[[], MetadataImage], on_change: Callable[[], None] = lambda: None
    ) -> None:
        self.on_change = on_change
        self._image = image
        self._nodes: dict[int, _Node] = {}
        self._starting: dict[int, None] = {}

    def registered(self, incarnation: int) -> None:
        """By this process: it has only begun to start."""
        self._starting[incarnation] = None

    def told(self, node_id: int, incarnation: int, health: Health, lag_s: float = 0.0) -> None:
        """lag_s: how late the loop of that broker is."""
        now = asyncio.get_running_loop().time()
        before = self.unfit
        if health.serving:
            self._starting.pop(incarnation, None)
        node = self._nodes.setdefault(node_id, _Node())
        why = health.complaint(lag_s)
        if why:
            node.bad_since = now if node.bad_since is None else node.bad_since
            node.well_since, node.why = None, why
        else:
            node.well_since = now if node.well_since is None else node.well_since
            node.bad_since = None
        node.is_grave = health.is_grave(lag_s)
        self._judge(node_id, node, now)
        if self.unfit != before:
            self.on_change()

    def _judge(self, node_id: int, node: _Node, now: float) -> None:
        if node.is_sick:
            if node.well_since is not None and now - node.well_since >= node.wait_s:
                node.is_sick = False
                node.wait_s = min(2 * node.wait_s, WELL_AFTER_CAP_S)
                log.info("node %d is well again", node_id)
            return
        if node.bad_since is None:
            return
        if now - node.bad_since < SICK_AFTER_S and not node.is_grave:
            return
        live = [broker.node_id for broker in self._image().live_brokers()]
        well = [one for one in live if one != node_id and not self._is_bad(one)]
        if 2 * len(well) > len(live) - 1:
            node.is_sick = True
            log.warning("node %d is sick, and others are well: %s", node_id, node.why)

    def _is_bad(self, node_id: int) -> bool:
        node = self._nodes.get(node_id)
        return node is not None and (node.is_sick or node.bad_since is not None)

    @property
    def unfit(self) -> Mapping[int, str]:
        """Why, by incarnation, of live brokers."""
        found: dict[int, str] = {}
        if self._starting or any(node.is_sick for node in self._nodes.values()):
            for broker in self._image().live_brokers():
                node = self._nodes.get(broker.node_id)
                if node is not None and node.is_sick:
                    found[broker.incarnation] = node.why
                elif broker.incarnation in self._starting:
                    found[broker.incarnation] = STARTING
            self._starting = {one: None for one in self._starting if one in found}
        return found

    def is_sick(self, incarnation: int) -> bool:
        broker = self._image().broker_of(incarnation)
        node = None if broker is None else self._nodes.get(broker.node_id)
        return node is not None and node.is_sick

    def placing(self, image: MetadataImage) -> MetadataImage:
        """The image for choosing leaders: who is unfit is passed by as who leaves is."""
        unfit = [one for one in self.unfit if image.broker_of(one) is not None]
        if not unfit:
            return image
        draining = image.draining.change((one, True) for one in unfit)
        return changed(image, draining=draining)

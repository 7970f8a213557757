"""A starting process and the cluster that it finds: who decides there is asked for an incarnation.

nobody decides yet, or this node id does   it may own a term at once (its predecessor is dead,
                                           or is asked by the election itself)
another one decides, and answers           registered by it
its address refuses, nobody else lives     a term at once: there is nobody to wait for
it does not answer                         it may be busy, or others may succeed it: after the
                                           session time-out without a new record this process does,
                                           unless another broker hears the controller: then it is
                                           this process that is cut off
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from random import Random

from broker.controller.election import Answers
from broker.controller.membership import Identity, StartRefused
from broker.controller.registration import new_token
from objectstore.errors import StoreError
from protocol.errors import KafkaError
from s3stream.metadata.image import BrokerRegistration, MetadataImage
from s3stream.metadata.records import BEFORE_ALL, Endpoint, Position
from s3stream.metadata.tail import Loaded

from .channel import Peers
from .messages import ControllerHeard, Register, Registered, RegisterRefused, WhoDecides

log = logging.getLogger(__name__)

AGAIN_S = 0.3
# It asks the broker that it would replace, and writes a record.
REGISTER_TIMEOUT_S = 10.0
HEARD_TIMEOUT_S = 1.0


class Joining:
    """One process's attempts to be registered by the controller.

    is_gone: whether a broker's address refuses connections. answers: whether it serves clients.
    joined: what came of it, and the log as it was read before; None: not (yet) registered.
    waited: the last attempt did, so the next one may come at once.
    """

    def __init__(
        self,
        identity: Identity,
        peers: Peers,
        address: Callable[[BrokerRegistration], Endpoint | None],
        is_gone: Callable[[BrokerRegistration], Awaitable[bool]],
        answers: Answers,
        session_timeout_s: float,
        rng: Random,
    ) -> None:
        self._identity = identity
        self._peers = peers
        self._address = address
        self._is_gone = is_gone
        self._answers = answers
        self._other_answers = False
        self._session_timeout_s = session_timeout_s
        self._token = new_token(rng)
        self._seen = BEFORE_ALL
        self._seen_at = 0.0
        self.waited = False
        self.joined: tuple[Registered, Loaded] | None = None

    async def __call__(self, loaded: Loaded) -> bool:
        """For `Election`: True where this process must not end the term that it has read.

        Raises StartRefused.
        """
        image = loaded.image
        self.waited = False
        if image.holder is None or image.holder.node_id == self._identity.node_id:
            return False
        holder = holder_of(image)
        if holder is not None and not holder.fenced:
            registered = await self._register(holder)
            if registered is not None:
                self.joined = registered, loaded
                return True
        if all(one is holder for one in image.live_brokers()) and (
            holder is None or holder.fenced or await self._is_dead(holder, image.cluster_id)
        ):
            return False
        return await self._wait(image.position) or await self._is_heard(image, holder)

    async def _is_dead(self, holder: BrokerRegistration, cluster_id: str) -> bool:
        """One that answers, and decides nothing, is another process at that address, and may well
        be this one: then it does not serve clients either.
        """
        if self._other_answers:
            return not await self._answers(holder, cluster_id)
        return await self._is_gone(holder)

    async def _register(self, holder: BrokerRegistration) -> Registered | None:
        where = self._address(holder)
        if where is None:
            return None
        identity = self._identity
        request = Register(
            self._token,
            identity.node_id,
            identity.take_over,
            identity.wal_window,
            identity.listeners,
            identity.rack,
            identity.address_http,
            identity.level,
        )
        try:
            channel = await self._peers.open(where)
            try:
                answer = await channel.call(
                    request,
                    Registered | RegisterRefused,  # type: ignore[arg-type]
                    REGISTER_TIMEOUT_S,
                )
            finally:
                channel.close()
        except (OSError, TimeoutError, KafkaError, StoreError) as error:
            self._other_answers = isinstance(error, KafkaError)
            log.info(
                "node %d, which decides here, does not register us: %s",
                holder.node_id,
                error or type(error).__name__,
            )
            return None
        if isinstance(answer, RegisterRefused):
            raise StartRefused(answer.why)
        assert isinstance(answer, Registered)
        return answer

    async def _is_heard(self, image: MetadataImage, holder: BrokerRegistration | None) -> bool:
        """Whether another broker hears who decides here; then nobody has to be succeeded."""
        others = [one for one in image.live_brokers() if one is not holder]
        heard = any(await asyncio.gather(*(self._hears(one) for one in others)))
        if heard:
            log.warning(
                "node %d decides here, and other brokers hear it; this process does not, and "
                "cannot join: is the network between the two right?",
                -1 if image.holder is None else image.holder.node_id,
            )
            self._seen_at = asyncio.get_running_loop().time()
            self.waited = True
            await asyncio.sleep(AGAIN_S)
        return heard

    async def _hears(self, other: BrokerRegistration) -> bool:
        where = self._address(other)
        if where is None:
            return False
        try:
            channel = await self._peers.open(where)
            try:
                answer = await channel.call(WhoDecides(), ControllerHeard, HEARD_TIMEOUT_S)
            finally:
                channel.close()
        except (OSError, TimeoutError, KafkaError, StoreError):
            return False
        return answer.heard

    async def _wait(self, position: Position) -> bool:
        """False once nothing was added for the session time-out."""
        now = asyncio.get_running_loop().time()
        if position != self._seen:
            self._seen, self._seen_at = position, now
        if now - self._seen_at >= self._session_timeout_s:
            return False
        self.waited = True
        await asyncio.sleep(AGAIN_S)
        return True


def holder_of(image: MetadataImage) -> BrokerRegistration | None:
    """The registration of the process that owns the image's term, if it has not been replaced."""
    if image.holder is None:
        return None
    broker = image.brokers.get(image.holder.node_id)
    return broker if broker is not None and broker.process == image.holder.process else None

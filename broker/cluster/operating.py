"""What operators' commands ask of the controller: they prove themselves as brokers do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from protocol.errors import ErrorCode, KafkaError

from . import messages as m
from .balance_view import balance_view
from .load import FIRST_S
from .own_load import OwnLoad
from .picture import Told, view_of
from .serving import PeerServer

if TYPE_CHECKING:
    from .deciding import Deciding


class OperatorServer:
    """deciding: this process's term, None while it has none."""

    def __init__(
        self, peers: PeerServer, deciding: Callable[[], Deciding | None], own_load: OwnLoad
    ) -> None:
        self._deciding = deciding
        self._own_load = own_load
        peers.serve(m.ShowCluster, self._show)
        peers.serve(m.BalanceNow, self._balance)

    def _now(self) -> Deciding:
        deciding = self._deciding()
        if deciding is None or not deciding.controller.owns_term:
            raise KafkaError(ErrorCode.NOT_CONTROLLER)
        return deciding

    async def _measure(self) -> None:
        """A broker alone measures nothing until somebody asks."""
        self._now()
        self._own_load()
        if not self._own_load.is_measured:
            await asyncio.sleep(FIRST_S)

    async def _show(self, request: m.ShowCluster) -> m.ClusterShown:
        await self._measure()
        deciding = self._now()
        image = deciding.controller.image
        live = [one.incarnation for one in image.live_brokers()]
        silent = {one: deciding.detector.silent_s(one) for one in live}
        told = Told(
            deciding.loads.of(live),
            {one: seconds for one, seconds in silent.items() if seconds is not None},
            deciding.controller.fitness.unfit,
        )
        return m.ClusterShown(view_of(image, told))

    async def _balance(self, request: m.BalanceNow) -> m.Balanced:
        await self._measure()
        controller = self._now().controller
        levelling = controller.levelling
        assert levelling is not None
        why_not = levelling.why_not()
        if request.plan_only or why_not:
            plan = levelling.plan()
            moves: list[int] = []
        else:
            plan, moves = await levelling.step()
        view = balance_view(controller.image, plan, levelling.settings.above)
        return m.Balanced(view, moves, why_not)

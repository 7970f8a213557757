"""The worlds that a seed may be played in, by name.

broker  one broker at a time, one after the other      `simulation`
lives   streams without a broker                       `lives`
fleet   several brokers at a time; of three seeds one  `fleet_simulation`, `racks`
        has them in racks
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from .fleet_simulation import FleetSimulation
from .lives import run_lives
from .racks import RackSimulation
from .simulation import Simulation, run_seed
from .strike import Outcome, Strike


def fleet_of(seed: int, strike: Strike | None = None) -> FleetSimulation:
    racks = Random(f"racks {seed}").random() < 0.33
    return RackSimulation(seed, strike) if racks else FleetSimulation(seed, strike)


def run_fleet_seed(seed: int, strike: Strike | None = None) -> Outcome:
    """Raises what broke, with the seed in a note."""
    simulation = fleet_of(seed, strike)
    try:
        return simulation.run()
    except BaseException as error:
        error.add_note(f"fleet seed {seed}, at {simulation.loop.time() - 1000:.3f} s")
        raise


def simulation_of(world: str, seed: int, strike: Strike | None) -> Simulation | FleetSimulation:
    """Not run yet; of a world with brokers."""
    return fleet_of(seed, strike) if world == "fleet" else Simulation(seed, strike)


WORLDS: dict[str, Callable[[int, Strike | None], Outcome]] = {
    "broker": run_seed,
    "lives": run_lives,
    "fleet": run_fleet_seed,
}

"""What `headwater doctor` says of a store's objects: whether all that is referred to is there."""

from __future__ import annotations

from broker.verify import Fault, verify, what_to_do
from objectstore.doctor import Finding, Severity
from objectstore.errors import Corrupt, StoreError
from objectstore.store import ObjectStore


async def chain_finding(store: ObjectStore) -> Finding:
    """Reads metadata, logs and indexes; of records only that their objects are listed."""
    try:
        found = await verify(store, contents=False)
    except (Fault, Corrupt) as error:
        return Finding(Severity.ERROR, str(error), what_to_do(error))
    except StoreError as error:
        return Finding(Severity.WARNING, f"the objects were not looked through: {error}")
    return Finding(
        Severity.OK,
        f"the {found.contents.objects} objects with the records of {found.partitions} partitions "
        "are there; `headwater verify` reads them",
    )

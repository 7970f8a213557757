"""`headwater clone`: a cluster's bucket copied while brokers write to it, or after they are gone.

list     metadata, then logs, then data: whatever a log refers to was there before it
copy     data, then logs, then metadata: nothing in the target refers to what is not there yet
again    where an object was deleted before it could be read, until a pass meets none
settle   the cut of `broker.cut`: logs end where the copy of them is whole
last     meta/0/0, without which no broker starts
"""

from .cloning import Cloned, clone

__all__ = ["Cloned", "clone"]

"""`headwater verify --cut`: makes a bucket that lacks objects one that a broker can start on.

survey    what is there: keys, logs, terms                          (`survey`)
metadata  the log as far as it can be read, from the newest snapshot (`metadata`)
logs      each incarnation's log, at the last place where all that it needs is there (`logs`)
streams   of each partition the newest state found, up to its first fault (`streams`)
settle    every log ended, one new term, which hands all to the result (`settle`)
"""

from .cutting import cut
from .losses import Loss
from .planning import Plan, plan

__all__ = ["Loss", "Plan", "cut", "plan"]

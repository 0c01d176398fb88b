"""Alerts: from verdicts to people, and no further than they want to be told.

`machine.step` decides (pure), `book` keeps what it decided as records and queues what receivers are to be told in the same transaction, `deliver`
hands it over, `routes` are the wires. What is wrong reaches each route at least once, in its latest state; a receiver that is away costs nothing but
its own delay. It must not judge data: that is the detectors'.
"""

from modelyard.monitor.alerts.base import Alert as Alert
from modelyard.monitor.alerts.base import Explained as Explained
from modelyard.monitor.alerts.base import Notification as Notification
from modelyard.monitor.alerts.base import Policy as Policy
from modelyard.monitor.alerts.base import Rules as Rules
from modelyard.monitor.alerts.base import Silence as Silence
from modelyard.monitor.alerts.base import State as State
from modelyard.monitor.alerts.machine import step as step

"""The process above the others, where there are several.

__main__     the command
supervisor   keeps front ends and the worker running, and brings them together
child        one process: how it starts, is heard, ends, and when it is started again
starts       when no start will go better here
"""

from loss_scoring.service.supervisor.child import STARTING_S, Child
from loss_scoring.service.supervisor.starts import FailedStarts
from loss_scoring.service.supervisor.supervisor import LOST, Supervisor

__all__ = ["LOST", "STARTING_S", "Child", "FailedStarts", "Supervisor"]

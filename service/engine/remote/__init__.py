"""The device worker in a process of its own, which several front ends share.

    front end --+                              +-- Engine, one device
    front end --+== channels, shared memory ===+
    front end --+            worker

A supervisor starts them and gives each front end and the worker the two ends of a socket
(``service.supervisor``). Requests and answers lie in memory that the front end made; the channel
says where. When the worker dies, the front ends send what is unanswered to the next one.
"""

from loss_scoring.service.engine.remote.channel import Channel
from loss_scoring.service.engine.remote.client import RemoteEngine
from loss_scoring.service.engine.remote.host import Host
from loss_scoring.service.engine.remote.memory import SharedMemory
from loss_scoring.service.engine.remote.suspects import Ending

__all__ = ["Channel", "Ending", "Host", "RemoteEngine", "SharedMemory"]

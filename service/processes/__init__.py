"""Front ends around one device worker, each a process; whichever dies is replaced.

    supervisor
     ├─ front end x N   api, codecs, RemoteEngine ── channel and shared memory ──┐
     └─ fork server                                                              │
         └─ worker      Host, Engine, device thread  ◄───────────────────────────┘

The supervisor starts them and gives each front end and the worker the two ends of a socket.
Requests and answers lie in memory that the front end made; the channel says where. When the worker
dies, the front ends send what is unanswered to the next one.

__main__, supervisor, child, starts     the process above the others; imports nothing large
frontend, remote_engine, remote_job     an engine whose device is in another process
worker, host, suspects                  the process that owns the device
channel, wire, link, memory, placing    what lies between them
"""

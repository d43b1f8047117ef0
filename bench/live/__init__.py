"""The simulator's cluster, live: pods that exist as timers behind a real HTTP activator, and the real proxy before it.

`mlproxy.simulate` decides everything that its cluster does here too; only its timeline follows the clock, and its calls
come over sockets. `python -m bench.live` compares what is measured with what the simulator says of the same scenario.
"""

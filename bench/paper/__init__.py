"""The paper's comparison, repeated in the simulator: `python -m bench.paper`, or `make paper`."""

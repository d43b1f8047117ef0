"""The parts of deadline-driven, paced batching: what a call takes, what is needed, when it may leave. **Pure.**

Each part is small and knows nothing of the others; `mlproxy.engine.policies.slo` puts them together. The rules and
every constant come from the project's simulations of proxy, autoscaler and pods (docs/controller.md says how to repeat
them); every constant may move by a factor of two without costing 2 % more pods.
"""

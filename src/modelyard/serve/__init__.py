"""The data plane: a TrafficPlan in, answers and Observations out.

Started as `python -m modelyard.serve`: a supervisor without model code and its workers. It hides HTTP, batching, loading and the life of
its processes. It must not import the control plane, targets, or any library that trains or converts.
"""

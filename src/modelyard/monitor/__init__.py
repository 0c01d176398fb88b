"""Observations in, Verdicts out: what the data and the answers of a deployment look like beside what its model was packaged with.

`profile` counts (on the data plane too), `intake` takes the workers' spool into windows and the prediction log, `summary` tells what they show.
It must not serve, deploy or know a wire.
"""

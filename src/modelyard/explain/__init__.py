"""Explainers over `runtime.predict`: what each input contributed to an answer.

Hides how contributions are estimated. It must not know a wire or a clock: whoever asks says how much may be spent and when to stop.
"""

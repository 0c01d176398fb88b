"""Who may do what, and whose bytes these are: seals now; identity and policy beside them.

Hides cryptography. It must not know what the sealed bytes mean.
"""

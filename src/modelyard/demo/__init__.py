"""The demo: one real model's whole way, from training to the version that replaces it, in about two minutes.

Uses the product as a person would: `package`, `up`, `deploy`, HTTP requests, `status`. It hides the story's data and its telling; it must
not reach into the product's rooms, nor touch any home but its own.
"""

"""The Python client: predictions, and every verb of the control API, blocking (`Client`) or awaited (`AsyncClient`).

Hides HTTP, where the planes are, and that what may be asked twice is asked again, within a budget, where a server is overloaded or away; turns what
a server refuses back into the error tree. Both faces are made from one set of verbs (`client.verbs`), each a generator that says what to send and
is told the reply: it knows no socket, and a face knows no verb. It must not import what a server is made of: answers have types of its own
(`client.answers`), which leave out what they do not know, so that an older client understands a newer server.
"""

from modelyard.client.answers import Step as Step
from modelyard.client.answers import Strategy as Strategy
from modelyard.client.faces import AsyncClient as AsyncClient
from modelyard.client.faces import Client as Client
from modelyard.client.policy import refusal as refusal
from modelyard.client.trust import trusting as trusting

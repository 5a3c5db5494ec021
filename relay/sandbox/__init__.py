"""DataFast's Payments API, embedded: for the tests, the demo and a dry run.

It is a second implementation of what DataFast documents, written from its documentation and not
from the relay: it shares no code with what forwards and maps, so that it can contradict it. Where
DataFast leaves something open it takes the stricter reading or offers both. It talks to nobody.
"""

from relay.sandbox.app import create_app
from relay.sandbox.faults import DroppedConnectionError
from relay.sandbox.options import Options

__all__ = ["DroppedConnectionError", "Options", "create_app"]

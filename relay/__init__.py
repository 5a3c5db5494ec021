"""The DataFast relay: every payment, from any provider, into DataFast, once."""

__version__ = "0.1.0"

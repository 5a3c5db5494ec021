"""Where the parts of a web process are put together."""

from flask import Flask

from relay.config import Config
from relay.health import health
from relay.identify import identify
from relay.receive import webhooks
from relay.store import Store


def create_app(config: Config, store: Store | None = None) -> Flask:
    """The WSGI application of one web process. Opens the store, so call it after the fork."""
    app = Flask("relay", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = config.server.max_body + 1  # one more shows that it is over
    app.extensions["relay.config"] = config
    app.extensions["relay.store"] = store or Store(config.database)
    app.register_blueprint(webhooks)
    app.register_blueprint(identify)
    app.register_blueprint(health)
    return app

"""What the tests share."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden",
        action="store_true",
        help="rewrite `expected` of the recorded requests; read the diff before you commit it",
    )

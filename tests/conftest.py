import pytest

from django_ninebits.simulator import Simulator


@pytest.fixture
def provider(settings):
    """9bits on a socket, with the settings that lead there."""
    with Simulator() as running:
        settings.NINEBITS = {
            "API_TOKEN": running.token,
            "API_URL": running.url,
            "SHORT_CODE": "48974",
            "DISPATCHER": "django_ninebits.dispatch.defer",
        }
        yield running

"""The database that the tests run on, for processes that they start."""

from urllib.parse import urlsplit

from django.conf import settings
from django.db import connection


def url_of_the_test_database() -> str:
    """For their ``NINEBITS_TEST_DATABASE``."""
    parts = urlsplit(settings.URL)
    return f"{parts.scheme}://{parts.netloc}/{connection.settings_dict['NAME']}"

"""Two-way SMS with 9bits for Django."""

__version__ = "0.1.0.dev0"

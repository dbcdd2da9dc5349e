"""A small site that uses django-ninebits; ``make demo`` runs it."""

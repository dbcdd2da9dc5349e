import re

from django_ninebits.conf import DEFAULTS
from tests.settings import BASE_DIR

README = (BASE_DIR / "README.md").read_text()


def test_the_table_has_every_setting():
    assert re.findall(r"^\| `([A-Z_]+)` \|", README, re.MULTILINE) == list(DEFAULTS)


def test_the_code_is_python():
    for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL):
        compile(block, "README.md", "exec")

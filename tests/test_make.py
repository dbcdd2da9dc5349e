"""``make`` on machines that lack something: one sentence, and the next ``make`` goes on."""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.settings import BASE_DIR

OLD = f"#!{sys.executable}\nimport sys\nsys.version_info = (3, 10)\nexec(sys.argv[2])\n"

#: A Python that lacks nothing, and no network: what it is asked to install is written down.
COMPLETE = """\
#!/bin/sh
case "$2 $3" in
    "venv --clear") rm -rf "$4" && mkdir -p "$4/bin" && cp "$0" "$4/bin/python" ;;
    "pip install") echo "$@" >>asked ;;
esac
"""


@pytest.fixture
def checkout(tmp_path):
    for name in ("Makefile", "pyproject.toml"):
        (tmp_path / name).write_bytes((BASE_DIR / name).read_bytes())
    return tmp_path


def make(checkout, python):
    return subprocess.run(
        ["make", "demo", f"PYTHON={python}"],
        cwd=checkout,
        env={"PATH": os.environ["PATH"]},
        check=False,
        capture_output=True,
        text=True,
    )


def program(path, code):
    path.write_text(code)
    path.chmod(0o755)
    return path


def python_without(module, directory):
    """The interpreter itself, with a standard library that lacks this module."""
    stdlib = Path(sysconfig.get_path("stdlib"))
    copy = directory / sys.platlibdir / stdlib.name
    copy.mkdir(parents=True)
    for part in stdlib.iterdir():
        if part.name != module:
            (copy / part.name).symlink_to(part)
    code = f'#!/bin/sh\nPYTHONHOME={directory} exec {Path(sys.executable).resolve()} "$@"\n'
    return program(directory / "python", code)


def complaint(done):
    """The one sentence; ``make`` itself adds that the target failed."""
    said, by_make = done.stderr.splitlines()
    assert (done.returncode, done.stdout) == (2, "")
    assert by_make.startswith("make: *** ")
    return said


def test_without_a_python_it_says_what_to_install(checkout):
    said = complaint(make(checkout, "python-that-is-not-there"))
    assert said.startswith("There is no python-that-is-not-there on PATH: install Python 3.11")


def test_an_old_python_is_named_with_its_version(checkout):
    old = program(checkout / "old", OLD)
    said = complaint(make(checkout, old))
    assert said.startswith(f"Python 3.11 or newer is needed, and {old} is 3.10: name another")


@pytest.mark.parametrize("module", ["ensurepip", "venv"])
def test_without_the_module_it_says_which_package_has_it(checkout, module):
    said = complaint(make(checkout, python_without(module, checkout / "incomplete")))
    assert f"(No module named '{module}')" in said
    assert f"apt-get install python3.{sys.version_info.minor}-venv" in said


def test_once_the_module_is_there_the_next_make_goes_on(checkout):
    complaint(make(checkout, python_without("ensurepip", checkout / "incomplete")))
    make(checkout, program(checkout / "complete", COMPLETE))
    assert (checkout / ".venv/installed").exists()
    assert "--editable ." in (checkout / "asked").read_text()


def test_an_environment_that_was_left_half_made_is_made_again(checkout):
    (checkout / ".venv/bin").mkdir(parents=True)
    program(checkout / ".venv/bin/python", "#!/bin/sh\nexit 1\n")
    (checkout / ".venv/left").touch()
    make(checkout, program(checkout / "complete", COMPLETE))
    assert sorted(file.name for file in (checkout / ".venv").iterdir()) == ["bin", "installed"]


def test_an_environment_that_works_is_kept(checkout):
    (checkout / ".venv/bin").mkdir(parents=True)
    program(checkout / ".venv/bin/python", COMPLETE)
    (checkout / ".venv/mine").touch()
    make(checkout, "python-that-is-not-needed")
    assert (checkout / ".venv/mine").exists()
    assert (checkout / ".venv/installed").exists()

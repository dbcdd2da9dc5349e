import ast
from pathlib import Path

import pytest

import django_ninebits

PACKAGE = Path(django_ninebits.__file__).parent

#: What each module of the package may import of the package: what stands below it.
GROUND = {"__init__", "conf", "exceptions", "phone", "placeholders", "plain", "segments", "signals"}
WIRE = GROUND | {"wire"}
INBOX = WIRE | {"models", "contention"}
OUTBOX = INBOX | {"client"}
SERVICES = OUTBOX | {"outbox", "dispatch"}
EVERYTHING = SERVICES | {"services", "inbox", "webhook", "worker"}

BELOW = {
    "__init__": set(),
    "conf": {"exceptions", "phone", "segments"},
    "exceptions": set(),
    "phone": {"exceptions"},
    "placeholders": set(),
    "plain": {"segments"},
    "segments": set(),
    "signals": set(),
    "wire": GROUND,
    "client": WIRE,
    "models": WIRE - {"conf"},
    "contention": WIRE | {"models"},
    "outbox": OUTBOX,
    "consent": INBOX,
    "inbox": (INBOX - {"conf"}) | {"consent"},
    "optout": SERVICES | {"consent", "services"},
    "status": INBOX,
    "search": INBOX - {"conf"},
    "keyset": {"models"},
    "links": set(),
    "live": set(),
    "folders": INBOX | {"search", "keyset", "live"},
    "canned": INBOX - {"conf"},
    "composer": INBOX | {"canned"},
    "trail": INBOX - {"conf"},
    "dispatch": OUTBOX | {"outbox"},
    "services": SERVICES,
    "webhook": INBOX | {"inbox"},
    "worker": OUTBOX | {"outbox", "inbox"},
    "simulator": {"__init__", "wire"},
}

#: Whatever is not named above is the surface: it may import anything, and nothing above imports it.
FILES = [path for path in PACKAGE.rglob("*.py") if "migrations" not in path.parts]


def name(path):
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


def imported(node):
    """The modules of the package that an import statement names."""
    if isinstance(node, ast.Import):
        found = [alias.name for alias in node.names]
    elif node.module == "django_ninebits":
        found = [f"django_ninebits.{alias.name}" for alias in node.names]
    else:
        found = [node.module]
    parts = [module.split(".") for module in found]
    ours = {
        module[1] if module[1:] else "__init__" for module in parts if module[0] == PACKAGE.name
    }
    return {module if (PACKAGE / f"{module}.py").exists() else "__init__" for module in ours}


def imports(tree):
    return [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]


@pytest.mark.parametrize("path", FILES, ids=name)
def test_imports_go_down_only(path):
    found = set().union(*map(imported, imports(ast.parse(path.read_text()))))
    assert found <= BELOW.get(name(path), found)


@pytest.mark.parametrize("path", FILES, ids=name)
def test_imports_stand_at_the_top_and_are_absolute(path):
    tree = ast.parse(path.read_text())
    # But in ``ready``: what needs models cannot be imported before it.
    inner = [
        node
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef) and function.name != "ready"
        for node in imports(function)
    ]
    relative = [node for node in imports(tree) if isinstance(node, ast.ImportFrom) and node.level]
    assert inner + relative == []


def test_every_layer_is_there():
    assert set(BELOW) <= {name(path) for path in FILES}


def test_the_ground_imports_nothing_above_it():
    assert all(BELOW[module] <= GROUND for module in GROUND)


def test_the_two_stories_never_meet():
    assert "inbox" not in BELOW["outbox"]
    assert "outbox" not in BELOW["inbox"]


@pytest.mark.parametrize(
    ("module", "foreign"),
    [
        ("client", "django"),
        ("placeholders", "django"),
        ("plain", "django"),
        ("segments", "django"),
        ("simulator", "django"),
        ("wire", "django"),
        ("phone", "django"),
        ("links", "django"),
        ("models", "requests"),
        ("inbox", "requests"),
        ("outbox", "requests"),
        ("status", "requests"),
        ("folders", "requests"),
        ("keyset", "requests"),
        ("search", "requests"),
    ],
)
def test_a_module_knows_nothing_of_what_is_not_its_business(module, foreign):
    tree = ast.parse((PACKAGE / f"{module}.py").read_text())
    names = [
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    ]
    names += [f"{node.module}" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert foreign not in {found.split(".")[0] for found in names}

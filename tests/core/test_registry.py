"""What a registry refuses, and what a fingerprint notices."""

import sys
from dataclasses import dataclass
from types import ModuleType

import pytest

from orchestra.context import OrchestrationContext
from orchestra.errors import (
    DuplicateVersion,
    InvalidFunction,
    InvalidVersion,
    RegistrationError,
    UnknownOrchestration,
    UnknownVersion,
    UnresolvableAnnotation,
)
from orchestra.fingerprint import fingerprint
from orchestra.registry import OrchestrationRegistry
from orchestra.versions import Exact, Latest


@dataclass
class State:
    count: int = 0


async def good(ctx: OrchestrationContext, state: State) -> int:
    return state.count


async def other(ctx, state):
    return 1


def plain_function(ctx, state):
    return 1


async def generator(ctx, state):
    yield 1


async def no_input(ctx):
    pass


async def three_inputs(ctx, state, more):
    pass


async def keyword_input(ctx, *, state):
    pass


async def star_input(*args):
    pass


async def opaque_state(ctx, state: ModuleType):
    pass


async def opaque_result(ctx, state) -> ModuleType:
    return sys


async def missing_state(ctx, state: "Nowhere") -> None:  # noqa: F821
    pass


class Callable:
    async def __call__(self, ctx, state):
        pass

    async def method(self, ctx, state: State):
        return 1

    async def another(self, ctx, state: State):
        return 2


def build(*entries, policies=()):
    builder = OrchestrationRegistry.builder()
    for entry in entries:
        builder.register(*entry)
    for name, policy in policies:
        builder.set_version_policy(name, policy)
    return builder.build()


REFUSED = {
    "twice": (
        [("watch", good), ("watch", other)],
        DuplicateVersion,
        ["good", "other", "'watch' 1.0.0"],
    ),
    "build metadata": (
        [("watch", good, "1.0.0+a"), ("watch", good, "1.0.0+b")],
        DuplicateVersion,
        ["1.0.0+b"],
    ),
    "malformed version": ([("watch", good, "1.0")], InvalidVersion, ["'1.0'"]),
    "not async": ([("watch", plain_function)], InvalidFunction, ["plain_function", "async def"]),
    "a generator": ([("watch", generator)], InvalidFunction, ["generator", "async def"]),
    "no function": ([("watch", 7)], InvalidFunction, ["7"]),
    "a callable object": ([("watch", Callable())], InvalidFunction, ["Callable"]),
    "too few parameters": ([("watch", no_input)], InvalidFunction, ["no_input", "(ctx, input)"]),
    "too many parameters": (
        [("watch", three_inputs)],
        InvalidFunction,
        ["three_inputs", "(ctx, input)"],
    ),
    "keyword parameters": ([("watch", keyword_input)], InvalidFunction, ["keyword_input"]),
    "star parameters": ([("watch", star_input)], InvalidFunction, ["star_input"]),
    "state without a form": (
        [("watch", opaque_state)],
        UnresolvableAnnotation,
        ["opaque_state", "module"],
    ),
    "result without a form": (
        [("watch", opaque_result)],
        UnresolvableAnnotation,
        ["opaque_result", "module"],
    ),
    "unknown name": (
        [("watch", missing_state)],
        UnresolvableAnnotation,
        ["missing_state", "Nowhere", "TYPE_CHECKING"],
    ),
    "empty name": ([("", good)], RegistrationError, ["an orchestration's name must not be empty"]),
    "name that is no text": (
        [(None, good)],
        RegistrationError,
        ["an orchestration's name must be text, not NoneType"],
    ),
    "name with NUL": (
        [("a\0b", good)],
        RegistrationError,
        ["an orchestration's name must not hold NUL"],
    ),
    "name with half a pair": ([("\ud83d", good)], RegistrationError, ["half a surrogate pair"]),
    "long name": ([("x" * 1025, good)], RegistrationError, ["at most 1024 characters"]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_registered_is_refused_by_name(case):
    entries, error, said = REFUSED[case]
    with pytest.raises(error) as caught:
        build(*entries)
    for text in said:
        assert text in str(caught.value)


@pytest.mark.parametrize(
    ("policies", "said"),
    [
        ([("nobody", Latest())], "'nobody', which is not registered"),
        ([("watch", Exact("2.0.0"))], "registered are 1.0.0"),
        ([("watch", "1.0.0")], "give Latest"),
    ],
)
def test_a_policy_that_cannot_be_followed_is_refused(policies, said):
    with pytest.raises(RegistrationError, match=said):
        build(("watch", good), policies=policies)


LATE = """
from __future__ import annotations
from dataclasses import dataclass
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    from decimal import Decimal

@dataclass
class State:
    price: Decimal

async def direct(ctx, state: Decimal): ...
async def nested(ctx, state: State): ...
"""


@pytest.fixture
def module(monkeypatch):
    """Return a function that makes a module of a source text."""

    def make(source, name="core_registry_source"):
        made = ModuleType(name)
        monkeypatch.setitem(sys.modules, name, made)
        exec(compile(source, f"{name}.py", "exec"), made.__dict__)
        return made

    return make


@pytest.mark.parametrize("name", ["direct", "nested"])
def test_types_that_are_imported_for_the_type_checker_only_are_named_at_once(module, name):
    function = getattr(module(LATE), name)
    with pytest.raises(UnresolvableAnnotation) as caught:
        build(("watch", function))
    assert name in str(caught.value)
    assert "Decimal" in str(caught.value)


def test_types_of_the_enclosing_function_are_found():
    @dataclass
    class Local:
        count: int

    async def local(ctx, state: "Local") -> "Local":
        return state

    registry = OrchestrationRegistry.builder().register("watch", local).build()
    assert registry.get("watch", "1.0.0").state.annotation is Local


async def quoted(ctx, state: "State") -> None: ...


def test_local_names_where_a_function_is_registered_do_not_shadow_its_own():
    State = int  # the function is defined elsewhere, and means another State
    registry = OrchestrationRegistry.builder().register("watch", quoted).build()
    assert registry.get("watch", "1.0.0").state.annotation is not State


def test_the_order_of_registration_does_not_matter():
    entries = [
        ("a", good, "1.10.0"),
        ("b", other),
        ("a", other, "1.9.0"),
        ("a", good, "2.0.0-rc.1"),
    ]
    for order in (entries, entries[::-1]):
        registry = build(*order)
        assert registry.names == ("a", "b")
        assert registry.versions("a") == ("1.9.0", "1.10.0", "2.0.0-rc.1")
        assert registry.resolve("a") == "1.10.0"
        assert [f"{made.name} {made.version}" for made in registry.capabilities()] == [
            "a 1.9.0",
            "a 1.10.0",
            "a 2.0.0-rc.1",
            "b 1.0.0",
        ]


def test_what_is_unknown_is_refused_by_name():
    registry = build(("watch", good), ("watch", other, "1.1.0"))
    with pytest.raises(UnknownOrchestration, match=r"'wathc'.*\(registered: 'watch'\)") as unknown:
        registry.get("wathc", "1.0.0")
    assert unknown.value.name == "wathc"
    with pytest.raises(
        UnknownVersion, match=r"registered in 1.0.0, 1.1.0, not in 3.0.0"
    ) as version:
        registry.get("watch", "3.0.0")
    assert (version.value.name, version.value.version) == ("watch", "3.0.0")
    assert registry.find("watch", "3.0.0") is None


def test_a_registry_does_not_change_after_it_is_built():
    builder = OrchestrationRegistry.builder().register("watch", good)
    registry = builder.build()
    builder.register("watch", other, "2.0.0").set_version_policy("watch", Exact("2.0.0"))
    assert registry.versions("watch") == ("1.0.0",)
    assert registry.policy("watch") == Latest()
    with pytest.raises(TypeError):
        registry.policies["watch"] = Exact("1.0.0")
    with pytest.raises(AttributeError):
        registry.extra = 1


def test_a_bound_method_can_be_registered():
    registry = build(("watch", Callable().method))
    assert registry.get("watch", "1.0.0").state.annotation is State


# --- fingerprints ---

BASE = """
LIMIT = 3
def helper(value):
    return value + 1

def unused(value):
    return value

async def watch(ctx, state):
    names = [item + "a" for item in state]
    if state in {"x", "y", "z"}:
        return helper(names)
    return None
"""

UNNOTICED = {
    "nothing": BASE,
    "a comment": BASE.replace("    return value + 1", "    # why\n    return value + 1"),
    "lines": "\n\n\n" + BASE.replace("    if state", "\n\n    if state"),
    "a docstring": BASE.replace(
        "async def watch(ctx, state):", 'async def watch(ctx, state):\n    """What it does."""'
    ),
    "another docstring": BASE.replace("def helper(value):", 'def helper(value):\n    """Helps."""'),
    "code that it does not name": BASE.replace("    return value\n", "    return value * 2\n"),
}
NOTICED = {
    "a constant": BASE.replace("value + 1", "value + 2"),
    "a constant in a comprehension": BASE.replace('item + "a"', 'item + "b"'),
    "a member of a set": BASE.replace('"z"', '"w"'),
    "a call": BASE.replace("helper(names)", "helper(helper(names))"),
    "an operator": BASE.replace("value + 1", "value - 1"),
    "a default": BASE.replace("def helper(value):", "def helper(value, by=2):"),
    "another default": BASE.replace("def helper(value):", "def helper(value, by=3):"),
    "a keyword default": BASE.replace("def helper(value):", "def helper(value, *, by=2):"),
    "another keyword default": BASE.replace("def helper(value):", "def helper(value, *, by=3):"),
    "another function": BASE.replace("helper(names)", "unused(names)"),
}


@pytest.mark.parametrize("change", UNNOTICED)
def test_a_fingerprint_does_not_notice_what_changes_no_behaviour(module, change):
    assert fingerprint(module(UNNOTICED[change]).watch) == fingerprint(module(BASE).watch)


def test_a_fingerprint_notices_every_change_of_code_and_helpers(module):
    prints = {change: fingerprint(module(source).watch) for change, source in NOTICED.items()}
    prints["nothing"] = fingerprint(module(BASE).watch)
    assert len(set(prints.values())) == len(prints), prints


def test_a_fingerprint_notices_another_form_of_state(module):
    source = (
        "from dataclasses import dataclass\n@dataclass\nclass State:\n    count: int\nasync def "
        "watch(ctx, state: State): ..."
    )
    first = build(("watch", module(source).watch)).fingerprint("watch", "1.0.0")
    second = build(("watch", module(source.replace("int", "str")).watch)).fingerprint(
        "watch", "1.0.0"
    )
    assert first != second


def test_methods_have_fingerprints_of_their_own():
    assert fingerprint(Callable().method) == fingerprint(Callable().method)
    assert fingerprint(Callable().method) != fingerprint(Callable().another)


def test_a_function_that_calls_itself_has_a_fingerprint(module):
    recursive = module("async def watch(ctx, state):\n    return await watch(ctx, state)")
    assert len(fingerprint(recursive.watch)) == 16


STATEFUL = """
from dataclasses import dataclass
class Base:
    def inherited(self): return 1
class Helper(Base):
    @staticmethod
    def pick(): return 1
    @property
    def fast(self): return 1
@dataclass
class State:
    count: int
    def __post_init__(self): self.count += 1
async def watch(ctx, state: State | None):
    return Helper().fast
"""


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("self.count += 1", "self.count += 2"),
        ("def pick(): return 1", "def pick(): return 2"),
        ("def fast(self): return 1", "def fast(self): return 2"),
        ("def inherited(self): return 1", "def inherited(self): return 2"),
    ],
    ids=["the state's own code", "a static method", "a property", "an inherited method"],
)
def test_a_fingerprint_notices_what_classes_do(module, old, new):
    assert old in STATEFUL
    first = build(("watch", module(STATEFUL).watch)).fingerprint("watch", "1.0.0")
    again = build(("watch", module(STATEFUL).watch)).fingerprint("watch", "1.0.0")
    second = build(("watch", module(STATEFUL.replace(old, new)).watch)).fingerprint(
        "watch", "1.0.0"
    )
    assert first == again != second


def test_a_fingerprint_notices_what_is_called_through_a_module_of_its_package(module):
    def with_helpers(value):
        made = module("async def watch(ctx, state):\n    return helpers.pick()")
        made.helpers = module(f"def pick():\n    return {value}")
        made.helpers.__name__ = made.__name__
        return fingerprint(made.watch)

    assert with_helpers(1) == with_helpers(1) != with_helpers(2)


def test_the_fingerprint_of_an_opening_notices_other_migrations_though_the_code_is_the_same():
    def opening(*migrations):
        builder = OrchestrationRegistry.builder().register("watch", good, version="2.0.0")
        builder.register("watch", good, version="1.0.0")
        for migration in migrations:
            builder.migrate("watch", "2.0.0", migration)
        return builder.build().get("watch", "2.0.0").opening_fingerprint

    def doubled(state: State) -> State:
        return State(state.count * 2)

    def tripled(state: State) -> State:
        return State(state.count * 3)

    assert len({opening(), opening(doubled), opening(tripled)}) == 3
    assert opening(doubled) == opening(doubled)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_the_fingerprint_of_an_opening_notices_each_migration_of_a_chain(place):
    def doubled(state: State) -> State:
        return State(state.count * 2)

    def tripled(state: State) -> State:
        return State(state.count * 3)

    def opening(*chain):
        builder = OrchestrationRegistry.builder().register("watch", good, version="3.0.0")
        for version, migration in zip(("1.1.0", "2.0.0", "3.0.0"), chain, strict=True):
            builder.migrate("watch", version, migration)
        return builder.build().get("watch", "3.0.0").opening_fingerprint

    chain = [doubled, doubled, doubled]
    before = opening(*chain)
    chain[place] = tripled
    assert opening(*chain) != before

"""The recipe loader: what it accepts, and that each mistake is reported on its own line."""

from __future__ import annotations

import dataclasses
import json
import pickle
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from brickyard.infra.config import Deferred, dump, load, load_file, parse, to_yaml
from brickyard.infra.document import MAX_BYTES
from brickyard.shards.errors import RecipeError


@dataclass(frozen=True, kw_only=True)
class Superpixels:
    count: int = 150
    compactness: float = 6.0

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"count must be at least 1, found {self.count}")


@dataclass(frozen=True, kw_only=True)
class Source:
    dataset: str
    root: Path
    options: Deferred = field(default_factory=Deferred)
    limit: int | None = None


@dataclass(frozen=True, kw_only=True)
class Recipe:
    name: str
    seed: int = 0
    mode: Literal["fast", "exact"] = "exact"
    verify: bool = True
    learning_rate: float | None = None
    size: tuple[int, int] = (640, 480)
    tags: tuple[str, ...] = ()
    weights: dict[str, float] = field(default_factory=dict)
    window: int | float | str = 1
    superpixels: Superpixels | None = None
    sources: tuple[Source, ...] = ()


@dataclass(frozen=True, kw_only=True)
class KittiOptions:
    camera: Literal["image_02", "image_03"] = "image_02"
    drives: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class NeedsKey:
    key: str


GOOD = """\
name: demo
seed: 1_000
learning_rate: 1e-3
superpixels:
  count: 100
sources:
  - dataset: kitti
    root: /data/kitti
    options:
      camera: image_03
      drives: ["0001", no]
  - {dataset: nuscenes, root: /data/nuscenes, limit: 2}
"""


def failure(text: str, cls: type[Any] = Recipe) -> str:
    with pytest.raises(RecipeError) as caught:
        load(text, cls, where="recipe.yaml")
    return str(caught.value)


def test_loads_every_kind_of_value() -> None:
    recipe = load(GOOD, Recipe, where="recipe.yaml")
    assert (recipe.name, recipe.seed, recipe.learning_rate) == ("demo", 1000, 0.001)
    assert recipe.superpixels == Superpixels(count=100)
    assert recipe.sources[0].root == Path("/data/kitti")
    assert recipe.sources[0].options.load(KittiOptions) == KittiOptions(camera="image_03", drives=["0001", "no"])
    assert recipe.sources[1].options.load(KittiOptions) == KittiOptions()
    assert recipe.sources[1].limit == 2
    assert load(json.dumps({"name": "json"}), Recipe, where="x") == Recipe(name="json")


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("name: a\nsuperpixel: {}", "line 2 column 1", "'superpixel' in the recipe; nearest valid key: 'superpixels'"),
        ("name: a\nsuperpixels:\n  cuont: 3", "line 3 column 3", "'cuont' in superpixels; nearest valid key: 'count'"),
        ("name: a\nsuperpixels:\n  count: 0", "line 3 column 10", "superpixels: count must be at least 1, found 0"),
        ("name: a\nsources:\n  - root: x", "line 3 column 5", "missing key 'dataset' in sources[0] (expected a text)"),
        ("seed: 1", "line 1 column 1", "missing key 'name'"),
        ("name: a\nseed: 1\nname: b", "line 3 column 1", "duplicate key 'name' in the recipe, first given in line 1"),
        ("name: a\nseed: true", "line 2 column 7", "seed: expected a whole number, found the truth value 'true'"),
        ("name: a\nseed: 1.0", "line 2 column 7", "seed: expected a whole number, found the number '1.0'"),
        ("name: a\nseed: '1'", "line 2 column 7", "seed: expected a whole number, found the text '1'"),
        ("name: a\nseed: 99999999999999999999", "line 2 column 7", "does not fit into 64 bits"),
        ("name: a\nseed: " + "9" * 5000, "line 2 column 7", "does not fit into 64 bits"),
        ("name: a\nlearning_rate: .nan", "line 2", "not a finite number"),
        ("name: a\nlearning_rate: 1e999", "line 2", "not a finite number"),
        ("name: 1.5", "line 1 column 7", "expected a text, found the number '1.5' (put it in quotes)"),
        ("name:", "line 1", "name: expected a text, found nothing (null)"),
        ("name: a\nverify: yes", "line 2", "expected a truth value, found the text 'yes'"),
        ("name: a\nmode: exactt", "line 2 column 7", "nearest valid value: 'exact' (valid: fast, exact)"),
        ("name: a\nmode: [exact]", "line 2", "found a list"),
        ("name: a\nsize: [1, 2, 3]", "line 2 column 7", "size: expected 2 values, found 3"),
        ("name: a\nsize: [1, b]", "line 2 column 11", "size[1]: expected a whole number, found the text 'b'"),
        ("name: a\ntags: one", "line 2 column 7", "tags: expected a list (text each), found the text 'one'"),
        ("name: a\nweights:\n  1: 2", "line 3 column 3", "keys of weights must be text"),
        ("name: a\nweights: {b: c}", "line 2 column 14", "weights.b: expected a number"),
        ("name: a\nsuperpixels: 3", "line 2", "superpixels: expected a mapping (key: value) or null, found"),
        ("name: a\nsuperpixels: {count: x}", "line 2 column 22", "superpixels.count: expected a whole number"),
        ("name: a\nlearning_rate: fast", "line 2", "expected a number or null, found the text 'fast'"),
        ("- a", "line 1", "expected a mapping (key: value), found a list"),
        ("name: a\n? [b]\n: c", "line 2", "keys of the recipe must be text, found a list"),
        ("name: a\n<<: {seed: 1}", "line 2", "unknown key '<<'"),
        ("", "line 1", "empty"),
        ("# nothing\n", "line 1", "empty"),
        ("name: a\n  seed: 1", "line 2 column 7", "not valid YAML"),
        ("name: [a", "line 1", "not valid YAML"),
        ("name: a\n---\nname: b", "line 2", "not valid YAML"),
        ("name: a\nseed: \x07", "line 2", "not allowed in YAML"),
        ("name: !!python/object:os.system a", "line 1 column 7", "tags"),
        ("name: !local a", "line 1 column 7", "tags"),
        ("name: *nobody", "line 1", "not valid YAML: found undefined alias"),
        ("name: a\ntags: &t [*t]", "line 2", "inside"),
        ("name: " + "[" * 5000, "line 1", "nested deeper"),
    ],
)  # fmt: skip
def test_each_mistake_names_its_place_and_the_cure(text: str, place: str, words: str) -> None:
    message = failure(text)
    assert message.startswith(f"recipe.yaml {place}"), message
    assert words in message


def test_aliases_work_but_bombs_do_not() -> None:
    assert load("name: &n a\ntags: [*n, *n]", Recipe, where="x").tags == ("a", "a")
    bomb = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
    )
    assert "aliases expand" in failure(bomb)
    chain = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}]\n" for n in range(1, 200))
    assert "levels" in failure(chain)
    assert "at most 1 MiB" in failure("#" * (MAX_BYTES + 1))


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "good.yaml"
    path.write_text(GOOD)
    assert load_file(path, Recipe) == load(GOOD, Recipe, where="")
    path.write_bytes(b"name: a\nmode: \xff")
    with pytest.raises(RecipeError, match=r"good.yaml line 2: byte 14 is not UTF-8"):
        load_file(path, Recipe)
    with pytest.raises(RecipeError, match="cannot be read"):
        load_file(tmp_path / "absent.yaml", Recipe)


def test_deferred_points_into_the_recipe() -> None:
    recipe = load(GOOD.replace("camera", "kamera"), Recipe, where="recipe.yaml")
    with pytest.raises(
        RecipeError, match=r"line 10 column 7: unknown key 'kamera' in sources\[0\].options; .*'camera'"
    ):
        recipe.sources[0].options.load(KittiOptions)
    with pytest.raises(RecipeError, match=r"line 12 .*missing key 'key' in sources\[1\].options"):
        recipe.sources[1].options.load(NeedsKey)
    assert str(recipe.sources[0].options.error("no such drive")) == "recipe.yaml line 10 column 7: no such drive"
    assert pickle.loads(pickle.dumps(recipe)) == recipe  # noqa: S301


def test_choose_a_class_by_name() -> None:
    classes: dict[str, type[Any]] = {"kitti": KittiOptions, "key": NeedsKey}

    def choose(text: str) -> tuple[str, Any]:
        return parse(text, where="r").choose("name", classes)

    assert choose("name: kitti\ncamera: image_03") == ("kitti", KittiOptions(camera="image_03"))
    for text, message in [
        ("name: kiti", "r line 1 column 7: unknown name 'kiti' in the recipe; nearest valid name: 'kitti'"),
        ("key: a", "r line 1 column 1: missing key 'name' in the recipe; one of: kitti, key"),
        ("name: key\nkeys: a", "r line 2 column 1: unknown key 'keys'"),
    ]:
        with pytest.raises(RecipeError) as caught:
            choose(text)
        assert str(caught.value).startswith(message)


def test_dump_refuses_what_yaml_and_json_cannot_hold() -> None:
    with pytest.raises(ValueError, match="finite"):
        dump(Recipe(name="a", learning_rate=float("inf")))
    with pytest.raises(TypeError, match="cannot hold"):
        dump({"a": object()})
    with pytest.raises(TypeError, match="not a type"):
        load("a", bytes, where="x")


FLOATS = st.floats(allow_nan=False, allow_infinity=False)
INTS = st.integers(-(1 << 63), (1 << 63) - 1)
PLAIN = st.recursive(
    st.none() | st.booleans() | INTS | FLOATS | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
OPTIONS = PLAIN.map(lambda value: parse(to_yaml({"v": value}), where="x"))
SOURCES = st.builds(
    Source,
    dataset=st.text(max_size=9),
    root=st.sampled_from(["/data", "a b", "s3-like: x"]).map(Path),
    options=OPTIONS,
    limit=st.none() | INTS,
)
RECIPES = st.builds(
    Recipe,
    name=st.text() | st.sampled_from(["1e-3", "0o17", "no", "null", "~", "1_000", ".5", "+1", "=", "<<", "1.", ".inf"]),
    seed=INTS,
    mode=st.sampled_from(["fast", "exact"]),
    verify=st.booleans(),
    learning_rate=st.none() | FLOATS,
    size=st.tuples(INTS, INTS),
    tags=st.lists(st.text(max_size=9), max_size=4).map(tuple),
    weights=st.dictionaries(st.text(max_size=9), FLOATS, max_size=3),
    window=INTS | FLOATS | st.text(max_size=5),
    superpixels=st.none() | st.builds(Superpixels, count=st.integers(1, 1 << 40), compactness=FLOATS),
    sources=st.lists(SOURCES, max_size=2).map(tuple),
)


@settings(max_examples=60, deadline=None)
@given(RECIPES)
@example(Recipe(name="\x85\u2028\ufeff", tags=("a\n b ", "#", ": ")))
def test_dump_then_load_is_the_same_config(recipe: Recipe) -> None:
    assert load(to_yaml(recipe), Recipe, where="x") == recipe
    assert json.loads(json.dumps(dump(recipe), allow_nan=False)) == dump(recipe)


def _keys(node: yaml.Node | None, below: type[Any] | None, found: list[tuple[int, int, str]]) -> None:
    """(start, end, key) of every key that a dataclass owns."""
    nested: dict[str, Any] = {"superpixels": Superpixels, "sources": Source}
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if below is not None and key.value in {f.name for f in dataclasses.fields(below)}:
                found.append((key.start_mark.index, key.end_mark.index, key.value))
                _keys(value, nested.get(key.value), found)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _keys(item, below, found)


def _double(text: str) -> str:
    return text + text[-1]


@settings(max_examples=60, deadline=None)
@given(RECIPES, st.data(), st.sampled_from([str.upper, _double, lambda text: text[1:]]))
def test_every_mutated_key_is_found_on_its_line(recipe: Recipe, data: Any, mutate: Callable[[str], str]) -> None:
    text = to_yaml(recipe)
    found: list[tuple[int, int, str]] = []
    _keys(yaml.compose(text), Recipe, found)
    start, end, key = data.draw(st.sampled_from(found))
    broken = text[:start] + mutate(key) + text[end:]
    if mutate(key) != key:
        line = text.count("\n", 0, start) + 1
        assert failure(broken).startswith(f"recipe.yaml line {line} column")
        assert repr(mutate(key)) in failure(broken)


SENTENCES = (
    "{name} must be positive, found {value}",
    "must be positive: {name}",
    "found {value}, but `{name}` must be positive",
    "{other} and {name} must be positive",
    "whatever {other} is, '{name}' has to be more than {value}",
    "one of the numbers is not positive",
    "the {other}s of a {other} are a {name}'s, which is {value}",
)
NAMES = ("lr", "steps", "steps_warm", "clip", "views", "lr_final")


def _ranged(sentence: str, other: str) -> type[Any]:
    """A config of numbers that complains of the first one that is not positive, in the words of the sentence."""

    def check(self: Any) -> None:
        for name in NAMES:
            if (value := getattr(self, name)) <= 0:
                raise ValueError(sentence.format(name=name, other=other, value=value))

    fields = [(name, int, field(default=1)) for name in NAMES]
    return dataclasses.make_dataclass("Ranged", fields, frozen=True, kw_only=True, namespace={"__post_init__": check})


@given(
    st.dictionaries(st.sampled_from(NAMES), st.integers(-3, 3), min_size=1),
    st.sampled_from(SENTENCES),
    st.sampled_from(NAMES),
)
def test_a_range_error_is_found_on_the_line_of_its_key(values: dict[str, int], sentence: str, other: str) -> None:
    text = "".join(f"{name}: {value}\n" for name, value in values.items())
    wrong = [name for name in NAMES if values.get(name, 1) <= 0]
    if not wrong:
        load(text, _ranged(sentence, other), where="r")
        return
    with pytest.raises(RecipeError) as caught:
        load(text, _ranged(sentence, other), where="r")
    lines = [list(values).index(name) + 1 for name in wrong]
    unclear = "{name}" not in sentence and len(wrong) > 1  # then it is the mapping's line
    assert str(caught.value).startswith(f"r line {1 if unclear else lines[0]} column"), caught.value


@dataclass(frozen=True, kw_only=True)
class Nested:
    needed: int
    views: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.needed < 0:
            raise ValueError("a number below zero is not what needed stands for")
        if self.views.get("withhold"):
            raise ValueError('views.withhold needs "valid" among the inputs')
        if self.views.get("sum", 0) + self.needed > 9:
            raise ValueError("too much")


def test_a_range_error_below_a_key_or_of_no_key_has_a_line_too() -> None:
    for text, line in [
        ("views:\n  far: 1\n  withhold: 2\nneeded: 1", 3),
        ("views: {}\nneeded: -1", 2),
        ("needed: 5\nviews:\n  sum: 6", 3),
    ]:
        with pytest.raises(RecipeError, match=rf"^r line {line} column"):
            load(text, Nested, where="r")


@dataclass(frozen=True, kw_only=True)
class Round:
    kind: ClassVar[str] = "round"
    size: int = 1
    radius: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Square:
    kind: ClassVar[str] = "square"
    size: int = 2
    edge: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Shaped:
    shape: Round | Square = field(default_factory=Round)
    own: Square = field(default_factory=Square)


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        ("{}", Round()),
        ("shape: {size: 3}", Round(size=3)),
        ("shape: {size: 3, edge: 2}", Square(size=3, edge=2.0)),
        ("shape: {kind: square, size: 3}", Square(size=3)),
        ("shape: {kind: round}", Round()),
    ],
)
def test_of_several_classes_the_kind_or_the_keys_say_which(text: str, shape: Round | Square) -> None:
    loaded = load(text, Shaped, where="r.yaml")
    assert loaded.shape == shape
    assert load(to_yaml(loaded), Shaped, where="r.yaml") == loaded
    assert load("own: {kind: square, edge: 3}", Shaped, where="r.yaml").own == Square(edge=3.0)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("shape: {kind: oval}", "unknown kind 'oval'"),
        ("shape: {kind: round, edge: 2}", "unknown key 'edge'"),
        ("shape: {edge: 2, radios: 2}", "unknown key 'radios' in shape; "),
        ("own: {kind: round}", "unknown kind 'round'"),
    ],
)
def test_a_class_that_does_not_fit_says_why(text: str, words: str) -> None:
    with pytest.raises(RecipeError, match=re.escape(words)):
        load(text, Shaped, where="r.yaml")

"""Configs as text: every valid config comes back from TOML, and every key is explained."""

from __future__ import annotations

import dataclasses
import types
import typing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ondevice.errors import UsageError
from ondevice.run.config import explain, parse_config, to_toml
from ondevice.run.schema import Config, SourceConfig

WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
PATHS = st.lists(st.sampled_from(["a", "b c", "ü.txt", '"q"', "#", "\x7f", "~"]), min_size=1).map(
    lambda parts: "/" + "/".join(parts)
)


def values_of(hint: Any, rules: typing.Mapping[str, Any]) -> st.SearchStrategy[Any]:
    """Values that the schema allows for a field."""
    if rules.get("choices"):
        return st.sampled_from(rules["choices"])
    args = typing.get_args(hint)
    if isinstance(hint, types.UnionType):
        return st.none() | values_of(next(arg for arg in args if arg is not type(None)), rules)
    if typing.get_origin(hint) is tuple:
        return st.lists(values_of(args[0], rules), max_size=3).map(tuple)
    if dataclasses.is_dataclass(hint):
        assert isinstance(hint, type)
        return configs(hint)
    if rules.get("filled"):
        return WORDS.filter(str.strip)
    if hint is int:
        return st.integers(int(rules["low"]), int(rules["high"]))
    if hint is float:
        low = rules.get("low") if rules.get("above") is None else rules["above"]
        return st.floats(
            low,
            rules.get("high"),
            exclude_min=rules.get("above") is not None,
            allow_nan=False,
            allow_infinity=False,
            allow_subnormal=False,  # torch may have turned them off in this process
        )
    return {bool: st.booleans(), str: WORDS}[hint]


def configs(cls: type) -> st.SearchStrategy[Any]:
    hints = typing.get_type_hints(cls)
    fields = {item.name: values_of(hints[item.name], item.metadata) for item in dataclasses.fields(cls)}
    if "path" in fields:
        fields["path"] = PATHS if cls is SourceConfig else PATHS | st.just("")
    for name in {"base", "contract", "adapter"} & {name for name in fields if hints[name] is str}:
        fields[name] = PATHS | st.just("")
    return st.builds(cls, **fields)


@settings(max_examples=150, deadline=None)
@given(configs(Config))
def test_every_config_comes_back_from_toml(config: Config) -> None:
    assert parse_config(to_toml(config), where="config.toml", base=Path("/")) == config


def test_text_that_is_not_utf8_is_refused() -> None:
    with pytest.raises(UsageError, match=r"'/x\\udcff': not UTF-8, which a config must be; rename it\."):
        to_toml(Config(name="/x\udcff"))


def leaves(cls: Any) -> typing.Iterator[str]:
    """The dotted name of every field that is not itself a table."""
    hints = typing.get_type_hints(cls)
    for item in dataclasses.fields(cls):
        hint = hints[item.name]
        tables = [inner for inner in (hint, *typing.get_args(hint)) if dataclasses.is_dataclass(inner)]
        if tables:
            yield from (f"{item.name}.{name}" for name in leaves(tables[0]))
        else:
            yield item.name


def test_every_field_is_explained() -> None:
    rows = {row["key"]: row for row in explain()}
    assert {key.replace("[]", "") for key in rows} == set(leaves(Config))
    assert len(rows) > 60
    for key, row in rows.items():
        assert len(row["doc"]) >= 8, key
        assert row["type"].removeprefix("list of ") in ("whole number", "number", "true/false", "text")
        assert not row["doc"].endswith("."), key
    assert rows["data.sources[].path"]["required"]
    assert rows["train.lr"] == {
        "key": "train.lr",
        "type": "number",
        "default": None,
        "required": False,
        "unit": "",
        "choices": [],
        "bounds": "more than 0, at most 1e+30",
        "doc": "peak learning rate; derived from the width",
    }


def test_every_number_has_two_bounds_and_says_them() -> None:
    for row in explain():
        if row["type"] in ("whole number", "number"):
            assert row["bounds"].startswith(("at least ", "more than ")), row["key"]
            assert ", at most " in row["bounds"], row["key"]


def test_quantities_name_their_unit() -> None:
    units = {row["key"]: row["unit"] for row in explain()}
    expected = {"_mb": "MB", "_s": "s", "tokens": "tokens", "minutes": "minutes"}
    for key, unit in units.items():
        for ending, wanted in expected.items():
            if key.endswith(ending):
                assert unit == wanted, key

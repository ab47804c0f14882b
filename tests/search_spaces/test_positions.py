"""Positions of a space as keys of measured tables."""

from __future__ import annotations

import pytest

from hw_models import InputError
from search_spaces.positions import choice_text, position_keys
from search_spaces.spaces import mobilenet_v2, mobilenet_v3, proxylessnas
from search_spaces.texts import resolve

TUNAS = "proxylessnas[first_kernels=(3,5,7),widths=(32,16,32,40,80,96,192,320,1280)]"


def test_positions_name_what_a_network_chose_and_refuse_another_space() -> None:
    space = resolve(TUNAS, prefer_space=True).space
    network = resolve("proxylessnas_mobile").network()
    keys = position_keys(space, network)
    assert len(keys) == 22 and keys[0] == "stages/0/0:inverted_residual[kernel=3,expand=1]"
    assert keys[3] == "stages/1/2:skip"
    with pytest.raises(
        InputError, match=r"stages/1/0 goes from 112x112x16 to 56x56x24, but from 112x112x16 to 56x56x32"
    ):
        position_keys(space, proxylessnas.space().freeze([0] * 21))
    with pytest.raises(InputError, match="stem/0 goes from 224x224x3 to 112x112x40, but from 224x224x3 to 112x112x32"):
        position_keys(space, resolve("proxylessnas_cpu").network())
    with pytest.raises(InputError, match="searches widths or resolutions"):
        position_keys(mobilenet_v2.space(), mobilenet_v2.space().freeze([0] * mobilenet_v2.space().num_decisions))


def test_blocks_that_a_depth_leaves_out_have_a_key() -> None:
    space = mobilenet_v3.space(resolutions=1)
    shallow, deep = (position_keys(space, space.freeze(genes)) for genes in (
        [0] * space.num_decisions, [count - 1 for count in space.cardinality]))  # fmt: skip
    assert len(shallow) == len(deep) == 20
    assert shallow[2:4] == ["stages/1/2:none", "stages/1/3:none"]
    assert deep[3].startswith("stages/1/3:inverted_residual[kernel=7,expand=6")
    assert choice_text(None) == "none"

"""The Huffman code is optimal, a prefix code, and decodes what it encoded across blocks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hw_models.errors import InputError
from search_spaces.arithmetic import huffman


def entropy(counts):
    share = counts[counts > 0] / counts.sum()
    return -(share * np.log2(share)).sum()


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=60))
def test_lengths_are_those_of_a_complete_prefix_code_near_the_entropy(counts):
    counts = np.asarray(counts)
    lengths = huffman.code_lengths(counts)
    assert ((lengths > 0) == (counts > 0)).all()
    if np.count_nonzero(counts) > 1:
        assert (2.0 ** -lengths[counts > 0].astype(float)).sum() == 1
        mean = (counts * lengths).sum() / counts.sum()
        assert entropy(counts) - 1e-9 <= mean < entropy(counts) + 1


def test_known_codes():
    assert huffman.code_lengths([45, 13, 12, 16, 9, 5]).tolist() == [1, 3, 3, 3, 4, 4]  # 224 bits in all
    assert huffman.code_lengths([0, 7, 0]).tolist() == [0, 1, 0]
    assert huffman.code_lengths([0, 0]).tolist() == [0, 0]
    fibonacci = [1, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144]
    assert huffman.code_lengths(fibonacci).max() == 11


@given(st.lists(st.integers(0, 40), max_size=300))
@settings(deadline=None)
def test_round_trip(symbols):
    lengths = huffman.code_lengths(np.bincount(symbols, minlength=41))
    data = huffman.encode(symbols, lengths)
    assert len(data) == -(-int(lengths[symbols].sum() if symbols else 0) // 8)
    assert huffman.decode(data, len(symbols), lengths).tolist() == symbols


def test_round_trip_across_blocks(monkeypatch):
    monkeypatch.setattr(huffman, "_BLOCK", 64)
    symbols = np.random.default_rng(0).geometric(0.3, 5000)
    lengths = huffman.code_lengths(np.bincount(symbols))
    np.testing.assert_array_equal(huffman.decode(huffman.encode(symbols, lengths), 5000, lengths), symbols)


def test_data_that_were_not_encoded_so_are_named():
    lengths = huffman.code_lengths([5, 2, 1])
    data = huffman.encode([0, 1, 2, 0], lengths)
    with pytest.raises(InputError, match="the data end before 40 symbols"):
        huffman.decode(data, 40, lengths)
    with pytest.raises(InputError, match="symbol 3 has no code: count all symbols before"):
        huffman.encode([0, 3], np.append(lengths, 0))
    with pytest.raises(InputError, match="bits that are no code"):
        huffman.decode(b"\xff", 2, np.asarray([1]))
    with pytest.raises(InputError, match="the data end before 1 symbols"):
        huffman.decode(b"\xff", 1, np.asarray([0, 0]))
    with pytest.raises(InputError, match="these lengths are those of no code"):
        huffman.decode(data, 1, np.asarray([1, 1, 1]))
    with pytest.raises(InputError, match="a code of 58 bits is too long"):
        huffman.decode(data, 1, np.asarray([1, 58]))

"""The shape of a key tells a typo from a stranger before any look-up."""

from hypothesis import given
from hypothesis import strategies as st

from gatekeeper.rules.keys import ENTROPY_BYTES, KEY_LETTERS, digest, make_key, shown, well_formed

ENTROPY = st.binary(min_size=ENTROPY_BYTES, max_size=ENTROPY_BYTES)


@given(ENTROPY)
def test_a_made_key_is_well_formed(entropy):
    key = make_key(entropy)
    assert well_formed(key)
    assert len(key) == KEY_LETTERS
    assert key.startswith("gk_")


@given(ENTROPY, ENTROPY)
def test_two_keys_are_as_different_as_their_entropy(one, other):
    assert (make_key(one) == make_key(other)) == (one == other)
    assert (digest(make_key(one)) == digest(make_key(other))) == (one == other)


@given(ENTROPY, st.integers(3, KEY_LETTERS - 1), st.characters())
def test_one_wrong_letter_is_noticed(entropy, place, letter):
    key = make_key(entropy)
    changed = key[:place] + letter + key[place + 1 :]
    assert well_formed(changed) == (changed == key)


@given(st.text(max_size=60))
def test_no_text_is_a_key_by_accident(text):
    assert not well_formed(text)
    assert not well_formed("gk_" + text)


def test_a_key_is_shown_by_its_first_letters_only():
    key = make_key(bytes(range(ENTROPY_BYTES)))
    assert shown(key) == key[:10]
    assert digest(key) != digest(key.lower())

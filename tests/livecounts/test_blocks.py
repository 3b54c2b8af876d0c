"""The setting that names the blocks of `progress`: what workers read, whoever begins and ends in whatever order."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_llm.livecounts.blocks import Block, last_block

BLOCKS = st.builds(
    Block,
    st.sampled_from(["127.0.0.1", "10.1.2.3", "::1", "fe80::1%eth0", "2001:db8::7"]),
    st.integers(1, 65_535),
    st.integers(0, 2**48),
    st.booleans(),
)


@given(st.lists(BLOCKS, unique=True, min_size=1, max_size=4))
def test_workers_read_the_last_block(blocks: list[Block]) -> None:
    """Blocks nest: the inner one counts."""
    setting = ""
    for block in blocks:
        setting = block.added_to(setting)
        assert block == last_block(setting)


@given(st.lists(BLOCKS, unique=True, min_size=1, max_size=4), st.data())
def test_blocks_end_in_any_order(blocks: list[Block], data: st.DataObject) -> None:
    """Threads share a session: what is left of the setting is that of the blocks that still run."""
    setting, left = "", list(blocks)
    for block in blocks:
        setting = block.added_to(setting)
    for block in data.draw(st.permutations(blocks)):
        setting = block.removed_from(setting)
        left.remove(block)
        assert (left[-1] if left else None) == last_block(setting)
    assert "" == setting


@pytest.mark.parametrize(
    "setting", [None, "", " ", "x", "h:1", "h:1/", "h:x/1", "h:123456/1", ":1/1", "h:1/1 x", "h:1/" + "9" * 99]
)
def test_another_setting_is_no_block(setting: str | None) -> None:
    """Another version may have written it."""
    assert last_block(setting) is None

"""The reader of the documentation reads what a person reads."""

import pytest
from house_markdown import Command, agrees, blocks, commands, links, tables

PAGE = """# Title
See [there](docs/x.md#part), [here](https://example.com).

```toml
# gateway.toml
[server]
```

| Code | Status |
|---|---:|
| `missing_key` | 401 |
| `bad_request` | 400 |

~~~console-run
$ gatekeeper check \\
    gateway.toml
fine

$ gatekeeper functions
~~~
"""


def test_blocks_come_with_language_and_line():
    toml, console = blocks(PAGE, "README.md")
    assert (toml.where, toml.language, toml.text) == ("README.md:5", "toml", "# gateway.toml\n[server]\n")
    assert (console.where, console.language) == ("README.md:15", "console-run")


def test_a_block_without_a_language_keeps_its_first_line():
    (block,) = blocks("```\ncli   words\nweb\n```\n", "README.md")
    assert (block.where, block.language, block.text) == ("README.md:2", "", "cli   words\nweb\n")


def test_commands_are_told_from_what_they_print():
    assert commands(blocks(PAGE, "README.md")[1]) == [
        Command("README.md:15", "gatekeeper check gateway.toml", "fine"),
        Command("README.md:19", "gatekeeper functions", ""),
    ]


def test_tables_are_rows_by_head():
    assert tables(PAGE) == [[{"code": "missing_key", "status": "401"}, {"code": "bad_request", "status": "400"}]]


def test_links_are_found_outside_of_blocks():
    assert links(PAGE + "```\n[no](nowhere.md)\n```\n") == ["docs/x.md#part", "https://example.com"]


@pytest.mark.parametrize(
    ("shown", "printed", "expected"),
    [
        ("87 units", "87 units\n", True),
        ("87 units", "88 units\n", False),
        ("a ... z", "a b c z", True),
        ("a\n...\nz", "a\nb\nc\nz", True),
        ("a", "a\nb", False),
        ("", "something", False),
        ("1.5 (exact)", "1x5 (exact)", False),
        ("a  \nb", "a\nb  \n\n", True),
    ],
)
def test_only_dots_stand_for_something_else(shown, printed, expected):
    assert agrees(shown, printed) is expected

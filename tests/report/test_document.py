from html.parser import HTMLParser

from markupsafe import Markup

from fraud.report.document import (
    Code,
    Document,
    Figures,
    Items,
    Section,
    Table,
    Text,
    to_html,
    to_markdown,
)

HOSTILE = '<script>alert("1")</script> & `x` | [a](b) *b* _c_ # ~ !'


def page(*blocks):
    return Document(HOSTILE, HOSTILE, (Section(HOSTILE, blocks),))


EVERYTHING = page(
    Text(HOSTILE),
    Items((HOSTILE, "- second")),
    Table(("a", HOSTILE), ((HOSTILE, "1"),), numbers=True),
    Code(HOSTILE),
)


class Parsed(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.text, self.attributes = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self.text.append(data)


def test_text_never_becomes_markup_in_the_page():
    parsed = Parsed(to_html(EVERYTHING))
    assert "script" not in parsed.tags
    assert "a" not in parsed.tags
    assert parsed.text.count(HOSTILE) == 9  # title twice, subtitle, section title and the blocks


def test_the_page_is_self_contained():
    parsed = Parsed(to_html(EVERYTHING))
    assert not {"link", "img", "iframe"} & set(parsed.tags)
    assert not {"src", "href"} & {name for name, _ in parsed.attributes}
    style = "".join(parsed.text)
    assert "url(" not in style
    assert "@import" not in style
    assert "prefers-color-scheme: dark" in style


def test_text_never_becomes_markup_in_markdown():
    import markdown_it

    parsed = markdown_it.MarkdownIt("commonmark").enable("table").parse(to_markdown(EVERYTHING))
    inline = [child for token in parsed for child in token.children or []]
    assert {child.type for child in inline} == {"text"}
    assert [t.content for t in parsed if t.type == "fence"] == [f"{HOSTILE}\n"]
    assert sum(t.type == "th_open" for t in parsed) == sum(t.type == "td_open" for t in parsed) == 2
    texts = ["".join(c.content for c in t.children or []) for t in parsed if t.type == "inline"]
    assert texts.count(HOSTILE) == 7


def test_what_looks_like_a_list_stays_a_sentence():
    import markdown_it

    for sentence in ("1. first", "2) second", "- third", "+ fourth"):
        parsed = markdown_it.MarkdownIt("commonmark").parse(to_markdown(page(Text(sentence))))
        assert "list_item_open" not in {token.type for token in parsed}
        assert sentence in [t.content for x in parsed for t in x.children or []]


def test_code_with_fences_stays_in_its_fence():
    assert "\n````\n```\n````\n" in to_markdown(page(Code("```")))


def test_charts_are_drawn_in_the_page_and_named_in_markdown():
    document = page(Figures({HOSTILE: Markup('<svg role="img"></svg>')}))
    parsed = Parsed(to_html(document))
    assert parsed.tags.count("svg") == 1 and "script" not in parsed.tags
    assert HOSTILE in parsed.text
    assert "The page also shows" in to_markdown(document)

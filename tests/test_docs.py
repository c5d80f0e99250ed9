import dataclasses
import json
import re
import subprocess
import sys

import pytest
import yaml

from fraud import codec
from fraud.pipeline.config import Config


@pytest.fixture
def generated(repository):
    """What `make docs` would write: name in docs/ to content."""
    script = "import document_configuration as d, json; print(json.dumps(d.documents()))"
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={"PYTHONPATH": f"{repository / 'scripts'}:{repository}"},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def test_generated_documents_are_up_to_date(repository, generated):
    assert generated.keys() == {"configuration.md", "config.schema.json"}
    for name, text in generated.items():
        assert (repository / "docs" / name).read_text(encoding="utf-8") == text, "run `make docs`"


def keys_of(section, name):
    """(dotted key, default) of all that is not itself a section."""
    for field in dataclasses.fields(section):
        key, value = f"{name}.{field.name}".lstrip("."), getattr(section, field.name)
        is_section = dataclasses.is_dataclass(value) and not isinstance(value, type)
        yield from keys_of(value, key) if is_section else [(key, value)]


def test_every_key_has_a_yaml_default_and_a_sentence_of_its_own(generated):
    rows = re.findall(
        r"^\| `([\w.]+)` \| `(.*)` \| (.*) \|$", generated["configuration.md"], re.MULTILINE
    )
    keys = dict(keys_of(Config(), ""))
    assert {key for key, _, _ in rows} == keys.keys()
    for key, default, _ in rows:
        assert codec.to_json(yaml.safe_load(default)) == codec.to_json(keys[key])
    sentences = [sentence for _, _, sentence in rows]
    assert len({*sentences}) == len(rows)
    assert all(s.endswith(".") and not re.search(r"\. [A-Z]", s) for s in sentences)


def test_the_sample_configuration_names_the_json_schema(repository):
    sample = repository / "data" / "sample" / "config.yaml"
    line = sample.read_text(encoding="utf-8").splitlines()[0]
    path = line.removeprefix("# yaml-language-server: $schema=")
    assert (sample.parent / path).resolve() == repository / "docs" / "config.schema.json"


FOLDERS = (
    "benchmarks|data|deploy|docs|features|fraud|models|pipeline|report|schema|scripts|serving|tests"
)


def pages(repository):
    return [*repository.glob("*.md"), *repository.glob("docs/**/*.md")]


def anchors(page):
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(page):
    broken = []
    for target, anchor in re.findall(
        r"\]\(([^)#]*)(?:#([^)]*))?\)", page.read_text(encoding="utf-8")
    ):
        other = page.parent / target if target else page
        if "://" in target:
            continue
        if not other.exists() or (anchor and anchor not in anchors(other)):
            broken.append(f"{target}#{anchor}")
    return broken


def missing_references(text, repository):
    """Paths and modules of ours that a text names, but that do not exist."""
    paths = re.findall(rf"(?<![\w./-])((?:{FOLDERS})/[\w./-]*\w)(?![\w*{{]|\.\*)", text)
    modules = re.findall(r"(?<![\w./])fraud(?!\.yaml)(?:\.[a-z_]+)+", text)
    missing = [path for path in paths if not (repository / path).exists()]
    for module in modules:
        parent, *names = module.split(".")
        at = repository / parent
        for name in names:
            if at.is_file():
                if not re.search(rf"\b{name}\b", at.read_text(encoding="utf-8")):
                    missing.append(module)
                break
            package = at / "__init__.py"
            if (at / name).is_dir():
                at = at / name
            elif (at / f"{name}.py").exists():
                at = at / f"{name}.py"
            elif package.exists() and re.search(rf"\b{name}\b", package.read_text("utf-8")):
                break
            else:
                missing.append(module)
                break
    return missing


def test_links_between_documents_lead_somewhere(repository):
    broken = {str(page.relative_to(repository)): broken_links(page) for page in pages(repository)}
    assert not {page: links for page, links in broken.items() if links}


def test_documents_name_paths_and_modules_that_exist(repository):
    history = repository / "docs" / "adr"  # tells what was, too
    missing = {
        str(page.relative_to(repository)): missing_references(page.read_text("utf-8"), repository)
        for page in pages(repository)
        if history not in page.parents
    }
    assert not {page: names for page, names in missing.items() if names}


def test_docstrings_name_modules_that_exist(repository):
    files = [
        path
        for folder in ("benchmarks", "deploy", "fraud", "scripts")
        for path in repository.glob(f"{folder}/**/*.py")
    ]
    for folder in ("data", "features", "models", "pipeline", "report", "schema"):
        files += repository.glob(f"{folder}/**/*.py")
    missing = {}
    for path in sorted(files):
        names = re.findall(r"`(fraud(?:\.[a-z_]+)+)", path.read_text("utf-8"))
        missing[str(path)] = missing_references(" ".join(names), repository)
    assert not {path: names for path, names in missing.items() if names}


def test_a_broken_link_and_a_missing_path_are_noticed(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# A title\n[a](#a-title) [b](#none) [c](other.md) `docs/none.md`")
    assert broken_links(page) == ["#none", "other.md#"]
    text = "`docs/none.md` and `fraud.nowhere.x`, `scripts/`"
    assert missing_references(text, tmp_path) == ["docs/none.md", "fraud.nowhere.x"]

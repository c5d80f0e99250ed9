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


def test_every_key_has_a_yaml_default_and_a_sentence_of_its_own(generated):
    rows = re.findall(
        r"^\| `([\w.]+)` \| `(.*)` \| (.*) \|$", generated["configuration.md"], re.MULTILINE
    )
    sections = Config()
    keys = {
        f"{section.name}.{key.name}": getattr(getattr(sections, section.name), key.name)
        for section in dataclasses.fields(Config)
        for key in dataclasses.fields(getattr(sections, section.name))
    }
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


def test_links_between_documents_lead_somewhere(repository):
    pages = [*repository.glob("*.md"), *repository.glob("docs/**/*.md")]
    broken = []
    for page in pages:
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            if "://" not in target and not (page.parent / target).exists():
                broken.append(f"{page.relative_to(repository)}: {target}")
    assert not broken
